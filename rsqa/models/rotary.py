"""Rotary positions: channels turned by angles that depend on where a token stands.

B rows, L tokens, H heads, C channels of a head. Channel i turns together with channel i + C / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """How far each token turns: made once for all layers."""

    cos: Tensor
    """(L, 1, C) or (B, L, 1, C) float32, the same for all heads."""
    sin: Tensor
    """The same shape; the first half of the channels has its sign changed already."""

    @classmethod
    def of(cls, angles: Tensor) -> Turns:
        """(…, L, C / 2) angles -> their turns."""
        cos, sin = angles.cos(), angles.sin()
        return cls(torch.cat([cos, cos], dim=-1).unsqueeze(-2), torch.cat([-sin, sin], dim=-1).unsqueeze(-2))


def rotate(x: Tensor, turns: Turns) -> Tensor:
    """(B, L, H, C) turned by its positions; the arithmetic is float32, the result has the type of `x`."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * turns.cos, swapped, turns.sin).to(x.dtype)


def vision_angles(rows: int, cols: int, merge: int, channels: int, theta: float = 10_000.0) -> Tensor:
    """-> (N, C / 2) of `rows` x `cols` patches: a half turns with the row, a half with the column; merger's order."""
    row = torch.arange(rows).reshape(rows // merge, 1, merge, 1).expand(-1, cols // merge, -1, merge)
    col = torch.arange(cols).reshape(1, cols // merge, 1, merge).expand(rows // merge, -1, merge, -1)
    inverse = 1.0 / theta ** (torch.arange(0, channels // 2, 2) / (channels // 2))  # (C / 4,)
    return torch.cat([row.reshape(-1, 1) * inverse, col.reshape(-1, 1) * inverse], dim=1)


def text_angles(positions: Tensor, inverse: Tensor, sections: tuple[int, ...]) -> Tensor:
    """(3, …, L) positions in time, row and column -> (…, L, C / 2): `sections` of the channels turn with each."""
    angles = positions[..., None].to(inverse) * inverse  # (3, …, L, C / 2)
    pieces = torch.split(angles, list(sections), dim=-1)
    return torch.cat([piece[axis % 3] for axis, piece in enumerate(pieces)], dim=-1)


def image_positions(n_before: int, grid_h: int, grid_w: int, n_after: int) -> tuple[Tensor, int]:
    """Positions of text, image, text -> (3, L) for time, row and column; and the next free position.

    `grid_h` x `grid_w` visual tokens. Text turns all three axes alike; the image stands still in time and counts rows
    and columns from the position where it begins (Qwen2-VL, section 2.1).
    """
    before = torch.arange(n_before).expand(3, -1)
    rows = torch.arange(grid_h).repeat_interleave(grid_w)
    cols = torch.arange(grid_w).repeat(grid_h)
    image = torch.stack([torch.zeros_like(rows), rows, cols]) + n_before
    start = n_before + max(grid_h, grid_w)
    after = (torch.arange(n_after) + start).expand(3, -1)
    return torch.cat([before, image, after], dim=1), start + n_after
