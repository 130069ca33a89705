"""Open text: decoding of many tiles and questions at once, finished rows replaced by waiting ones.

No generation settings are taken from the checkpoint: the likeliest token, or one drawn by chance, until an end token, a
closed answer, a text that runs in circles, or the budget. B tiles, S packed suffix tokens, Q questions, R rows, K texts
of a question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from rsqa.engines.prefix import Packed, Prefix, PrefixShape, pack_behind, read_packed
from rsqa.models.language import KeysValues, Language
from rsqa.models.packing import TokenTree
from rsqa.models.writing import Beginning, Chance, Desk, drawn, likeliest

STRIDE = 8
"""Tokens that a GPU writes between two looks at them: a look waits for it."""
CIRCLE, LONGEST_TURN = 96, 24
"""The last 96 tokens repeat a turn of at most 24: greedy decoding does not find out of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """The suffixes of questions that are answered by writing, packed in one row."""

    questions: tuple[int, ...]
    """Their numbers, as given."""
    packed: Packed
    ends: Tensor
    """(Q,) last token of each suffix."""
    paths: tuple[Tensor, ...]
    """Per question the tokens of its suffix, in order."""


def openings(
    language: Language, shape: PrefixShape, suffixes: Sequence[tuple[int, tuple[int, ...]]], limit: int
) -> list[Opening]:
    """(number, suffix) of questions -> packed rows of at most `limit` tokens, or one question."""
    shares: list[list[tuple[int, tuple[int, ...]]]] = []
    room = 0
    for number, suffix in suffixes:
        if len(suffix) > room:
            shares.append([])
            room = limit
        shares[-1].append((number, suffix))
        room -= len(suffix)
    return [_opening(language, shape, share) for share in shares]


def _opening(language: Language, shape: PrefixShape, suffixes: Sequence[tuple[int, tuple[int, ...]]]) -> Opening:
    tree, device = TokenTree(), language.words.device
    paths = tuple(torch.tensor(tree.add(suffix), device=device) for _, suffix in suffixes)
    ids = torch.tensor(tree.ids, device=device)
    packed = pack_behind(language, shape, ids, tree.depths().to(device), tree.mask().to(device))
    return Opening(tuple(number for number, _ in suffixes), packed, torch.stack([path[-1] for path in paths]), paths)


@dataclass(slots=True)
class Row:
    """A text that is written."""

    tile: int
    question: int
    start: int
    """Tokens held before its first one."""
    sample: int = 0
    """Which of the K texts of this tile and question."""
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    """Up to and including the one that ended it."""
    logprob: float = 0.0
    """Sum over the tokens."""
    complete: bool = False
    finished: bool = False
    """Ended by itself; False: cut."""

    @property
    def mean_logprob(self) -> float:
        """Per token."""
        return self.logprob / len(self.tokens)


@dataclass(frozen=True, slots=True)
class Rules:
    """When a text is complete."""

    stops: frozenset[int]
    """Tokens that end a reply; none: nothing but its budget ends a text."""
    budget: int
    """Most tokens of a text."""
    reached: Callable[[Row], bool]
    """Whether the last token closed what was waited for."""

    def add(self, row: Row, token: int, logprob: float) -> None:
        """Append to a row that is not complete."""
        row.tokens.append(token)
        row.logprob += logprob
        row.finished = token in self.stops or self.reached(row)
        spent = len(row.tokens) == self.budget
        row.complete = row.finished or spent or (bool(self.stops) and in_circles(row.tokens))


def in_circles(tokens: Sequence[int]) -> bool:
    """Whether the end of a text repeats itself; looked at now and then."""
    if len(tokens) < CIRCLE or len(tokens) % 16:
        return False
    tail = tokens[-CIRCLE:]
    return any(tail[turn:] == tail[:-turn] for turn in range(1, LONGEST_TURN + 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A batch of tiles whose questions were read; its rows wait for room."""

    rows: deque[Row]
    """Question after question, tile after tile, sample after sample."""
    first: int
    """Number of its first tile."""
    tokens: Tensor
    """(B, Q, K) first tokens of the texts."""
    logprobs: list[list[list[float]]]
    numbers: Tensor | None
    """(B, Q, K, budget) by which tokens are drawn; None: the likeliest are written."""
    prefix: Prefix
    suffix: KeysValues
    opening: Opening


def _always(tile: int, question: int) -> bool:
    return True


class Writing:
    """Writes the texts of a stream of batches, at most `rows` at once."""

    def __init__(
        self,
        language: Language,
        rows: int,
        rules: Rules,
        chance: Chance | None = None,
        wanted: Callable[[int, int], bool] = _always,
    ) -> None:
        """`chance`: draw the tokens; None: write the likeliest. `wanted`: whether (tile, question) has texts at all."""
        self._language, self._rules, self._chance, self._wanted = language, rules, chance, wanted
        self.desk = Desk(language, rows, chance, rules.budget if chance else 0)
        """Holds the keys of rows that were yielded until the next are asked for, in their slots."""
        self._free = list(range(rows))[::-1]
        self._active: list[Row] = []
        self._waiting: deque[_Opened] = deque()
        self._on_gpu = language.words.is_cuda

    def write(self, source: Iterator[tuple[slice, Prefix, Opening]]) -> Iterator[list[Row]]:
        """Batches as (numbers of their tiles, prefix, what is asked) -> complete rows, in the order in which they end.

        A prefix may have more tiles than numbers: the last ones only fill it up.
        """
        more = True
        while True:
            while more and not self._waiting and self._roomy():
                if (batch := next(source, None)) is None:
                    more = False
                else:
                    self._waiting.append(self._open(*batch))
                    self._take_up()
            self._take_up()
            if not self._active:
                return
            if not any(row.complete for row in self._active):
                self._write_on()
            if done := [row for row in self._active if row.complete]:
                yield done
                self._let_go(done)
            if not more and not self._waiting:
                self._draw_together()

    def _roomy(self) -> bool:
        """Whether an eighth of the rows is free: reading a batch interrupts the writing of all."""
        return 8 * len(self._free) >= len(self._free) + len(self._active)

    def _open(self, tiles: slice, prefix: Prefix, opening: Opening) -> _Opened:
        """Read the questions of a batch."""
        hidden, suffix = read_packed(self._language, prefix, opening.packed, opening.ends)
        tokens, logprobs, numbers = self._first(hidden, tiles.start, opening.questions)
        rows = deque(
            Row(tile, question, prefix.shape.length + len(path), sample)
            for question, path in zip(opening.questions, opening.paths, strict=True)
            for tile in range(tiles.start, tiles.stop)
            if self._wanted(tile, question)
            for sample in range(tokens.shape[2])
        )
        return _Opened(rows, tiles.start, tokens, logprobs.tolist(), numbers, prefix, suffix, opening)

    def _first(self, hidden: Tensor, first_tile: int, questions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """(B, Q, D) hidden states -> first tokens (B, Q, K), their log-probabilities, and the numbers to draw by."""
        if self._chance is None:
            tokens, logprobs = likeliest(self._language, hidden)
            return tokens[..., None], logprobs[..., None], None
        chance, budget = self._chance, self._rules.budget
        texts = np.array(
            [
                [
                    [chance.numbers((first_tile + b, question, k), budget) for k in range(chance.samples)]
                    for question in questions
                ]
                for b in range(len(hidden))
            ]
        )
        numbers = torch.from_numpy(texts).to(hidden.device)
        return *drawn(self._language, hidden, numbers[..., 0], chance.temperature), numbers

    def _take_up(self) -> None:
        """Give free slots to rows that wait."""
        while self._free and self._waiting:
            opened = self._waiting[0]
            taken = [opened.rows.popleft() for _ in range(min(len(self._free), len(opened.rows)))]
            for question, rows in groupby(taken, key=lambda row: row.question):
                self._begin(opened, opened.opening.questions.index(question), list(rows))
            if not opened.rows:
                self._waiting.popleft()

    def _begin(self, opened: _Opened, question: int, rows: list[Row]) -> None:
        device, path = opened.tokens.device, opened.opening.paths[question]
        pictures = torch.tensor([row.tile - opened.first for row in rows], device=device)
        samples = torch.tensor([row.sample for row in rows], device=device)
        tokens = opened.tokens[pictures, question, samples]
        numbers = None if opened.numbers is None else opened.numbers[pictures, question, samples]
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.slot = self._free.pop()
            self._rules.add(row, token, opened.logprobs[row.tile - opened.first][question][row.sample])
        slots = torch.tensor([row.slot for row in rows], device=device)
        position = opened.prefix.shape.position + len(path)
        self.desk.begin(Beginning(slots, tokens, opened.prefix.keys, opened.suffix, pictures, path, position, numbers))
        self._active += rows

    def _write_on(self) -> None:
        """A few more tokens for every row; what comes behind the end of a row is dropped."""
        left = self._rules.budget - min(len(row.tokens) for row in self._active)
        longest = max(row.start + len(row.tokens) - 1 for row in self._active)
        tokens, logprobs = (t.tolist() for t in self.desk.write(min(left, STRIDE if self._on_gpu else 1), longest))
        for row in self._active:
            for token, logprob in zip(tokens[row.slot], logprobs[row.slot], strict=True):
                if row.complete:
                    break
                self._rules.add(row, token, logprob)

    def _let_go(self, done: list[Row]) -> None:
        self.desk.end(torch.tensor([row.slot for row in done], device=self._language.words.device))
        self._free += [row.slot for row in done]
        self._active = [row for row in self._active if not row.complete]

    def _draw_together(self) -> None:
        """Give up rows that nobody will use. On a GPU a step costs nearly the same with fewer rows."""
        if self._on_gpu or not 0 < 2 * len(self._active) <= len(self._free) + len(self._active):
            return
        self.desk.keep(torch.tensor([row.slot for row in self._active]))
        for slot, row in enumerate(self._active):
            row.slot = slot
        self._free = []
