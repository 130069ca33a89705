"""(e) rsqa, model only: pixels in memory to replies; (e') the same from kept features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rsqa.bench.work import Case, Setup, pictures, questions
from rsqa.engines.base import Replies
from rsqa.engines.qwen2vl import Qwen2VLEngine
from rsqa.engines.registry import ModelRef, find_model, load_engine
from rsqa.engines.sizing import default_batch
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_tokenizer
from rsqa.tasks.prompts import query
from rsqa.tasks.question import Question


class NumberedWords(Words):
    """Writes tokens as their numbers: sides are compared by token, and random weights write no text."""

    def decode(self, ids: Sequence[int]) -> str:
        """See `Words.decode`."""
        return " ".join(map(str, ids))


def bench_engine(setup: Setup) -> tuple[ModelRef, Qwen2VLEngine]:
    """The engine that `rsqa ask --model FOLDER` will use in this process, made to write exactly its budget."""
    ref = find_model(setup.folder)
    engine = load_engine(ref, setup.device, setup.dtype)
    assert isinstance(engine, Qwen2VLEngine)
    engine.words = NumberedWords(load_tokenizer(open_checkpoint(Path(setup.folder))), engine.card)
    engine.words.stops = frozenset()  # nothing ends a reply before its budget
    return ref, engine


class Ours:
    """Pixels in memory to replies."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._ref, self._engine = bench_engine(setup)

    def prepare(self, case: Case) -> list[str]:
        """Ready a session, answer every size of batch once; -> what was done."""
        self._case, self._asked, self._chips = case, questions(case), pictures(case)
        self._engine.card = replace(self._engine.card, max_new_tokens=case.budget)
        shape = (case.tile_px, case.tile_px)
        batch = default_batch(self._ref, shape, self._setup.device, self._setup.dtype)
        self._batch = self._setup.batch_size or batch
        self.session = self._engine.prepare(self._asked, shape, self._batch)
        self.session.answer(self._chips[: self._batch])
        if tail := case.n_tiles % self._batch:
            self.session.answer(self._chips[:tail])
        how = "all options scored with their end tokens" if case.answer_tokens is None else "written to the budget"
        return [f"rsqa, pixels in memory to replies; {self._batch} tiles at once, {how}"]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller."""
        self.session.answer(self._chips)
        return {}

    def tokens(self, n_tiles: int) -> list[list[list[int]]]:
        """What a free answer to the same prompt begins with, of the first `n_tiles` tiles."""
        style = self._engine.card.prompt
        free = [Question(q.id, query(q, style), "open") for q in self._asked]  # the same tokens behind the picture
        replies = self._ask(free, n_tiles)
        columns = [[[int(token) for token in text.split()] for text in _texts(reply)] for reply in replies]
        return [list(row) for row in zip(*columns, strict=True)]

    def option_logprobs(self, n_tiles: int) -> list[list[list[float]]] | None:
        """Per tile, question and option, of the first `n_tiles` tiles."""
        if self._case.answer_tokens is not None:
            return None
        scores = [np.asarray(reply.option_logprob) for reply in self._ask(self._asked, n_tiles)]
        found: list[list[list[float]]] = np.stack(scores, axis=1).tolist()
        return found

    def _ask(self, asked: Sequence[Question], n_tiles: int) -> list[Replies]:
        shape = (self._case.tile_px, self._case.tile_px)
        return self._engine.prepare(asked, shape, self._batch).answer(self._chips[:n_tiles])


class Again:
    """New questions over old tiles: from kept features to replies, without pixels and the vision part.

    Not compared with the reference: that the replies are those of (e), bit by bit, is tested with every engine.
    """

    def __init__(self, setup: Setup) -> None:
        self._ours = Ours(setup)

    def prepare(self, case: Case) -> list[str]:
        """See the tiles, as an earlier run did; -> what was done."""
        self._ours.prepare(case)
        self._features = self._ours.session.see(pictures(case))
        self._ours.session.answer_seen(self._features)
        each = self._features.nbytes / max(1, case.n_tiles) / 1e3
        return [f"rsqa, features in memory to replies: what --cache-features keeps, {each:.0f} kB a tile"]

    def run(self) -> dict[str, float]:
        """Everything, timed by the caller."""
        self._ours.session.answer_seen(self._features)
        return {}


def _texts(reply: Replies) -> list[str]:
    return [] if reply.text is None else [str(text) for text in reply.text]
