"""The static-shape forward of Qwen2-VL: every tile of a batch has the same size.

transformers holds the weights and is the oracle; these functions run them on dense (B, …) tensors, with positions and
masks that depend on the shape alone. B tiles, N patches, S visual tokens (N / merge²), E vision width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def patchify(pixels: Tensor, patch: int, merge: int) -> Tensor:
    """(B, 3, H, W) -> (B, N, 3·patch·patch); patches in the merger's order: the merge² of one visual token together."""
    b, c, h, w = pixels.shape
    unit = patch * merge
    if h % unit or w % unit:
        raise ValueError(f"image sides must be multiples of {unit}, got {h} x {w}")
    x = pixels.reshape(b, c, h // unit, merge, patch, w // unit, merge, patch)
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(b, -1, c * patch * patch)


def vision_rotary(grid_h: int, grid_w: int, merge: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """-> cos, sin (N, head_dim): half of the channels turn with the patch row, half with its column; merger's order."""
    rows = torch.arange(grid_h).reshape(grid_h // merge, 1, merge, 1).expand(-1, grid_w // merge, -1, merge)
    cols = torch.arange(grid_w).reshape(1, grid_w // merge, 1, merge).expand(grid_h // merge, -1, merge, -1)
    quarter = torch.arange(0, head_dim // 2, 2, dtype=torch.float32) / (head_dim // 2)
    inverse = 1.0 / 10_000.0**quarter  # (head_dim / 4,)
    angles = torch.cat([rows.reshape(-1, 1) * inverse, cols.reshape(-1, 1) * inverse], dim=1)
    angles = torch.cat([angles, angles], dim=1)  # (N, head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(…, N, head_dim) turned by its position."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values (B, heads, N, d) -> the same shape: attention without a mask."""


def encode(visual: Any, pixels: Tensor, attend: Attend = F.scaled_dot_product_attention) -> Tensor:
    """(B, 3, H, W) normalised -> (B, S, D) visual tokens in row order, the vision tower with its merger.

    The tower takes two frames; a still image is shown twice, so the two halves of the patch kernel add up.
    """
    embed = visual.patch_embed
    patch, merge = embed.patch_size, visual.spatial_merge_size
    kernel = embed.proj.weight.sum(dim=2).flatten(1)  # (E, 3, 2, patch, patch) -> (E, 3·patch·patch)
    x = F.linear(patchify(pixels, patch, merge).to(kernel.dtype), kernel)  # (B, N, E)
    b, n, e = x.shape
    heads = visual.blocks[0].attn.num_heads
    cos, sin = vision_rotary(pixels.shape[2] // patch, pixels.shape[3] // patch, merge, e // heads)
    cos, sin = cos.to(x.device), sin.to(x.device)
    for block in visual.blocks:
        qkv = block.attn.qkv(block.norm1(x)).reshape(b, n, 3, heads, e // heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, heads, N, head_dim)
        q, k = rotate(q.float(), cos, sin).to(v.dtype), rotate(k.float(), cos, sin).to(v.dtype)
        seen = attend(q, k, v)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(b, n, e))
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = visual.merger(x.reshape(b * n, e))
    return merged.reshape(b, n // merge**2, -1)


def prefix_positions(n_before: int, grid_h: int, grid_w: int, n_after: int) -> tuple[Tensor, int]:
    """Multimodal rotary positions of text, image, text -> (3, P) for time, row, column; and the next free position.

    `grid_h` x `grid_w` visual tokens. Text turns all three axes alike; the image stands still in time and counts rows
    and columns from the position where it begins.
    """
    before = torch.arange(n_before).expand(3, -1)
    rows = torch.arange(grid_h).repeat_interleave(grid_w)
    cols = torch.arange(grid_w).repeat(grid_h)
    image = torch.stack([torch.zeros_like(rows), rows, cols]) + n_before
    start = n_before + max(grid_h, grid_w)
    after = (torch.arange(n_after) + start).expand(3, -1)
    return torch.cat([before, image, after], dim=1), start + n_after


def language(model: Any, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: object | None = None) -> Tensor:
    """(B, L, D) embeddings -> (B, L, D) last hidden states.

    `positions` (3, B or 1, L); `mask` bool (B or 1, 1, L, cached + L), true where a token may look; None: at all that
    is cached when L is 1, else at what stands before in `embeds` (with nothing cached). `cache` is a `KeyValues`, a
    `Behind` or a cache of transformers; new keys and values are appended to it.
    """
    b = embeds.shape[0]
    out = model(
        inputs_embeds=embeds,
        attention_mask={"full_attention": None if mask is None else mask.expand(b, -1, -1, -1)},
        position_ids=positions.expand(3, b, -1),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden
