"""Trying out before there is a plan: how large a batch fits where the model will run, how long a tile takes it and to
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Session
from rsqa.engines.batching import half
from rsqa.engines.registry import ModelRef, load_engine
from rsqa.engines.sizing import default_batch
from rsqa.errors import OutOfMemory
from rsqa.raster.read import read_block
from rsqa.run.plan import Parts, Plan
from rsqa.tasks.question import Question

R = TypeVar("R")

PART_S = 15.0
"""Work in a part, seconds: what a crash may cost, and how often progress is told."""


class Site(Protocol):
    """Where the model will run."""

    def call(self, function: Callable[[], R]) -> R:
        """Run it there."""

    def __len__(self) -> int:
        """Processes with a model each; of a cluster those that are there now."""


@dataclass(frozen=True, slots=True)
class Here:
    """On the machine that plans."""

    processes: int

    def call(self, function: Callable[[], R]) -> R:
        """See `Site.call`."""
        return function()

    def __len__(self) -> int:
        return self.processes


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried out where the model will run; it travels there."""

    model: ModelRef
    device: str
    dtype: str
    questions: tuple[Question, ...]
    shape: tuple[int, int]
    """(H, W) of a chip."""
    batch: int | None
    """None: as memory has it."""
    sharing: int
    """Processes that share the memory of that machine."""

    def first_batch(self) -> int:
        """The batch to begin with. Loads the model."""
        load_engine(self.model, self.device, self.dtype)
        return self.batch or default_batch(self.model, self.shape, self.device, self.dtype, self.sharing)

    def measure(self) -> tuple[int, float]:
        """-> the batch that fits, and seconds per tile."""
        batch = self.first_batch()
        engine = load_engine(self.model, self.device, self.dtype)
        return fit_batch(engine, self.questions, self.shape, batch, self.device)


def fit_batch(
    engine: Engine, questions: Sequence[Question], shape: tuple[int, int], batch: int, device: str
) -> tuple[int, float]:
    """-> the batch, halved until the probe fits into memory, and its seconds per tile.

    OutOfMemory when one tile does not fit.
    """
    while True:
        try:
            return batch, probe(engine, questions, shape, batch)
        except OutOfMemory:
            pass  # tried again only outside of this block: the error holds the frames of what failed
        batch = half(batch, device)


def probe(engine: Engine, questions: Sequence[Question], shape: tuple[int, int], batch: int) -> float:
    """Seconds per tile of `shape` (H, W), on noise: one warm-up, then growing batches until one takes a second.

    What ends it is timed again, unless that takes long, so that a stall of the machine does not make tiny parts.
    """
    session = engine.prepare(questions, shape, batch)
    chips = np.random.default_rng(0).integers(0, 256, (batch, 3, *shape), dtype=np.uint8)
    session.answer(chips[:1])
    n_tiles = 1
    while True:
        seconds = _seconds(session, chips[:n_tiles])
        if 1.0 < seconds < PART_S:
            seconds = min(seconds, _seconds(session, chips[:n_tiles]))
        if seconds > 1.0 or n_tiles == batch:
            return max(seconds, 1e-6) / n_tiles
        n_tiles = min(batch, 4 * n_tiles)


def reading(plan: Plan, parts: Parts) -> float:
    """Seconds per tile to read and cut the block in the middle of the run, here; whoever reads it first waits."""
    [(source, numbers), *_] = parts[len(parts) // 2].blocks
    planned, block = plan.sources[source], parts.block(source, numbers[len(numbers) // 2])
    start = time.perf_counter()
    sheet = read_block(planned.source, planned.level_grid, block, plan.stretch, planned.factor, planned.chip_shape)
    for first in range(0, len(sheet), plan.batch):
        sheet.chips(first, first + plan.batch)
    return (time.perf_counter() - start) / len(sheet)


def _seconds(session: Session, chips: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    session.answer(chips)
    return time.perf_counter() - start
