"""Where a prompt should look: at the blocks that hold what a question asks for, where that is known; at none more than
at others when nothing does, lest it look at whatever meets the eye.

R rows, C questions of a row, N blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.tasks.boxes import Box


def held_by(boxes: Sequence[Sequence[Sequence[Box] | None]], weights: Tensor) -> Tensor:
    """Boxes for each row and question, None where that is not known; (R, C, N) weights of blocks -> (R, C, N) what
    share of the boxes each block holds, the same for all where there are none; NaN where that is not known.
    """
    blocks = weights.shape[-1]
    held = torch.full(weights.shape, torch.nan)
    for row, each in enumerate(boxes):
        for place, some in enumerate(each):
            if some is not None:
                shares = block_shares(some, isqrt(blocks)) if some else np.full(blocks, 1 / blocks)
                held[row, place] = torch.from_numpy(shares)
    return held.to(weights.device)


def block_shares(boxes: Sequence[Box], side: int) -> NDArray[np.float64]:
    """Boxes in shares of a picture that is cut into side x side blocks -> (side²,) share of their area in each."""
    edges = np.arange(side + 1) / side
    corners = np.array(boxes)[:, :, None]  # (n, 4, 1)
    x, y = (
        np.clip(np.minimum(corners[:, k + 2], edges[1:]) - np.maximum(corners[:, k], edges[:-1]), 0, None)
        for k in (0, 1)
    )
    area = (y[:, :, None] * x[:, None, :]).sum(axis=0).ravel()
    shares: NDArray[np.float64] = area / area.sum()
    return shares


def drift(weights: Tensor, scores: Tensor, held: Tensor) -> Tensor:
    """(n, N) weights made from (n, N) scores, and what they should be -> a number whose gradient with respect to the
    scores is weights - held: that of the Fenchel-Young loss of their fusion (arXiv 1901.02324).

    Unlike that of a distance it does not vanish where a weight is zero.
    """
    return ((weights - held).detach() * scores).sum()
