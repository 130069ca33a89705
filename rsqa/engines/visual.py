"""Between numpy and a device: pixels in, visual tokens out and in again, bit by bit."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def as_array(visual: Tensor) -> NDArray[Any]:
    """(B, S, D) on any device -> the same bits in memory; bfloat16, which numpy does not know, as uint16."""
    return (visual.view(torch.uint16) if visual.dtype == torch.bfloat16 else visual).cpu().numpy()


def as_visual(features: Tensor) -> Tensor:
    """The inverse of `as_array`, for what is on the device already."""
    return features.view(torch.bfloat16) if features.dtype == torch.uint16 else features


def to_device(batch: NDArray[Any], device: torch.device) -> Tensor:
    """A batch, as it lies in memory, on a device; a GPU fetches it from pinned memory while it still works."""
    held = torch.from_numpy(batch)
    return held.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else held
