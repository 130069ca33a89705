"""The straight line through one part: read, ask, parse, write. What a Dask worker runs.

    block ─ read ─> chips ─ keep the valid ─> batches ─ model ─> replies ─ parse ─> answers ─> one committed part

While one slot of a process holds the model, the others read or write.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies, Session
from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode, RsqaError
from rsqa.raster.read import Chips, read_block
from rsqa.raster.source import check_unchanged, footprint
from rsqa.run.folder import part_path, read_plan
from rsqa.run.heap import trim_heap
from rsqa.run.plan import Parts, Plan, PlannedSource
from rsqa.sinks.part import PartRows, QuestionColumns, Receipt, write_part
from rsqa.tasks.parse import Answers, answers
from rsqa.tasks.question import Question

MODEL = threading.Lock()
"""One slot of a process is in the model at a time."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know to do parts; small, it travels with every task."""

    out: str
    plan_id: str
    device: str
    run: str
    """Another one for each run: the next one of the same plan may find its sources elsewhere."""


STAGES = ("read", "wait", "model", "write")
"""What a slot does; it waits for the model while another slot has it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something a slot did, for the trace: seconds since the epoch."""

    stage: str
    """One of STAGES."""
    start: float
    end: float
    slot: int
    """One number per slot, from its process and thread."""


@dataclass(frozen=True, slots=True)
class Done:
    """A committed part."""

    receipt: Receipt
    pixels: int
    """Source pixels that its cores cover."""
    model_calls: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A part that is not committed; the reason travels as a value, never as a pickled exception."""

    message: str
    exit_code: ExitCode
    details: str = ""


@dataclass(slots=True)
class _Clock:
    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.time()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, time.time(), (os.getpid() << 32) | threading.get_native_id()))


@dataclass(slots=True)
class _Bench:
    """What a process keeps for all parts of a run: the plan, the model and its sessions."""

    out: Path
    plan: Plan
    parts: Parts
    engine: Engine | None = None
    sessions: dict[int, Session] = field(default_factory=dict)
    """By chip side."""


_BENCHES: dict[Job, _Bench] = {}
_SETTING_UP = threading.Lock()
"""Not MODEL: a slot that begins a part must be able to read while the other one is in the model."""


def _bench(job: Job) -> _Bench:
    with _SETTING_UP:
        if job not in _BENCHES:
            plan = read_plan(Path(job.out))
            if plan.plan_id != job.plan_id:
                raise RsqaError(f"the plan in {job.out!r} changed under the run; run the same command again")
            _BENCHES.clear()  # a process serves one run at a time
            _BENCHES[job] = _Bench(Path(job.out), plan, Parts(plan))
        return _BENCHES[job]


def _session(bench: _Bench, job: Job, chip_px: int) -> Session:
    """The session for chips of that side; loads the model when first asked. The caller holds MODEL."""
    if bench.engine is None:
        bench.engine = load_engine(bench.plan.model, job.device, bench.plan.dtype)
    if chip_px not in bench.sessions:
        shape = (chip_px, chip_px)
        bench.sessions[chip_px] = bench.engine.prepare(bench.plan.questions, shape, bench.plan.batch)
    return bench.sessions[chip_px]


def do_part(job: Job, number: int) -> Done | Failed:
    """Do one part from its pixels to its file. Never raises."""
    try:
        return _do_part(_bench(job), job, number)
    except RsqaError as error:
        return Failed(str(error), error.exit_code)
    except Exception as error:
        return Failed(f"part {number}: {type(error).__name__}: {error}", ExitCode.UNEXPECTED, traceback.format_exc())


def _do_part(bench: _Bench, job: Job, number: int) -> Done:
    plan, clock = bench.plan, _Clock()
    model = _Batches(bench, job, clock)
    seen: list[tuple[PlannedSource, _Seen]] = []
    for source, blocks in bench.parts[number].blocks:
        looked = [tiles for block in blocks for tiles in _look(bench, source, block, model, clock)]
        seen.append((plan.sources[source], _Seen.join(looked)))
    replies = model.finish()
    rows, begin = [], 0
    for planned, tiles in seen:
        check_unchanged(planned.source)  # as late as can be: what was read is what the plan was made for
        end = begin + int(tiles.ok.sum())
        rows.append(_rows(plan, planned, tiles, [_take(r, begin, end) for r in replies]))
        begin = end
    with clock.stage("write"):
        receipt = write_part(part_path(bench.out, number), rows, plan_id=job.plan_id, number=number)
    cores = [planned.grid.tile(*tile).core for planned, tiles in seen for tile in tiles.tiles.tolist()]
    return Done(receipt, sum(core.height * core.width for core in cores), model.calls, tuple(clock.spans))


def _look(bench: _Bench, source: int, block: int, model: _Batches, clock: _Clock) -> list[_Seen]:
    """Read a block and hand its valid tiles to the model; the block is forgotten before the next one is read."""
    plan, planned = bench.plan, bench.plan.sources[source]
    with clock.stage("read"):
        wanted = bench.parts.block(source, block)
        sheet = read_block(planned.source, planned.level_grid, wanted, plan.stretch, planned.factor)
    looked = []
    for first in range(0, len(sheet), plan.batch):
        with clock.stage("read"):
            chips = sheet.chips(first, first + plan.batch)
        tiles = _Seen.of(chips, plan.min_valid)
        kept = slice(None) if tiles.ok.all() else tiles.ok  # a slice copies nothing
        model.add(chips.pixels[kept], None if chips.valid is None else chips.valid[kept])
        looked.append(tiles)
    return looked


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What reading said of N tiles of one source, in the part's order."""

    tiles: NDArray[np.int64]
    """(N, 2) tile row, tile column."""
    valid_frac: NDArray[np.float32]
    status: NDArray[np.object_]
    """(N,) of ok, nodata, error."""
    error: NDArray[np.object_]

    @classmethod
    def of(cls, chips: Chips, min_valid: float) -> _Seen:
        failed = np.array([error is not None for error in chips.error], bool)
        enough = (chips.valid_frac >= min_valid) & (chips.valid_frac > 0)
        status = np.where(failed, "error", np.where(enough, "ok", "nodata")).astype(object)
        return cls(np.asarray(chips.tiles, np.int64).reshape(-1, 2), chips.valid_frac, status, chips.error)

    @classmethod
    def join(cls, pieces: list[_Seen]) -> _Seen:
        return cls(*(np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(cls)))

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) whether the tile is shown to the model."""
        return np.asarray(self.status == "ok", bool)


class _Batches:
    """Gathers valid chips over the blocks of a part and sends them through the model, a full batch at a time."""

    def __init__(self, bench: _Bench, job: Job, clock: _Clock) -> None:
        self._bench, self._job, self._clock = bench, job, clock
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]] = []
        self._replies: list[list[Replies]] = []
        self.calls = 0

    def add(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> None:
        """(N, 3, H, W) chips to ask, (N, H, W) valid pixels or None when all are."""
        batch = self._bench.plan.batch
        while len(pixels):
            room = batch - sum(len(p) for p, _ in self._waiting)
            self._waiting.append((pixels[:room], None if valid is None else valid[:room]))
            pixels, valid = pixels[room:], (None if valid is None else valid[room:])
            if sum(len(p) for p, _ in self._waiting) == batch:
                self._ask()

    def finish(self) -> list[Replies]:
        """-> one `Replies` per question over all chips added, in order; empty when there were none."""
        if self._waiting:
            self._ask()
        return [_join(column) for column in zip(*self._replies, strict=True)]

    def _ask(self) -> None:
        pixels = np.concatenate([p for p, _ in self._waiting]) if len(self._waiting) > 1 else self._waiting[0][0]
        valid = None
        if any(v is not None for _, v in self._waiting):
            whole = (np.ones((len(p), *p.shape[2:]), bool) if v is None else v for p, v in self._waiting)
            valid = np.concatenate(list(whole))
        self._waiting.clear()
        with self._clock.stage("wait"):
            MODEL.acquire()
        try:
            session = _session(self._bench, self._job, pixels.shape[-1])
            with self._clock.stage("model"):
                self._replies.append(session.answer(pixels, valid))
            self.calls += 1
        finally:
            MODEL.release()
            trim_heap()  # the answers, small and kept, would pin what the model left between them


def _rows(plan: Plan, planned: PlannedSource, tiles: _Seen, replies: list[Replies]) -> PartRows:
    """The rows of one source of the part; `replies` are those of its `ok` tiles, none when there are none."""
    source = planned.source
    where = [planned.grid.tile(row, col) for row, col in tiles.tiles.tolist()]
    cores = footprint(source, [tile.core for tile in where])
    shown = footprint(source, [tile.window for tile in where])
    windows = np.hstack([shown.min(axis=1), shown.max(axis=1)])
    windows[[tile.window == tile.core for tile in where]] = np.nan
    return PartRows(
        source=source.name,
        source_crs_wkt=source.crs_wkt,
        acquired=source.acquired,
        tile_rows=tiles.tiles[:, 0],
        tile_cols=tiles.tiles[:, 1],
        polygons=cores,
        windows=windows,
        valid_frac=tiles.valid_frac,
        tile_status=tiles.status,
        tile_error=tiles.error,
        questions=tuple(
            _columns(plan, planned, question, tiles.ok, replies[i] if replies else None)
            for i, question in enumerate(plan.questions)
        ),
    )


def _columns(
    plan: Plan, planned: PlannedSource, question: Question, ok: NDArray[np.bool_], replies: Replies | None
) -> QuestionColumns:
    """Answers of the `ok` tiles, spread over all tiles of the part."""
    n_tiles = len(ok)
    whole = {
        "status": np.full(n_tiles, "error", object),  # replaced for `ok` tiles, not looked at for the others
        "value": np.full(n_tiles, None, object),
        "confidence": np.full(n_tiles, np.nan, np.float32),
    }
    if replies is not None:
        card = plan.model.card
        said = answers(
            question,
            replies,
            mass_floor=card.mass_floor,
            temperature=card.temperatures.get(question.kind, 1.0),
            reasoning=card.prompt.reasoning,
        )
        for column in fields(Answers):
            values = getattr(said, column.name)
            if values is not None:
                whole[column.name] = _spread(values, ok)
    return QuestionColumns(question=question, processing_id=plan.processing_id(planned, question), **whole)


def _spread(values: NDArray[Any], ok: NDArray[np.bool_]) -> NDArray[Any]:
    """(n ok, …) -> (N, …), None or NaN for the other tiles."""
    whole = np.full((len(ok), *values.shape[1:]), None if values.dtype == object else np.nan, values.dtype)
    whole[ok] = values
    return whole


def _take(replies: Replies, begin: int, end: int) -> Replies:
    """Rows begin to end - 1."""
    columns = (getattr(replies, f.name) for f in fields(Replies))
    return Replies(*(None if column is None else column[begin:end] for column in columns))


def _join(pieces: Sequence[Replies]) -> Replies:
    """Batch after batch."""
    columns = ([getattr(piece, f.name) for piece in pieces] for f in fields(Replies))
    return Replies(*(None if column[0] is None else np.concatenate(column) for column in columns))
