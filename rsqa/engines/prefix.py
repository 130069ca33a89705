"""The beginning that all questions of a tile share, and packed rows behind it. Made once per shape, read per batch.

    system prompt | image | end of image || question, question, … packed in one row

A negative token -1 - n stands for slot n: a vector that an adapter makes for each tile, read as if it were a word.

B tiles, P prefix tokens, S packed tokens, R tokens wanted, n slots, D width, G key-value heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsqa.models.language import KeysValues, Language, read
from rsqa.models.rotary import Turns, image_positions


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokens, some of which may be slots."""

    ids: Tensor
    """(S,), 0 at slots."""
    places: Tensor
    """(n,) where the slots are."""
    numbers: Tensor
    """(n,) which they are."""

    @classmethod
    def of(cls, ids: Tensor) -> Tokens:
        """(S,) tokens, negative ones for slots."""
        (places,) = (ids < 0).nonzero(as_tuple=True)
        return cls(ids.clamp(min=0), places, -1 - ids[places])

    def embed(self, language: Language, tiles: int, slots: Tensor | None) -> Tensor:
        """-> (B, S, D), with slots from (B, all slots, D)."""
        x = language.embed(self.ids).expand(tiles, -1, -1)
        if not len(self.places):
            return x
        assert slots is not None
        return x.index_copy(1, self.places, slots[:, self.numbers].to(x.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class PrefixShape:
    """Everything about a prefix but the picture."""

    before: Tokens
    """System prompt."""
    after: Tokens
    """End of the image."""
    turns: Turns
    length: int
    """P."""
    position: int
    """Rotary position of the token that follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """What was read of a batch of tiles."""

    keys: KeysValues
    """(B, G, P, C) per layer."""
    shape: PrefixShape
    slots: Tensor | None = None
    """(B, all slots, D) of an adapter."""

    @property
    def tiles(self) -> int:
        """B."""
        return self.keys[0][0].shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A row of tokens behind a prefix of one shape."""

    tokens: Tokens
    turns: Turns
    mask: Tensor
    """(S, P + S) bool, true where row may look at column: at all of the prefix, and at its own branch."""


def prefix_shape(language: Language, before: Sequence[int], grid: tuple[int, int], after: Sequence[int]) -> PrefixShape:
    """Tokens before an image of `grid` (rows, cols) visual tokens and behind it -> their prefix."""
    positions, position = image_positions(len(before), *grid, len(after))
    head, tail = (Tokens.of(torch.tensor(ids, device=language.words.device)) for ids in (before, after))
    return PrefixShape(head, tail, language.turns(positions), positions.shape[1], position)


def read_prefix(language: Language, visual: Tensor, shape: PrefixShape, slots: Tensor | None = None) -> Prefix:
    """(B, S, D) visual tokens -> the keys and values of the prefix; its hidden states are nobody's concern."""
    b = visual.shape[0]
    before, after = (tokens.embed(language, b, slots) for tokens in (shape.before, shape.after))
    x = torch.cat([before, visual, after], dim=1)
    nothing = torch.empty(0, dtype=torch.long, device=x.device)
    return Prefix(read(language, x, shape.turns, wanted=nothing)[1], shape, slots)


def pack_behind(language: Language, shape: PrefixShape, ids: Tensor, depths: Tensor, mask: Tensor) -> Packed:
    """(S,) tokens at `depths` (S,) behind the prefix, `mask` (S, S) among themselves."""
    seen = torch.cat([mask.new_ones(len(ids), shape.length), mask], dim=1)
    return Packed(Tokens.of(ids), language.turns((depths + shape.position).expand(3, -1)), seen)


def read_packed(language: Language, prefix: Prefix, packed: Packed, wanted: Tensor) -> tuple[Tensor, KeysValues]:
    """-> (B, R, D) hidden states of the `wanted` tokens, and keys and values (B, G, S, C) of all."""
    x = packed.tokens.embed(language, prefix.tiles, prefix.slots)
    return read(language, x, packed.turns, packed.mask, prefix.keys, wanted)
