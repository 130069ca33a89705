"""The vision tower of Qwen2-VL for pictures of one size: dense tensors, positions that depend on the size alone.

transformers holds the weights and is the oracle; nothing of its forward is used. B pictures, N patches,
S visual tokens (N / merge²), E width of the tower, D width of the language part, H heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rsqa.models.graph import fused
from rsqa.models.linear import AS_LOADED, Precision, Weight, linear, scaled_linear, weight_of
from rsqa.models.rotary import Turns, rotate, vision_angles

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue on the scale 0..1: the constants of CLIP, which Qwen2-VL keeps."""
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
MIDDLE = 128
"""Pixels are read as -128..127, which bfloat16 holds exactly; the patch embedding knows."""
QUICK_GELU = 1.702
EPS = 1e-6
"""Of all norms of the tower."""

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


def patch_embedding(visual: Any, precision: Precision) -> PatchEmbedding:
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
    loaded = embed.proj.weight.dtype
    weight, bias = precision.other(weight.to(loaded)), precision.other(bias.to(loaded))
    return PatchEmbedding(weight, bias, embed.patch_size, visual.spatial_merge_size)


def patchify(pixels: Tensor, patch: int, merge: int, dtype: torch.dtype) -> Tensor:
    """(B, 3, H, W) -> (B, N, 3·patch·patch) of `dtype`; the merge² patches of one visual token stand together."""
    b, c, h, w = pixels.shape
    unit = patch * merge
    if h % unit or w % unit:
        raise ValueError(f"image sides must be multiples of {unit}, got {h} x {w}")
    x = pixels.reshape(b, c, h // unit, merge, patch, w // unit, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.to(dtype, memory_format=torch.contiguous_format).reshape(b, -1, c * patch * patch)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One block of the tower."""

    norm_in: tuple[Tensor, Tensor]
    """Weight and bias (E,)."""
    qkv: Weight
    """(3 E, E): queries, keys, values."""
    qkv_bias: Tensor
    out: Weight
    out_bias: Tensor
    norm_mlp: tuple[Tensor, Tensor]
    inner: Weight
    """(F, E)."""
    inner_bias: Tensor
    """(F,) times QUICK_GELU."""
    outer: Weight
    """(E, F)."""
    outer_bias: Tensor
    heads: int


@dataclass(frozen=True, slots=True, eq=False)
class Vision:
    """Weights of the tower."""

    embed: PatchEmbedding
    blocks: list[Block]
    norm: tuple[Tensor, Tensor]
    merge: tuple[Weight, Tensor]
    """(merge² · E, merge² · E) and bias: what the patches of one visual token become together."""
    out: tuple[Weight, Tensor]
    """(D, merge² · E) and bias."""
    enter: Callable[[Block, Tensor, Turns], tuple[Tensor, Tensor, Tensor]]
    leave: Callable[[Block, Tensor, Tensor], Tensor]

    def turns(self, height: int, width: int) -> Turns:
        """Turns of the patches of a picture of `height` x `width` pixels."""
        e, heads = self.embed.weight.shape[0], self.blocks[0].heads
        rows, cols = height // self.embed.patch, width // self.embed.patch
        return Turns.of(vision_angles(rows, cols, self.embed.merge, e // heads).to(self.embed.weight.device))

    def compiled(self, dynamic: bool = True) -> Vision:
        """With fused kernels between the products, compiled once for all blocks; see `fused`."""
        return replace(self, enter=fused(enter, dynamic), leave=fused(leave, dynamic))


def vision_of(visual: Any, precision: Precision = AS_LOADED) -> Vision:
    """The tower of a transformers network, which stays whole: gradients reach its parameters."""
    return _vision(visual, [_block(module, precision) for module in visual.blocks], precision)


def take_vision(visual: Any, precision: Precision = AS_LOADED) -> Vision:
    """The same, but the network's blocks are used up one by one: no weight is held twice."""
    blocks = []
    while len(visual.blocks):
        blocks.append(_block(visual.blocks[0], precision))
        del visual.blocks[0]
    return _vision(visual, blocks, precision)


def _block(module: Any, precision: Precision) -> Block:
    attention, mlp, matrix, other = module.attn, module.mlp, precision.matrix, precision.other
    return Block(
        norm_in=(other(module.norm1.weight), other(module.norm1.bias)),
        qkv=matrix(weight_of(attention.qkv)),
        qkv_bias=other(attention.qkv.bias),
        out=matrix(weight_of(attention.proj)),
        out_bias=other(attention.proj.bias),
        norm_mlp=(other(module.norm2.weight), other(module.norm2.bias)),
        inner=matrix(weight_of(mlp.fc1)),
        inner_bias=other(mlp.fc1.bias) * QUICK_GELU,
        outer=matrix(weight_of(mlp.fc2)),
        outer_bias=other(mlp.fc2.bias),
        heads=attention.num_heads,
    )


def _vision(visual: Any, blocks: list[Block], precision: Precision) -> Vision:
    merger, matrix, other = visual.merger, precision.matrix, precision.other
    return Vision(
        embed=patch_embedding(visual, precision),
        blocks=blocks,
        norm=(other(merger.ln_q.weight), other(merger.ln_q.bias)),
        merge=(matrix(weight_of(merger.mlp[0])), other(merger.mlp[0].bias)),
        out=(matrix(weight_of(merger.mlp[2])), other(merger.mlp[2].bias)),
        enter=enter,
        leave=leave,
    )


def enter(block: Block, x: Tensor, turns: Turns) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, E) -> turned queries, turned keys, and values (B, H, N, C) of a block."""
    b, n, e = x.shape
    heads = block.heads
    qkv = linear(_normed(x, block.norm_in), block.qkv, block.qkv_bias).reshape(b, n, 3 * heads, e // heads)
    queries, keys = torch.split(rotate(qkv[:, :, : 2 * heads], turns).transpose(1, 2), heads, dim=1)
    return queries, keys, qkv[:, :, 2 * heads :].transpose(1, 2)


def leave(block: Block, x: Tensor, seen: Tensor) -> Tensor:
    """(B, N, E) before a block and (B, H, N, C) its attention -> (B, N, E) behind it."""
    x = x + linear(seen.transpose(1, 2).reshape(x.shape), block.out, block.out_bias)
    # x · sigmoid(1.702 x) is silu(1.702 x) / 1.702, and the products multiply and divide in passing.
    inner = F.silu(scaled_linear(_normed(x, block.norm_mlp), block.inner, block.inner_bias, QUICK_GELU))
    return x + scaled_linear(inner, block.outer, block.outer_bias, 1 / QUICK_GELU)


def _normed(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *norm, eps=EPS)


def encode(vision: Vision, pixels: Tensor, turns: Turns, attend: Attend = F.scaled_dot_product_attention) -> Tensor:
    """(B, 3, H, W) on the scale 0..255 -> (B, S, D) visual tokens in row order, the tower with its merger."""
    x = vision.embed(pixels)
    for block in vision.blocks:
        x = vision.leave(block, x, attend(*vision.enter(block, x, turns)))
    return merged(vision, x)


def merged(vision: Vision, x: Tensor) -> Tensor:
    """(B, N, E) patches behind the last block -> (B, S, D) visual tokens."""
    b, n, _ = x.shape
    together = _normed(x, vision.norm).reshape(b, n // vision.embed.merge**2, -1)
    return linear(F.gelu(linear(together, *vision.merge)), *vision.out)
