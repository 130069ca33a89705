"""From uint8 chips to what the vision tower reads; one filter for training, engine and oracle.

B chips of H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue on the scale 0..1: the constants of CLIP, which Qwen2-VL keeps."""
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def resample(chips: Tensor, side: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) on the scale 0..255 -> (B, 3, h, w) float32, whole numbers 0..255: bicubic, antialiased.

    Columns first, then rows, each rounded to whole levels: the arithmetic of Pillow, and so of the Hugging Face
    processor. Without the rounding in between, overshoot at sharp edges differs by up to 25 levels; with it, pixels
    differ from Pillow's in less than 1 % of places and there by 1 level, rarely 2.
    """
    pixels = chips.to(torch.float32)
    height, width = side
    if pixels.shape[3] != width:
        pixels = _to_size(pixels, (pixels.shape[2], width))
    if pixels.shape[2] != height:
        pixels = _to_size(pixels, side)
    return pixels


def _to_size(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    scaled = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0.0, 255.0)


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, h, w) on the scale 0..255 -> the same shape, zero mean and unit deviation per channel."""
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device).reshape(3, 1, 1) * 255.0
    std = torch.tensor(PIXEL_STD, device=pixels.device).reshape(3, 1, 1) * 255.0
    return (pixels - mean) / std
