"""Keys and values of tokens already read, in the form in which transformers' attention asks for them.

transformers' own caches differ between versions in how they are cropped and expanded; attention itself only calls
`update`. B rows, T tokens, G key-value heads, C channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class KeyValues:
    """A growing store: what is read is appended."""

    def __init__(self, room: int = 0) -> None:
        """`room`: tokens to make room for at once; it grows by itself when more come."""
        self._room = room
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        """T."""
        return self._lengths[0] if self._lengths else 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """T; some versions of transformers ask for it."""
        return len(self)

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, cache_kwargs: object = None, **_: object
    ) -> tuple[Tensor, Tensor]:
        """Append (B, G, new, C) to a layer -> (B, G, T + new, C), all of it."""
        if layer_idx == len(self._layers):
            self._layers.append(_buffers(keys, max(self._room, keys.shape[2])))
            self._lengths.append(0)
        begin, end = self._lengths[layer_idx], self._lengths[layer_idx] + keys.shape[2]
        held = self._layers[layer_idx]
        if end > held[0].shape[2]:
            larger = _buffers(keys, max(end, 2 * held[0].shape[2]))
            for new, old in zip(larger, held, strict=True):
                new[:, :, :begin] = old[:, :, :begin]
            self._layers[layer_idx] = held = larger
        held[0][:, :, begin:end] = keys
        held[1][:, :, begin:end] = values
        self._lengths[layer_idx] = end
        return held[0][:, :, :end], held[1][:, :, :end]

    def layer(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """-> keys and values (B, G, T, C) of a layer."""
        keys, values = self._layers[layer_idx]
        return keys[:, :, : len(self)], values[:, :, : len(self)]

    def copy(self, more: int) -> KeyValues:
        """A store of its own that begins with the same tokens and has room for `more`."""
        other = KeyValues(len(self) + more)
        for index in range(len(self._layers)):
            other.update(*self.layer(index), index)
        return other


class Behind:
    """Tokens that stand behind a store and are forgotten after use: the store can be shared by many."""

    def __init__(self, store: KeyValues) -> None:
        self._store = store

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """T of the store; some versions of transformers ask for it."""
        return len(self._store)

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, cache_kwargs: object = None, **_: object
    ) -> tuple[Tensor, Tensor]:
        """(B, G, new, C) -> (B, G, T + new, C) with the store's before them."""
        before = self._store.layer(layer_idx)
        return torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What all questions of a batch of tiles share."""

    keys: KeyValues
    position: int
    """Rotary position of the token that follows."""

    @property
    def rows(self) -> int:
        """B."""
        return self.keys.layer(0)[0].shape[0]


def _buffers(like: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    b, g, _, c = like.shape
    return like.new_empty(b, g, tokens, c), like.new_empty(b, g, tokens, c)
