"""From tiles to replies: a part's valid tiles through the model, full batches at a time.

One slot of a process is in the model at a time; the others read or write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Replies, Session
from rsqa.engines.batching import gathered, half
from rsqa.errors import OutOfMemory
from rsqa.run.plan import Plan
from rsqa.run.trace import Clock

MODEL = threading.Lock()
"""Held by the slot that is in the model."""

Tiles = NDArray[Any]
"""(N, …) uint8 chips, or what the model saw of them."""
Valid = NDArray[np.bool_] | None
"""(N, H, W) valid pixels, or None when all are."""
Answer = Callable[[Session, Tiles, Valid], list[Replies]]


def tiles_at_once(plan: Plan, chip_shape: tuple[int, int]) -> int:
    """How many tiles of (H, W) a session is handed at once."""
    n_written = sum(plan.model.card.prompt.reasoning or not question.closed for question in plan.questions)
    return gathered(plan.batch, n_written, max(chip_shape), plan.device_type)


class Batches:
    """Gathers tiles over the blocks of a part and sends them through the model, as many at a time as keep it busy.

    A batch that does not fit into memory is asked again in halves, and so is all that follows: in this part alone.
    """

    def __init__(
        self, gather: int, batch: int, device: str, session: Callable[[int], Session], answer: Answer, clock: Clock
    ) -> None:
        """`gather`: tiles to ask at once; `session`: batch -> a session for it, called with MODEL held."""
        self._full, self._device, self._session, self._answer, self._clock = gather, device, session, answer, clock
        self._waiting: list[tuple[Tiles, Valid]] = []
        self._replies: list[list[Replies]] = []
        self.batch = batch
        """What fitted: the plan's, or a step of its ladder."""
        self.calls = 0

    def add(self, tiles: Tiles, valid: Valid) -> None:
        """Ask these too."""
        while len(tiles):
            room = self._full - sum(len(t) for t, _ in self._waiting)
            self._waiting.append((tiles[:room], None if valid is None else valid[:room]))
            tiles, valid = tiles[room:], (None if valid is None else valid[room:])
            if sum(len(t) for t, _ in self._waiting) == self._full:
                self._ask()

    def finish(self) -> list[Replies]:
        """-> one `Replies` per question over all tiles added, in order; empty when there were none."""
        if self._waiting:
            self._ask()
        return [_join(column) for column in zip(*self._replies, strict=True)]

    def _ask(self) -> None:
        tiles = np.concatenate([t for t, _ in self._waiting]) if len(self._waiting) > 1 else self._waiting[0][0]
        valid = None
        if any(v is not None for _, v in self._waiting):
            whole = (np.ones((len(t), *t.shape[2:]), bool) if v is None else v for t, v in self._waiting)
            valid = np.concatenate(list(whole))
        self._waiting.clear()
        with self._clock.stage("wait"):
            MODEL.acquire()
        try:
            while not self._fits(tiles, valid):
                self.batch = half(self.batch, self._device)
            self.calls += -(-len(tiles) // self.batch)
        finally:
            MODEL.release()

    def _fits(self, tiles: Tiles, valid: Valid) -> bool:
        """Ask, and say whether there was memory for it; on return nothing of a batch that did not fit is held."""
        try:
            session = self._session(self.batch)
            with self._clock.stage("model"):
                self._replies.append(self._answer(session, tiles, valid))
        except OutOfMemory:
            return False
        return True


def _join(pieces: Sequence[Replies]) -> Replies:
    """Batch after batch."""
    columns = ([getattr(piece, f.name) for piece in pieces] for f in fields(Replies))
    return Replies(*(None if column[0] is None else np.concatenate(column) for column in columns))
