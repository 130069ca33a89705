"""Trying out before there is a plan: how large a batch fits where the model will run, how long a tile takes it and to
read.
"""

from __future__ import annotations

import os
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
from rsqa.run.resident import forget_peak, peak_bytes
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a trial found, in the process where the model was tried."""

    batch: int
    """What fits."""
    tile_s: float
    """Seconds in the model for a tile."""
    tile_cpu_s: float
    """The same of processors, over all that worked on it."""
    peak_bytes: int | None
    """Memory of the process with a batch in the model; None where the system does not tell."""
    cores: int
    """Processors that the process may use."""


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

    def measure(self) -> Tried:
        """Load the model and try batches of noise."""
        forget_peak()
        batch = self.first_batch()
        engine = load_engine(self.model, self.device, self.dtype)
        batch, pace = fit_batch(engine, self.questions, self.shape, batch, self.device)
        return Tried(
            batch=batch, tile_s=pace.tile_s, tile_cpu_s=pace.tile_cpu_s, peak_bytes=peak_bytes(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one tile takes on average."""

    tile_s: float
    tile_cpu_s: float
    """Of processors, over all threads of this process."""


def fit_batch(
    engine: Engine, questions: Sequence[Question], shape: tuple[int, int], batch: int, device: str
) -> tuple[int, Pace]:
    """-> the batch, halved until the probe fits into memory, and its pace.

    OutOfMemory when one tile does not fit.
    """
    while True:
        try:
            return batch, probe(engine, questions, shape, batch)
        except OutOfMemory:
            pass  # tried again only outside of this block: the error holds the frames of what failed
        batch = half(batch, device)


def probe(engine: Engine, questions: Sequence[Question], shape: tuple[int, int], batch: int) -> Pace:
    """The pace for tiles of `shape` (H, W), on noise: one warm-up, then growing batches until one takes a second.

    What ends it is timed again, unless that takes long, so that a stall of the machine does not make tiny parts.
    """
    session = engine.prepare(questions, shape, batch)
    chips = np.random.default_rng(0).integers(0, 256, (batch, 3, *shape), dtype=np.uint8)
    session.answer(chips[:1])
    n_tiles = 1
    while True:
        seconds, cpu_s = _seconds(session, chips[:n_tiles])
        if 1.0 < seconds < PART_S:
            seconds, cpu_s = min((seconds, cpu_s), _seconds(session, chips[:n_tiles]))
        if seconds > 1.0 or n_tiles == batch:
            return Pace(max(seconds, 1e-6) / n_tiles, cpu_s / n_tiles)
        n_tiles = min(batch, 4 * n_tiles)


def reading(plan: Plan, parts: Parts) -> Pace:
    """What it takes to read and cut the block in the middle of the run, here; whoever reads it first waits."""
    [(source, numbers), *_] = parts[len(parts) // 2].blocks
    planned, block = plan.sources[source], parts.block(source, numbers[len(numbers) // 2])
    start, cpu = time.perf_counter(), time.thread_time()
    sheet = read_block(planned.source, planned.level_grid, block, plan.stretch, planned.factor, planned.chip_shape)
    for first in range(0, len(sheet), plan.batch):
        sheet.chips(first, first + plan.batch)
    return Pace((time.perf_counter() - start) / len(sheet), (time.thread_time() - cpu) / len(sheet))


def _seconds(session: Session, chips: NDArray[np.uint8]) -> tuple[float, float]:
    """-> seconds, and those of processors."""
    start, cpu = time.perf_counter(), time.process_time()
    session.answer(chips)
    return time.perf_counter() - start, time.process_time() - cpu
