"""What GRPO asks: a picture, a question, and what the answer is measured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rsqa.errors import InputError
from rsqa.tasks.boxes import parse_boxes

OPEN, EXACT, BOX = "0", "1", "2"
"""Answer types: measured by a judge, by comparison, by intersection over union."""
ORDER = 3
"""Stream of chance for the order of prompts; see `rsqa.train.groups`."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One picture and one question with its truth."""

    pixels: NDArray[np.uint8]
    """(3, H, W) RGB."""
    question: str
    """The user's words behind the picture, tags included."""
    answer_type: str
    answer: str

    def __post_init__(self) -> None:
        if self.answer_type not in (OPEN, EXACT, BOX):
            raise InputError(f"answer type {self.answer_type!r} of {self.question!r} is none; give 0, 1 or 2")
        if self.answer_type == BOX and not parse_boxes(self.answer):
            raise InputError(f"answer {self.answer!r} to {self.question!r} is no box; write [[x1,y1,x2,y2]], 0 to 1000")
        if self.answer_type == EXACT and not self.answer.strip():
            raise InputError(f"question {self.question!r} has an empty answer; give one or take the record out")


class Prompts(Protocol):
    """An endless stream of prompts that is the same whenever it is read."""

    def __len__(self) -> int:
        """Prompts of one epoch."""

    def draw(self, first: int, n: int) -> list[Prompt]:
        """Prompts number `first` to `first + n - 1` of the stream."""


class Shuffled:
    """A given number of prompts in an order that is drawn anew for every epoch; each is read when it is asked for."""

    def __init__(self, read: Callable[[int], Prompt], n: int, seed: int) -> None:
        """`read` takes 0 to `n` - 1."""
        self._read, self._n, self._seed = read, n, seed

    def __len__(self) -> int:
        return self._n

    def draw(self, first: int, n: int) -> list[Prompt]:
        """See `Prompts.draw`."""
        return [self._read(self._place(number)) for number in range(first, first + n)]

    def _place(self, number: int) -> int:
        epoch, place = divmod(number, self._n)
        return int(np.random.default_rng((self._seed, ORDER, epoch)).permutation(self._n)[place])
