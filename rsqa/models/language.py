"""The language part of Qwen2-VL on rows of one length: no padding, positions and masks given from outside.

transformers is the oracle; nothing of its forward is used. B rows, L tokens, T tokens read before, D width, F inner
width, H heads, G key-value heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rsqa.models.graph import fused
from rsqa.models.linear import AS_LOADED, Precision, Weight, linear, stacked, weight_of
from rsqa.models.rotary import Turns, rotate, text_angles

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer the keys and values (B, G, T, C) of tokens that were read."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Queries (B, H, L, C), keys, values (B, G, T + L, C), mask or None -> (B, H, L, C)."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer. Queries, keys and values stand in one matrix, which takes a third off their time; gate and up, two
    thirds of all weights, stay as they lie in the file: one matrix of both is a second copy and no faster at 2B.
    """

    norm_in: Tensor
    """(D,)."""
    qkv: Weight
    """((H + 2 G) · C, D): queries, keys, values."""
    qkv_bias: Tensor
    out: Weight
    """(D, H · C)."""
    norm_mlp: Tensor
    """(D,)."""
    gate: Weight
    """(F, D)."""
    up: Weight
    """(F, D)."""
    down: Weight
    """(D, F)."""
    heads: int
    kv_heads: int
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """Weights of the language part."""

    words: Tensor
    """(V, D) word vectors."""
    head: Tensor
    """(V, D), often the same."""
    layers: list[Layer]
    norm: Tensor
    """(D,)."""
    eps: float
    inverse: Tensor
    """(C / 2,) angle per position, float32."""
    sections: tuple[int, ...]
    """Channels that turn with time, row and column."""
    enter: Callable[[Layer, Tensor, Turns], tuple[Tensor, Tensor, Tensor]]
    leave: Callable[[Layer, Tensor, Tensor], Tensor]

    def turns(self, positions: Tensor) -> Turns:
        """(3, L) or (3, B, L) positions in time, row and column -> their turns."""
        return Turns.of(text_angles(positions.to(self.inverse.device), self.inverse, self.sections))

    def embed(self, ids: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """(…) tokens -> (…, D) word vectors."""
        return F.embedding(torch.as_tensor(ids, device=self.words.device), self.words)

    def finish(self, x: Tensor) -> Tensor:
        """(…, D) behind the last layer -> hidden states."""
        return F.rms_norm(x, x.shape[-1:], self.norm, self.eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) hidden states -> (…, V) float32."""
        return F.linear(hidden, self.head).float()

    def compiled(self, dynamic: bool = True) -> Language:
        """With fused kernels between the products, compiled once for all layers; see `fused`."""
        return replace(self, enter=fused(enter, dynamic), leave=fused(leave, dynamic))


def language_of(network: Any, precision: Precision = AS_LOADED) -> Language:
    """The language part of a transformers network, which stays whole: gradients reach its parameters."""
    config = network.config.text_config
    layers = [_layer(module, config, precision) for module in network.model.language_model.layers]
    return _language(network, layers, precision)


def take_language(network: Any, precision: Precision = AS_LOADED) -> Language:
    """The same, but the network's layers are used up one by one: no weight is held twice."""
    modules = network.model.language_model.layers
    layers = []
    while len(modules):
        layers.append(_layer(modules[0], network.config.text_config, precision))
        del modules[0]
    return _language(network, layers, precision)


def _layer(module: Any, config: Any, precision: Precision) -> Layer:
    attention, mlp, matrix, other = module.self_attn, module.mlp, precision.matrix, precision.other
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    return Layer(
        norm_in=other(module.input_layernorm.weight),
        qkv=matrix(stacked([weight_of(part) for part in qkv])),
        qkv_bias=other(torch.cat([part.bias for part in qkv])),
        out=matrix(weight_of(attention.o_proj)),
        norm_mlp=other(module.post_attention_layernorm.weight),
        gate=matrix(weight_of(mlp.gate_proj)),
        up=matrix(weight_of(mlp.up_proj)),
        down=matrix(weight_of(mlp.down_proj)),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        eps=config.rms_norm_eps,
    )


def _language(network: Any, layers: list[Layer], precision: Precision) -> Language:
    model, config = network.model.language_model, network.config.text_config
    words = precision.other(model.embed_tokens.weight)
    tied = network.lm_head.weight is model.embed_tokens.weight
    return Language(
        words=words,
        head=words if tied else precision.other(network.lm_head.weight),
        layers=layers,
        norm=precision.other(model.norm.weight),
        eps=config.rms_norm_eps,
        inverse=model.rotary_emb.inv_freq.float(),
        sections=tuple(config.rope_parameters["mrope_section"]),
        enter=enter,
        leave=leave,
    )


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Without a mask (L, T) or (B, 1, L, T) a token sees what stands before it."""
    b, h, n, c = queries.shape
    g = keys.shape[1]
    if mask is None:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=h != g)
    # The heads that share keys ask one after the other, as if they were more tokens: no copy of the keys, and no
    # kernel that knows shared keys is needed, which on a GPU the one for masks does not.
    asked = queries.reshape(b, g, h // g * n, c)
    tiled = mask if n == 1 else mask.repeat(*[1] * (mask.ndim - 2), h // g, 1)
    return F.scaled_dot_product_attention(asked, keys, values, attn_mask=tiled).reshape(b, h, n, c)


def enter(layer: Layer, x: Tensor, turns: Turns) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, D) -> turned queries (B, H, L, C), turned keys and values (B, G, L, C) of a layer."""
    b, n, d = x.shape
    h, g = layer.heads, layer.kv_heads
    qkv = linear(F.rms_norm(x, (d,), layer.norm_in, layer.eps), layer.qkv, layer.qkv_bias)
    qkv = qkv.reshape(b, n, h + 2 * g, -1)
    queries, keys = torch.split(rotate(qkv[:, :, : h + g], turns).transpose(1, 2), [h, g], dim=1)
    return queries, keys, qkv[:, :, h + g :].transpose(1, 2)


def leave(layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
    """(B, L, D) before a layer and (B, H, L, C) its attention -> (B, L, D) behind it."""
    b, n, d = x.shape
    x = x + linear(seen.transpose(1, 2).reshape(b, n, -1), layer.out)
    normed = F.rms_norm(x, (d,), layer.norm_mlp, layer.eps)
    return x + linear(F.silu(linear(normed, layer.gate)) * linear(normed, layer.up), layer.down)


def read(
    language: Language,
    x: Tensor,
    turns: Turns,
    mask: Tensor | None = None,
    before: KeysValues | None = None,
    wanted: Tensor | None = None,
    attend: Attend = attention,
) -> tuple[Tensor, KeysValues]:
    """(B, L, D) word and visual vectors -> (B, R, D) hidden states of the `wanted` tokens (R,), by default all;
    and the keys and values of these L tokens.

    `mask` (L, T + L) or (B, 1, L, T + L) bool, true where a token may look; None: at what stands before it in `x`,
    with nothing read before. The last layer is computed for the wanted tokens alone; none: not at all.
    """
    kept: KeysValues = []
    for index, layer in enumerate(language.layers):
        queries, keys, values = language.enter(layer, x, turns)
        kept.append((keys, values))
        if wanted is not None and index == len(language.layers) - 1:
            if not len(wanted):
                return x[:, wanted], kept
            if mask is None:
                mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            x, queries, mask = x[:, wanted], queries[:, :, wanted], mask[..., wanted, :]
        if before is not None:
            keys = torch.cat([before[index][0], keys], dim=2)
            values = torch.cat([before[index][1], values], dim=2)
        x = language.leave(layer, x, attend(queries, keys, values, mask))
    return language.finish(x), kept
