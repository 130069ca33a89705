"""Batches of conversations as a pure function of (seed, step, micro batch, process): a resumed run sees what it would
have seen.

A *row* is a picture with the conversations packed behind it. All pictures of a *micro batch* have one size as the model
sees them. A *step* takes `accumulate` micro batches in each of `ranks` processes. N records, R rows, M micro batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.engines.preprocess import resample
from rsqa.errors import RecipeError
from rsqa.tasks.prompts import DIRECT_SYSTEM
from rsqa.train.conversations import Conversation, Conversations, Encode, Form, chain, framed
from rsqa.train.forward import Framed
from rsqa.train.packing import IGNORE, Packed, packed

Rng = np.random.Generator
Side = Callable[[int, int], tuple[int, int]]
"""(height, width) of a picture -> those that the model sees, multiples of 28; `ModelCard.model_side`."""

PACKED_CHARS = 4096
"""Characters behind one picture at which the next row of the same picture begins, about 1,024 tokens."""
WINDOW = 64
"""Micro batches of rows within which rows are sorted by length: near equals meet, and the order stays random."""
_TEXT = -1
"""In place of a picture's shape: text alone."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How records become steps."""

    seed: int
    micro: int
    """Rows of a micro batch at most: fewer where no others have their size."""
    accumulate: int = 1
    """Micro batches of a process in one step."""
    ranks: int = 1
    """Processes."""
    pack: bool = False
    """Whether the conversations about one picture share one encoding of it."""

    @property
    def micros(self) -> int:
        """Micro batches of one step."""
        return self.accumulate * self.ranks


@dataclass(frozen=True, slots=True)
class Groups:
    """Numbers in order, cut into groups: group g is `of[start[g] : start[g + 1]]`."""

    of: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, group: int) -> NDArray[np.int64]:
        return self.of[self.start[group] : self.start[group + 1]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """The order of one epoch."""

    rows: Groups
    """Records of each row."""
    micros: Groups
    """Rows of each micro batch."""


class ConversationBatches:
    """Draws from several files; every record as often in an epoch as its file's weight says.

    Of a weight that is no whole number, say 0.3, the rest takes another third of the records each epoch, by turns.
    """

    def __init__(
        self,
        sets: Sequence[Conversations],
        weights: Sequence[float],
        encode: Encode,
        fill: int,
        side: Side,
        steps: Steps,
        form: Form = "sft",
        system: str = DIRECT_SYSTEM,
    ) -> None:
        """`fill` is the token at padding."""
        if len(sets) != len(weights) or not all(weight > 0 for weight in weights):
            raise RecipeError(
                f"{len(sets)} files of conversations with weights {tuple(weights)}; give each one above 0"
            )
        self.sets, self.weights, self.steps = tuple(sets), tuple(weights), steps
        self._encode, self._fill, self._form, self._system = encode, fill, form, system
        self._first = np.cumsum([0, *(len(s) for s in sets)])  # number of each file's first record among all
        first_picture = np.cumsum([0, *(len(s.size) for s in sets)])
        pairs = zip(sets, first_picture, strict=False)
        self._picture = np.concatenate([np.where(s.picture < 0, _TEXT, s.picture + first) for s, first in pairs])
        self._n_chars = np.concatenate([s.n_chars for s in sets]).astype(np.int64)
        self._shapes, of_picture = _shapes(np.concatenate([s.size for s in sets]), side)
        self._shape = np.where(self._picture < 0, _TEXT, np.append(of_picture, _TEXT)[self._picture])
        self._epoch = lru_cache(maxsize=2)(self._laid_out)
        self._n_steps = lru_cache(maxsize=None)(lambda epoch: -(-len(self._epoch(epoch).micros) // steps.micros))

    def n_steps(self, epochs: int) -> int:
        """Steps of the first `epochs` epochs."""
        return sum(map(self._n_steps, range(epochs)))

    def batch(self, step: int, micro: int, rank: int) -> tuple[Tensor | None, Framed, Packed]:
        """-> pictures (B, 3, h, w) uint8 or None for text alone, the tokens around them, their B rows of text.

        Steps count from 0 and go on through all epochs. Where an epoch's last step is not full, what is missing are
        batches of the same epoch with no label, so that no process waits for another: divide a step's loss by its
        learned tokens, not by its batches. Raises InputError that names a picture that can't be decoded.
        """
        epoch, steps = 0, self.steps
        while step >= self._n_steps(epoch):
            step -= self._n_steps(epoch)
            epoch += 1
        order = self._epoch(epoch)
        number = step * steps.micros + rank * steps.accumulate + micro
        drawn = [order.rows[row] for row in order.micros[number % len(order.micros)]]
        rows = [[self._record(record) for record in row] for row in drawn]
        shape = self._shape[drawn[0][0]]
        pictures = None if shape == _TEXT else torch.cat([self._pixels(*row[0], self._shapes[shape]) for row in rows])
        around = framed(self._encode, self._form, pictures is not None, self._system)
        text = packed([[chain(said, self._encode, self._form) for _, said in row] for row in rows], self._fill)
        if number >= len(order.micros):
            text = replace(text, labels=torch.full_like(text.labels, IGNORE))
        return pictures, around, text

    def _record(self, record: int) -> tuple[Conversations, Conversation]:
        which = int(np.searchsorted(self._first, record, "right")) - 1
        return self.sets[which], self.sets[which][int(record - self._first[which])]

    def _pixels(self, source: Conversations, conversation: Conversation, shape: tuple[int, int]) -> Tensor:
        return resample(torch.from_numpy(source.pixels(conversation)[None]), shape)

    def _laid_out(self, epoch: int) -> Epoch:
        rng = np.random.default_rng([self.steps.seed, epoch])
        drawn = [copy for number in range(len(self.sets)) for copy in self._copies(number, epoch)]
        rows = _joined([_rows(copy, self._picture, self._n_chars, self.steps.pack, rng) for copy in drawn])
        n_chars = np.add.reduceat(self._n_chars[rows.of], rows.start[:-1])
        micros = _micros(self._shape[rows.of[rows.start[:-1]]], n_chars, self.steps.micro, rng)
        return Epoch(rows, micros)

    def _copies(self, number: int, epoch: int) -> list[NDArray[np.int64]]:
        """The records that a file gives to an epoch; each array holds a record at most once."""
        records = np.arange(self._first[number], self._first[number + 1])
        whole, rest = divmod(self.weights[number], 1)
        some = round(rest * len(records))
        turn = np.random.default_rng([self.steps.seed, number]).permutation(records)
        place = (np.arange(some) + epoch * some) % len(records)
        return [records] * int(whole) + [turn[place]] * bool(some)


def _shapes(size: NDArray[np.int32], side: Side) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """(m, 2) sizes -> the shapes that the model sees, and the number of each picture's."""
    sizes, of_picture = np.unique(size.reshape(-1, 2), axis=0, return_inverse=True)
    seen = [side(int(height), int(width)) for height, width in sizes]
    shapes = sorted(set(seen))
    number = np.array([shapes.index(shape) for shape in seen], np.int64)
    return shapes, number[of_picture.reshape(-1)]


def _rows(
    records: NDArray[np.int64], picture: NDArray[np.int64], n_chars: NDArray[np.int64], pack: bool, rng: Rng
) -> Groups:
    """Records in random order, those of one picture together when packed."""
    order = rng.permutation(records)
    if not pack:
        return Groups(order, np.arange(len(order) + 1))
    order = order[np.argsort(picture[order], kind="stable")]
    shown = picture[order]
    new = np.append(True, (shown[1:] != shown[:-1]) | (shown[1:] == _TEXT))
    before = np.cumsum(n_chars[order]) - n_chars[order]
    within = before - np.maximum.accumulate(np.where(new, before, 0))  # characters of this picture so far
    full = within // PACKED_CHARS
    new |= np.append(False, full[1:] != full[:-1])
    return Groups(order, np.append(np.flatnonzero(new), len(order)))


def _joined(parts: Sequence[Groups]) -> Groups:
    shifts = accumulate((len(part.of) for part in parts), initial=0)
    starts = [part.start[:-1] + shift for part, shift in zip(parts, shifts, strict=False)]
    n = sum(len(part.of) for part in parts)
    return Groups(np.concatenate([part.of for part in parts]), np.concatenate([*starts, [n]]))


def _micros(shape: NDArray[np.int64], n_chars: NDArray[np.int64], micro: int, rng: Rng) -> Groups:
    """(R,) shape and length of each row -> micro batches of one shape and near lengths, in random order."""
    order = rng.permutation(len(shape))
    order = order[np.argsort(shape[order], kind="stable")]
    borders = np.flatnonzero(np.diff(shape[order])) + 1
    found: list[NDArray[np.int64]] = []
    for alike in np.split(order, borders):
        for start in range(0, len(alike), micro * WINDOW):
            some = alike[start : start + micro * WINDOW]
            some = some[np.argsort(n_chars[some], kind="stable")]
            found += [some[i : i + micro] for i in range(0, len(some), micro)]
    shuffled = [found[i] for i in rng.permutation(len(found))]
    return Groups(np.concatenate(shuffled), np.cumsum([0, *map(len, shuffled)]))
