"""Text behind a picture as training sees it: chains of tokens that share the image, packed in one row.

A pictures, S suffix tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -100
"""Label of a token from which nothing is learned."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One branch of text behind the image: a question with its answer, or a whole conversation."""

    ids: tuple[int, ...]
    """Tokens that are read."""
    labels: tuple[int, ...]
    """The token that must follow each of them, or IGNORE."""
    kind: str
    """What the log sums up by."""
    hundredths: tuple[bool, ...] = ()
    """Labels that are learned as numbers, see `rsqa.train.digits`; empty: none."""

    @classmethod
    def of(cls, spans: Sequence[tuple[Sequence[int], bool]], kind: str) -> Chain:
        """Spans of tokens in order, each with whether it is to be learned; the last token is predicted, never read."""
        ids = [token for tokens, _ in spans for token in tokens]
        learned = [is_learned for tokens, is_learned in spans for _ in tokens]
        follow = zip(ids[1:], learned[1:], strict=True)
        return cls(tuple(ids[:-1]), tuple(token if is_learned else IGNORE for token, is_learned in follow), kind)


@dataclass(frozen=True, slots=True)
class Packed:
    """The chains of A pictures, each picture's in one row."""

    ids: Tensor
    """(A, S), padded."""
    turn: Tensor
    """(A, S) number of the chain that a token belongs to, -1 at padding."""
    depth: Tensor
    """(A, S) place of a token within its chain."""
    labels: Tensor
    """(A, S) the token that must follow, IGNORE where nothing is learned."""
    hundredths: Tensor
    """(A, S) bool, labels that are learned as numbers."""
    kind: NDArray[np.object_]
    """(A, chains) what each chain is, None where there is none."""

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return self._each(lambda table: table.to(device), self.kind)

    def pictures(self, chosen: Tensor) -> Packed:
        """Some pictures with their chains, by number."""
        return self._each(lambda table: table[chosen], self.kind[chosen.numpy()])

    def _each(self, change: Callable[[Tensor], Tensor], kind: NDArray[np.object_]) -> Packed:
        return Packed(
            change(self.ids), change(self.turn), change(self.depth), change(self.labels), change(self.hundredths), kind
        )

    @property
    def n_learned(self) -> int:
        """Tokens from which something is learned."""
        return int((self.labels != IGNORE).sum())


def packed(rows: Sequence[Sequence[Chain]], fill: int, length: int | None = None) -> Packed:
    """Pack the chains of each picture in one row, as many as fit in `length` tokens; None: as long as the longest.

    A given length makes one shape of all batches, because kernels for a CPU are built once per shape.
    """
    room = length if length is not None else max(sum(len(chain.ids) for chain in row) for row in rows)
    shape = (len(rows), room)
    ids, turn = np.full(shape, fill), np.full(shape, -1)
    depth, labels, hundredths = np.zeros(shape, np.int64), np.full(shape, IGNORE), np.zeros(shape, np.bool_)
    kinds: list[list[str]] = []
    for number, row in enumerate(rows):
        kinds.append([])
        used = 0
        for chain in row:
            n = len(chain.ids)
            if used + n > room:
                continue
            place = (number, slice(used, used + n))
            ids[place], turn[place], depth[place], labels[place] = chain.ids, len(kinds[-1]), np.arange(n), chain.labels
            hundredths[place] = chain.hundredths or False
            kinds[-1].append(chain.kind)
            used += n
    kind = np.full((len(rows), max([1, *map(len, kinds)])), None, dtype=object)
    for number, named in enumerate(kinds):
        kind[number, : len(named)] = named
    tensor = torch.from_numpy
    return Packed(tensor(ids), tensor(turn), tensor(depth), tensor(labels), tensor(hundredths), kind)


def packed_mask(turn: Tensor, n_prefix: int) -> Tensor:
    """(A, S) chain numbers -> (A, 1, P + S, P + S) bool: a token sees the prefix and its own chain up to itself."""
    a, s = turn.shape
    total = n_prefix + s
    mask = torch.ones(total, total, dtype=torch.bool, device=turn.device).tril().expand(a, -1, -1).clone()
    mask[:, n_prefix:, n_prefix:] &= turn[:, :, None] == turn[:, None, :]
    return mask[:, None]
