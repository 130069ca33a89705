"""The forward pass of training: the image once per picture, its chains of text packed behind it.

The functions are those of inference; only how layers are held in memory differs. B pictures, of which the first A have
text, P prefix tokens, S suffix tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.models import language, vision
from rsqa.models.language import attention as masked_attention
from rsqa.models.rotary import Turns, image_positions
from rsqa.train.digits import nearly
from rsqa.train.packing import IGNORE, Packed, packed_mask

LOGITS_AT_ONCE = 1024
"""Answer tokens whose logits are held together: at V = 151,936 in float32 they are 0.6 GB."""


@dataclass(frozen=True, slots=True)
class Framed:
    """Tokens around the image."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """How the two parts attend."""

    vision: vision.Attend = F.scaled_dot_product_attention
    language: language.Attend = masked_attention


def _float32_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        seen = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    return seen.to(value.dtype)


def _float32_masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        return masked_attention(query.float(), key.float(), value.float(), mask).to(value.dtype)


FLOAT32_ATTENTION = Attention(_float32_attention, _float32_masked_attention)
"""Attention in float32 under bfloat16 autocast: on a CPU its backward pass takes a quarter of the time.

Measured with torch 2.13 on 2 cores, batch 64, 6 heads, 178 tokens: 0.037 s for 0.15 s.
"""


class Said(NamedTuple):
    """What the model gives the tokens that must follow, in the order of `labels[labels != IGNORE]`.

    A tuple, because FSDP looks for what to hook its backward pass on in tuples and not in dataclasses.
    """

    logprob: Tensor
    """(n,) log p(label), float32; in training, of labels that are learned as numbers, its mean over what is near."""
    hit: Tensor
    """(n,) bool, whether the label is the likeliest token."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What becomes of the pictures on the way."""

    visual: Tensor
    """(B, S_visual, D) visual tokens."""
    halfway: Tensor
    """(A, S_visual, D) the same of the pictures with text, after half of the language part's layers."""


class Reader(nn.Module):
    """A Qwen2-VL network that reads packed rows. Gradients reach the network's parameters."""

    def __init__(
        self,
        network: Any,
        attend: Attention = Attention(),
        compiled: bool = False,
        recompute: bool = False,
        temperature: float = 1.0,
        digits: Sequence[int] = (),
    ) -> None:
        """`recompute`: keep only what enters each layer and compute the rest again in the backward pass.

        `digits`: the tokens of 0 to 9, where some labels are learned as numbers.

        `temperature` flattens (above 1) the probabilities of the tokens, as in the sampling of GRPO.
        """
        super().__init__()
        self._temperature, self._digits = temperature, tuple(digits)
        self.network, self._attend, self._compiled, self._recompute = network, attend, compiled, recompute

    def forward(self, pixels: Tensor | None, framed: Framed, text: Packed) -> tuple[Said, Seen | None]:
        """(B, 3, h, w) on the scale 0..255, or None for text alone -> what is said, and what was seen.

        All pictures have one size, both sides multiples of 28.
        """
        words = self.network.model.language_model.embed_tokens
        a = len(text.ids)
        visual = None if pixels is None else self.see(pixels)
        before, after = (self._embed(part).expand(a, -1, -1) for part in (framed.before, framed.after))
        seen = [before] if visual is None else [before, visual[:a].to(before.dtype), after]
        rows, cols = (0, 0) if pixels is None else (side // PIXELS_PER_TOKEN for side in pixels.shape[2:])
        prefix, start = image_positions(len(framed.before), rows, cols, 0 if visual is None else len(framed.after))
        behind = (text.depth + start)[None].expand(3, -1, -1)
        positions = torch.cat([prefix.to(behind.device)[:, None].expand(3, a, -1), behind], dim=2)
        halfway, hidden = self._read(
            torch.cat([*seen, words(text.ids)], dim=1), positions, packed_mask(text.turn, prefix.shape[1])
        )
        asked = text.labels != IGNORE
        said = self._say(hidden[:, prefix.shape[1] :][asked], text.labels[asked], text.hundredths[asked])
        if visual is None:
            return said, None
        image = slice(len(framed.before), len(framed.before) + visual.shape[1])
        return said, Seen(visual, halfway[:, image])

    def see(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, S_visual, D) visual tokens."""
        tower = vision.vision_of(self.network.model.visual)
        if self._compiled and self.training:
            tower = tower.compiled(dynamic=False)

        def block(weights: vision.Block, x: Tensor, turns: Turns) -> Tensor:
            return tower.leave(weights, x, self._attend.vision(*tower.enter(weights, x, turns)))

        x = self._through(block, tower.blocks, tower.embed(pixels), tower.turns(*pixels.shape[2:]))
        return vision.merged(tower, x)

    def _read(self, x: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """-> after half of the layers, and after all."""
        reader = language.language_of(self.network)
        if self._compiled and self.training:
            reader = reader.compiled(dynamic=False)

        def layer(weights: language.Layer, x: Tensor, turns: Turns, mask: Tensor) -> Tensor:
            return reader.leave(weights, x, self._attend.language(*reader.enter(weights, x, turns), mask))

        half, turns = len(reader.layers) // 2, reader.turns(positions)
        halfway = self._through(layer, reader.layers[:half], x, turns, mask)
        return halfway, reader.finish(self._through(layer, reader.layers[half:], halfway, turns, mask))

    def _through(self, step: Callable[..., Tensor], layers: Sequence[Any], x: Tensor, *how: Any) -> Tensor:
        for weights in layers:
            if self._recompute and torch.is_grad_enabled():
                kept: Any = checkpoint(step, weights, x, *how, use_reentrant=False)
                x = kept
            else:
                x = step(weights, x, *how)
        return x

    def _embed(self, ids: Sequence[int]) -> Tensor:
        words = self.network.model.language_model.embed_tokens
        vectors: Tensor = words(torch.tensor(ids, dtype=torch.long, device=words.weight.device))
        return vectors

    def _say(self, hidden: Tensor, labels: Tensor, hundredths: Tensor) -> Said:
        """(n, D), (n,), (n,) -> log p, hits; some tokens at a time: logits are computed again in the backward pass."""
        pieces = []
        for some in zip(*(torch.split(t, LOGITS_AT_ONCE) for t in (hidden, labels, hundredths)), strict=True):
            if len(labels) > LOGITS_AT_ONCE and torch.is_grad_enabled():
                pieces.append(checkpoint(self._score, *some, use_reentrant=False))
            else:
                pieces.append(self._score(*some))
        return Said(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))

    def _score(self, hidden: Tensor, labels: Tensor, hundredths: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.lm_head(hidden).float() / self._temperature
        hit = logits.detach().argmax(dim=-1) == labels
        if not self._digits or not self.training:
            return -F.cross_entropy(logits, labels, reduction="none"), hit
        logprob = logits.log_softmax(dim=-1)
        said = logprob.gather(1, labels[:, None])[:, 0]
        return torch.where(hundredths, nearly(logprob, labels, self._digits), said), hit
