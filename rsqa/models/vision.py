"""The vision tower of Qwen2-VL for pictures of one size: dense tensors, positions that depend on the size alone.

transformers holds the weights and is the oracle; nothing of its forward is used. B pictures, N patches,
S visual tokens (N / merge²), E width of the tower, D width of the language part, H heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rsqa.models.rotary import Turns, rotate, vision_angles

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue on the scale 0..1: the constants of CLIP, which Qwen2-VL keeps."""
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
MIDDLE = 128
"""Pixels are read as -128..127, which bfloat16 holds exactly; the patch embedding knows."""
QUICK_GELU = 1.702

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values (B, H, N, C) -> the same shape."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchEmbedding:
    """From pixels on the scale 0..255 to patch vectors: rescaling, normalising and both frames in one matrix."""

    weight: Tensor
    """(E, 3·patch·patch)."""
    bias: Tensor
    """(E,)."""
    patch: int
    merge: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or whole numbers 0..255 in a float type -> (B, N, E)."""
        whole = pixels.dtype == torch.uint8
        centred = (pixels ^ MIDDLE).view(torch.int8) if whole else pixels - MIDDLE  # the highest bit stands for 128
        return F.linear(patchify(centred, self.patch, self.merge, self.weight.dtype), self.weight, self.bias)


def patch_embedding(visual: Any) -> PatchEmbedding:
    """Fold what comes before the first product into its weights, in float32, rounded once.

    With weight W and a pixel p: W · (p / 255 - mean) / std = W' · (p - 128) + b. The tower takes two frames; a still
    image is shown twice, so the two halves of the kernel add up.
    """
    embed = visual.patch_embed
    kernel = embed.proj.weight.float().sum(dim=2)  # (E, 3, 2, patch, patch) -> (E, 3, patch, patch)
    mean = torch.tensor(PIXEL_MEAN, device=kernel.device).reshape(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=kernel.device).reshape(3, 1, 1)
    weight = (kernel / (255.0 * std)).flatten(1)
    bias = (kernel * (MIDDLE / 255.0 - mean) / std).sum(dim=(1, 2, 3))
    dtype = embed.proj.weight.dtype
    return PatchEmbedding(weight.to(dtype), bias.to(dtype), embed.patch_size, visual.spatial_merge_size)


def patchify(pixels: Tensor, patch: int, merge: int, dtype: torch.dtype) -> Tensor:
    """(B, 3, H, W) -> (B, N, 3·patch·patch) of `dtype`; the merge² patches of one visual token stand together."""
    b, c, h, w = pixels.shape
    unit = patch * merge
    if h % unit or w % unit:
        raise ValueError(f"image sides must be multiples of {unit}, got {h} x {w}")
    x = pixels.reshape(b, c, h // unit, merge, patch, w // unit, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.to(dtype, memory_format=torch.contiguous_format).reshape(b, -1, c * patch * patch)


@dataclass(frozen=True, slots=True, eq=False)
class Vision:
    """A tower made ready."""

    visual: Any
    """transformers' tower."""
    embed: PatchEmbedding
    enter: Callable[[Any, Tensor, Turns], tuple[Tensor, Tensor, Tensor]]
    leave: Callable[[Any, Tensor, Tensor], Tensor]

    def turns(self, height: int, width: int) -> Turns:
        """Turns of the patches of a picture of `height` x `width` pixels."""
        e, heads = self.embed.weight.shape[0], self.visual.blocks[0].attn.num_heads
        rows, cols = height // self.embed.patch, width // self.embed.patch
        return Turns.of(vision_angles(rows, cols, self.embed.merge, e // heads).to(self.embed.weight.device))

    def compiled(self) -> Vision:
        """With fused kernels between the products; one compilation serves all blocks and sizes."""
        compiled = partial(torch.compile, fullgraph=True, dynamic=True)
        return replace(self, enter=compiled(enter), leave=compiled(leave))


def vision_of(visual: Any) -> Vision:
    """The tower of a transformers network, which stays whole: gradients reach its parameters."""
    return Vision(visual, patch_embedding(visual), enter, leave)


def enter(block: Any, x: Tensor, turns: Turns) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, E) -> turned queries, turned keys, and values (B, H, N, C) of a block."""
    b, n, e = x.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(x)).reshape(b, n, 3 * heads, e // heads)
    queries, keys = torch.split(rotate(qkv[:, :, : 2 * heads], turns).transpose(1, 2), heads, dim=1)
    return queries, keys, qkv[:, :, 2 * heads :].transpose(1, 2)


def leave(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """(B, N, E) before a block and (B, H, N, C) its attention -> (B, N, E) behind it."""
    b, n, e = x.shape
    x = x + block.attn.proj(seen.transpose(1, 2).reshape(b, n, e))
    # x · sigmoid(1.702 x) = silu(1.702 x) / 1.702, and the product divides for nothing.
    inner = F.silu(block.mlp.fc1(block.norm2(x)) * QUICK_GELU).flatten(0, 1)
    out = torch.addmm(block.mlp.fc2.bias, inner, block.mlp.fc2.weight.t(), alpha=1 / QUICK_GELU)
    return x + out.reshape(b, n, e)


def encode(vision: Vision, pixels: Tensor, turns: Turns, attend: Attend = F.scaled_dot_product_attention) -> Tensor:
    """(B, 3, H, W) on the scale 0..255 -> (B, S, D) visual tokens in row order, the tower with its merger."""
    x = vision.embed(pixels)
    for block in vision.visual.blocks:
        x = vision.leave(block, x, attend(*vision.enter(block, x, turns)))
    b, n, e = x.shape
    merged: Tensor = vision.visual.merger(x.reshape(b * n, e))
    return merged.reshape(b, n // vision.embed.merge**2, -1)
