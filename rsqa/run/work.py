"""The straight line through one part: read, ask, parse, write. What a Dask worker runs.

    block ─ read ─> chips ─ keep the valid ─> batches ─ model ─> replies ─ parse ─> answers ─> one committed part

While one slot of a process holds the model, the others read or write.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies, Session
from rsqa.engines.batching import gathered
from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode, RsqaError
from rsqa.raster.describe import check_unchanged
from rsqa.raster.grid import Block
from rsqa.raster.mosaic import files_under
from rsqa.raster.read import Chips, read_block
from rsqa.raster.source import footprint
from rsqa.run.batches import Batches, Tiles, Valid
from rsqa.run.features import Looked, PartCache
from rsqa.run.folder import PLAN, begun, part_path, read_plan
from rsqa.run.heap import share_one_heap, trim_heap
from rsqa.run.plan import Parts, Plan, PlannedSource
from rsqa.run.said import read_replies, source_corners
from rsqa.run.trace import Clock, Span
from rsqa.sinks.part import PartRows, QuestionColumns, Receipt, write_part
from rsqa.tasks.parse import Answers
from rsqa.tasks.question import Question

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know to do parts; small, it travels with every task."""

    out: str
    plan_id: str
    device: str
    run: str
    """Another one for each run: the next one of the same plan may find its sources elsewhere."""
    cache: str | None = None
    """Folder of features; None: nothing is kept and nothing looked up."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Name -> value: what GDAL is to find in a process that did not inherit it; may hold secrets, so never shown."""


@dataclass(frozen=True, slots=True)
class Done:
    """A committed part."""

    receipt: Receipt
    pixels: int
    """Source pixels that its cores cover."""
    model_calls: int
    halved: bool
    """Asked in smaller batches than planned: those did not fit into memory."""
    cache: CacheUse
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the folder of features did for a part."""

    n_tiles: int = 0
    """That were neither read nor seen."""
    damaged: frozenset[Path] = frozenset()
    """Files that were not as they had been written."""
    unkept: str = ""
    """Why features were not kept."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The plan's batch does not fit into memory, and as no part is committed the plan can still be changed."""

    batch: int
    """What fitted."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A part that is not committed; the reason travels as a value, never as a pickled exception."""

    message: str
    exit_code: ExitCode
    details: str = ""


_CHANGED = "the plan in {out!r} changed under the run; run the same command again"
SESSIONS = 4
"""Chip sizes that a process is ready for; parts of one size follow one another."""
TRIM_S = 10.0
"""Seconds between two trims of the heap: about a part; small parts should not fetch their memory anew each time."""


@dataclass(slots=True)
class _Bench:
    """What a process keeps for all parts of a run: the plan, the model and its sessions."""

    out: Path
    stamp: tuple[int, int]
    """Of the stored plan."""
    plan_id: str
    plan: Plan
    parts: Parts
    engine: Engine | None = None
    sessions: dict[tuple[int, int], tuple[int, Session]] = field(default_factory=dict)
    """Chip (H, W) -> batch and session, the latest last."""
    unkept: str = ""
    """Why no more features are kept."""
    trimmed: float = 0.0
    """`time.monotonic()` of the last trim of the heap."""
    known_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Thousands of chips of one folder have the same processing ids."""

    row_questions: tuple[Question, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.row_questions = self.plan.row_questions

    def ids(self, planned: PlannedSource) -> tuple[str, ...]:
        """Processing id of each row question about this source."""
        key = repr((planned.source.bands, planned.cut))
        if key not in self.known_ids:
            self.known_ids[key] = tuple(self.plan.processing_id(planned, q) for q in self.row_questions)
        return self.known_ids[key]


_BENCHES: dict[Job, _Bench] = {}
_SETTING_UP = threading.Lock()
"""Not MODEL: a slot that begins a part must be able to read while the other one is in the model."""


def _bench(job: Job) -> _Bench:
    with _SETTING_UP:
        if job not in _BENCHES:
            os.environ.update(job.environment)
            share_one_heap()
            out = Path(job.out)
            stamp, plan = _stamp(out), read_plan(out)
            if plan.plan_id != job.plan_id:
                raise RsqaError(_CHANGED.format(out=job.out))
            _BENCHES.clear()  # a process serves one run at a time
            _BENCHES[job] = _Bench(out, stamp, job.plan_id, plan, Parts(plan))
        return _BENCHES[job]


def _session(bench: _Bench, job: Job, chip_shape: tuple[int, int], batch: int) -> Session:
    """The session for chips of that size; loads the model when first asked. The caller holds MODEL."""
    if bench.engine is None:
        bench.engine = load_engine(bench.plan.model, job.device, bench.plan.dtype)
    known = bench.sessions.pop(chip_shape, None)
    if known is None or known[0] != batch:
        known = None  # first: another batch is asked for where memory is short
        while len(bench.sessions) >= SESSIONS:
            del bench.sessions[next(iter(bench.sessions))]
        known = batch, bench.engine.prepare(bench.plan.questions, chip_shape, batch)
    bench.sessions[chip_shape] = known
    return known[1]


def do_part(job: Job, number: int) -> Done | TooLarge | Failed:
    """Do one part from its pixels to its file. Never raises."""
    return _told(number, lambda: _do_part(_bench(job), job, number))


def give_up(job: Job, number: int) -> Done | Failed:
    """Commit a part that kills its workers, without a look at its pixels: its tiles are errors. Never raises."""
    return _told(number, lambda: _give_up(_bench(job), number))


def _told(number: int, work: Callable[[], R]) -> R | Failed:
    try:
        return work()
    except RsqaError as error:
        return Failed(str(error), error.exit_code)
    except Exception as error:
        return Failed(f"part {number}: {type(error).__name__}: {error}", ExitCode.UNEXPECTED, traceback.format_exc())


def _do_part(bench: _Bench, job: Job, number: int) -> Done | TooLarge:
    plan, part, clock = bench.plan, bench.parts[number], Clock()
    chip_shape = plan.sources[part.blocks[0][0]].chip_shape  # of all sources of a part
    cache = _cache(bench, job, number, clock)
    answer = cache.answer if cache else _answer
    reasoning = plan.model.card.prompt.reasoning
    n_written = sum(reasoning or not question.closed for question in plan.questions)
    gather = gathered(plan.batch, n_written, max(chip_shape), plan.device_type)
    model = Batches(gather, plan.batch, job.device, partial(_session, bench, job, chip_shape), answer, clock)
    seen: list[tuple[PlannedSource, _Seen]] = []
    for source, blocks in part.blocks:
        looked = [_look(bench, source, block, model, cache, clock) for block in blocks]
        seen.append((plan.sources[source], _Seen.join(looked)))
    replies = model.finish()
    if cache:
        with clock.stage("write"):
            cache.write()
        bench.unkept = bench.unkept or cache.unkept
    if model.batch < plan.batch and not begun(bench.out):
        return TooLarge(model.batch)
    done = _commit(bench, number, seen, replies, model, clock)
    if time.monotonic() - bench.trimmed > TRIM_S:
        trim_heap()
        bench.trimmed = time.monotonic()
    return replace(done, cache=_use(cache, done.receipt.n_tiles, bench.unkept))


def _give_up(bench: _Bench, number: int) -> Done:
    seen = []
    for source, blocks in bench.parts[number].blocks:
        tiles = [tile for block in blocks for tile in bench.parts.block(source, block).tiles()]
        seen.append((bench.plan.sources[source], _Seen.unseen(tiles, "worker_crash")))
    return _commit(bench, number, seen, [], None, Clock())


def _commit(
    bench: _Bench,
    number: int,
    seen: list[tuple[PlannedSource, _Seen]],
    replies: list[Replies],
    model: Batches | None,
    clock: Clock,
) -> Done:
    """Write the part; RsqaError when the folder holds another plan by now, and another run works on that."""
    rows = _part_rows(bench, seen, replies)
    halved = model is not None and model.batch < bench.plan.batch
    with clock.stage("write"):
        if _stamp(bench.out) != bench.stamp:
            raise RsqaError(_CHANGED.format(out=str(bench.out)))
        receipt = write_part(
            part_path(bench.out, number), rows, plan_id=bench.plan_id, number=number,
            batch=model.batch if model and halved else None,
        )  # fmt: skip
    cores = [planned.grid.tile(*tile).core for planned, tiles in seen for tile in tiles.tiles.tolist()]
    return Done(
        receipt=receipt,
        pixels=sum(core.height * core.width for core in cores),
        model_calls=model.calls if model else 0,
        halved=halved,
        cache=CacheUse(),
        spans=tuple(clock.spans),
    )


def _stamp(out: Path) -> tuple[int, int]:
    """Another one when the plan is stored anew; zeros when there is none."""
    try:
        stored = (out / PLAN).stat()
    except OSError:
        return 0, 0
    return stored.st_ino, stored.st_mtime_ns


def _answer(session: Session, tiles: Tiles, valid: Valid) -> list[Replies]:
    return session.answer(tiles, valid)


def _cache(bench: _Bench, job: Job, number: int, clock: Clock) -> PartCache | None:
    """None where nothing is to be kept or recalled."""
    if job.cache is None:
        return None
    with clock.stage("read"):
        cache = PartCache(Path(job.cache), bench.plan.on(job.device), bench.parts, number)
    return cache if cache.complete or not bench.unkept else None


def _use(cache: PartCache | None, n_tiles: int, unkept: str) -> CacheUse:
    if cache is None:
        return CacheUse(unkept=unkept)
    return CacheUse(n_tiles if cache.complete else 0, cache.damaged, unkept)


def _look(bench: _Bench, source: int, number: int, model: Batches, cache: PartCache | None, clock: Clock) -> _Seen:
    """Hand the valid tiles of a block to the model."""
    if cache is None:
        return _read(bench, source, number, model, clock)
    if cache.complete:
        return _recall(bench, source, number, model, cache, clock)
    seen = _read(bench, source, number, model, clock)
    block = bench.parts.block(source, number)
    _check_unchanged(bench.plan.sources[source], block)  # before it is kept under the name of the planned content
    cache.expect(source, block, Looked(seen.status, seen.valid_frac))
    with clock.stage("write"):
        cache.write()
    return seen


def _read(bench: _Bench, source: int, number: int, model: Batches, clock: Clock) -> _Seen:
    """From pixels; the block is forgotten before the next one is read."""
    plan, planned = bench.plan, bench.plan.sources[source]
    with clock.stage("read"):
        wanted = bench.parts.block(source, number)
        sheet = read_block(planned.source, planned.level_grid, wanted, plan.stretch, planned.factor, planned.chip_shape)
    looked = []
    for first in range(0, len(sheet), plan.batch):
        with clock.stage("read"):
            chips = sheet.chips(first, first + plan.batch)
        tiles = _Seen.of(chips, plan.min_valid)
        kept = slice(None) if tiles.ok.all() else tiles.ok  # a slice copies nothing
        model.add(chips.pixels[kept], None if chips.valid is None else chips.valid[kept])
        looked.append(tiles)
    return _Seen.join(looked)


def _recall(bench: _Bench, source: int, number: int, model: Batches, cache: PartCache, clock: Clock) -> _Seen:
    """From features on disk: no pixel is read, the model sees nothing."""
    found = cache.recall(source, number)
    for first in range(0, found.n_ok, bench.plan.batch):
        with clock.stage("read"):
            features = found.features(first, first + bench.plan.batch)
        model.add(features, None)
    tiles = np.array(list(bench.parts.block(source, number).tiles()), np.int64)
    return _Seen(tiles, found.looked.valid_frac, found.looked.status, np.full(len(tiles), None))


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
    def unseen(cls, tiles: Sequence[tuple[int, int]], error: str) -> _Seen:
        """Tiles that nobody could look at."""
        n = len(tiles)
        unknown = np.full(n, np.nan, np.float32)
        return cls(np.array(tiles, np.int64).reshape(n, 2), unknown, *np.array([["error"] * n, [error] * n], object))

    @classmethod
    def join(cls, pieces: list[_Seen]) -> _Seen:
        return cls(*(np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(cls)))

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) whether the tile is shown to the model."""
        return np.asarray(self.status == "ok", bool)


def _part_rows(bench: _Bench, seen: list[tuple[PlannedSource, _Seen]], replies: list[Replies]) -> list[PartRows]:
    """The rows of each source; SourceChanged when one is no longer what the plan was made for."""
    said = read_replies(bench.plan, replies)
    rows, begin = [], 0
    for planned, tiles in seen:
        (row0, col0), (row1, col1) = tiles.tiles.min(axis=0), tiles.tiles.max(axis=0) + 1
        around = Block(0, int(row0), int(row1), int(col0), int(col1))
        _check_unchanged(planned, around)  # as late as can be: what was read is what the plan was made for
        end = begin + int(tiles.ok.sum())
        rows.append(_rows(bench, planned, tiles, [_take(answered, begin, end) for answered in said]))
        begin = end
    return rows


def _check_unchanged(planned: PlannedSource, block: Block) -> None:
    """SourceChanged when a file under the block is no longer what the plan was made for."""
    for file in files_under(planned.source, block.window(planned.grid)):
        check_unchanged(file)


def _rows(bench: _Bench, planned: PlannedSource, tiles: _Seen, said: list[Answers]) -> PartRows:
    """The rows of one source of the part; `said` is about its `ok` tiles, empty when the part has none."""
    source = planned.source
    where = [planned.grid.tile(row, col) for row, col in tiles.tiles.tolist()]
    cores = footprint(source, [tile.core for tile in where])
    shown = footprint(source, [tile.window for tile in where])
    windows = np.hstack([shown.min(axis=1), shown.max(axis=1)])
    windows[[tile.window == tile.core or not source.placed for tile in where]] = np.nan
    return PartRows(
        source=source.name,
        source_crs_wkt=source.crs_wkt,
        acquired=source.acquired,
        tile_rows=tiles.tiles[:, 0],
        tile_cols=tiles.tiles[:, 1],
        polygons=cores if source.placed else None,
        windows=windows,
        valid_frac=tiles.valid_frac,
        tile_status=tiles.status,
        tile_error=tiles.error,
        questions=tuple(
            _columns(planned, tiles, question, processing_id, said[i] if said else None, bench.plan.evidence)
            for i, (question, processing_id) in enumerate(zip(bench.row_questions, bench.ids(planned), strict=True))
        ),
        scale=planned.scale,
    )


def _columns(
    planned: PlannedSource, tiles: _Seen, question: Question, processing_id: str, said: Answers | None, side: int
) -> QuestionColumns:
    """Answers of the `ok` tiles, spread over all tiles of the source. `side`: see `Plan.evidence`."""
    ok = tiles.ok
    n_tiles = len(ok)
    whole: dict[str, NDArray[Any]] = {
        "status": np.full(n_tiles, "error", object),  # replaced for `ok` tiles, not looked at for the others
        "value": np.full(n_tiles, None, object),
        "confidence": np.full(n_tiles, np.nan, np.float32),
    }
    if question.kind == "box":  # a part without any has the columns too
        whole |= {"boxes": np.full(n_tiles, None, object), "malformed": np.zeros(n_tiles, np.int64)}
    if said is not None:
        for name, values in _values(planned, tiles.tiles[ok], said).items():
            whole[name] = values if ok.all() else _spread(values, ok)
    if side:  # also where nothing was asked: all parts have the same columns
        whole.setdefault("evidence", np.full((n_tiles, side * side), np.nan, np.float32))
    return QuestionColumns(question=question, processing_id=processing_id, **whole)


def _values(planned: PlannedSource, tiles: NDArray[np.int64], said: Answers) -> dict[str, NDArray[Any]]:
    """Column -> (n,) values of n tiles; boxes in pixels of the source."""
    values = {column.name: getattr(said, column.name) for column in fields(Answers)}
    if said.boxes is not None:
        values["boxes"], values["malformed"] = source_corners(planned, tiles, said.boxes)
    return {name: column for name, column in values.items() if column is not None}


def _spread(values: NDArray[Any], ok: NDArray[np.bool_]) -> NDArray[Any]:
    """(n ok, …) -> (N, …), None or NaN for the other tiles."""
    empty = {"O": None, "i": 0}.get(values.dtype.kind, np.nan)
    whole = np.full((len(ok), *values.shape[1:]), empty, values.dtype)
    whole[ok] = values
    return whole


def _take(said: Answers, begin: int, end: int) -> Answers:
    """Rows begin to end - 1."""
    columns = (getattr(said, f.name) for f in fields(Answers))
    return Answers(*(None if column is None else column[begin:end] for column in columns))  # type: ignore[arg-type]
