"""The straight line through one part: read, ask, parse, write. What a Dask worker runs.

    block ─ read ─> chips ─ keep the valid ─> batches ─ model ─> replies ─ parse ─> answers ─> one committed part

While one slot of a process holds the model, the others read or write.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from rsqa.engines.base import Replies, Session
from rsqa.errors import ExitCode, RsqaError
from rsqa.raster.describe import check_unchanged
from rsqa.raster.grid import Block
from rsqa.raster.mosaic import files_under
from rsqa.raster.read import read_block
from rsqa.run.batches import Batches, Tiles, Valid, tiles_at_once
from rsqa.run.features import Looked, PartCache
from rsqa.run.folder import part_name
from rsqa.run.plan import PlannedSource
from rsqa.run.rows import Seen, part_rows
from rsqa.run.trace import Clock, Span
from rsqa.run.workbench import Job, Workbench, workbench
from rsqa.sinks.part import Receipt, pack_part

R = TypeVar("R")


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


def do_part(job: Job, number: int) -> Done | TooLarge | Failed:
    """Do one part from its pixels to its file. Never raises."""
    return _told(number, lambda: _do_part(workbench(job), number))


def give_up(job: Job, number: int) -> Done | Failed:
    """Commit a part that kills its workers, without a look at its pixels: its tiles are errors. Never raises."""
    return _told(number, lambda: _give_up(workbench(job), number))


def _told(number: int, work: Callable[[], R]) -> R | Failed:
    try:
        return work()
    except RsqaError as error:
        return Failed(str(error), error.exit_code)
    except Exception as error:
        return Failed(f"part {number}: {type(error).__name__}: {error}", ExitCode.UNEXPECTED, traceback.format_exc())


def _do_part(bench: Workbench, number: int) -> Done | TooLarge:
    clock = Clock()
    cache = _cache(bench, number, clock)
    model = _batches(bench, number, cache, clock)
    desk = _Desk(bench, model, cache, clock)
    seen = [
        (bench.plan.sources[source], Seen.join([_look(desk, source, block) for block in blocks]))
        for source, blocks in bench.parts[number].blocks
    ]
    replies = model.finish()
    if cache:
        with clock.stage("write"):
            cache.write()
        bench.unkept = bench.unkept or cache.unkept
    halved = model.batch < bench.plan.batch
    if halved and not bench.place.begun():
        return TooLarge(model.batch)
    receipt = _commit(bench, number, seen, replies, clock, model.batch if halved else None)
    bench.trim()
    use = _use(cache, receipt.n_tiles, bench.unkept)
    return Done(receipt, _core_px(seen), model.calls, halved, use, tuple(clock.spans))


def _give_up(bench: Workbench, number: int) -> Done:
    clock, seen = Clock(), []
    for source, blocks in bench.parts[number].blocks:
        tiles = [tile for block in blocks for tile in bench.parts.block(source, block).tiles()]
        seen.append((bench.plan.sources[source], Seen.unseen(tiles, "worker_crash")))
    receipt = _commit(bench, number, seen, [], clock, None)
    return Done(receipt, _core_px(seen), 0, False, CacheUse(), tuple(clock.spans))


def _commit(
    bench: Workbench,
    number: int,
    seen: Sequence[tuple[PlannedSource, Seen]],
    replies: list[Replies],
    clock: Clock,
    batch: int | None,
) -> Receipt:
    """Write the part. `batch`: the one that it was asked in, if that is not the plan's.

    SourceChanged when a source is no longer the planned one, RsqaError when the output holds another plan.
    """
    rows = part_rows(bench.plan, seen, bench.ids, replies)
    for planned, tiles in seen:  # as late as can be: what was read is what the plan was made for
        _check_unchanged(planned, tiles.around)
    with clock.stage("write"):
        bench.check_plan()
        name = PurePosixPath(part_name(number)).name
        content, receipt = pack_part(name, rows, plan_id=bench.job.plan_id, number=number, batch=batch)
        bench.place.commit(number, content)
    return receipt


def _core_px(seen: Sequence[tuple[PlannedSource, Seen]]) -> int:
    """Source pixels of all cores."""
    cores = [planned.grid.tile(row, col).core for planned, tiles in seen for row, col in tiles.tiles.tolist()]
    return sum(core.height * core.width for core in cores)


def _check_unchanged(planned: PlannedSource, block: Block) -> None:
    """SourceChanged when a file under the block is no longer what the plan was made for."""
    for file in files_under(planned.source, block.window(planned.grid)):
        check_unchanged(file)


def _cache(bench: Workbench, number: int, clock: Clock) -> PartCache | None:
    """None where nothing is to be kept or recalled."""
    job = bench.job
    if job.cache is None:
        return None
    with clock.stage("read"):
        cache = PartCache(Path(job.cache), bench.plan.on(job.device), bench.parts, number)
    return cache if cache.complete or not bench.unkept else None


def _use(cache: PartCache | None, n_tiles: int, unkept: str) -> CacheUse:
    if cache is None:
        return CacheUse(unkept=unkept)
    return CacheUse(n_tiles if cache.complete else 0, cache.damaged, unkept)


def _batches(bench: Workbench, number: int, cache: PartCache | None, clock: Clock) -> Batches:
    """What takes the tiles of this part through the model."""
    plan = bench.plan
    chip_shape = plan.sources[bench.parts[number].blocks[0][0]].chip_shape  # of all sources of a part
    answer = cache.answer if cache else _answer
    session = partial(bench.session, chip_shape)
    return Batches(tiles_at_once(plan, chip_shape), plan.batch, bench.job.device, session, answer, clock)


def _answer(session: Session, tiles: Tiles, valid: Valid) -> list[Replies]:
    return session.answer(tiles, valid)


@dataclass(frozen=True, slots=True, eq=False)
class _Desk:
    """What the blocks of the part in hand are looked at with."""

    bench: Workbench
    model: Batches
    cache: PartCache | None
    clock: Clock


def _look(desk: _Desk, source: int, number: int) -> Seen:
    """Hand the valid tiles of a block to the model."""
    if desk.cache is None:
        return _read(desk, source, number)
    if desk.cache.complete:
        return _recall(desk, desk.cache, source, number)
    seen = _read(desk, source, number)
    block = desk.bench.parts.block(source, number)
    _check_unchanged(desk.bench.plan.sources[source], block)  # before it is kept as the planned content
    desk.cache.expect(source, block, Looked(seen.status, seen.valid_frac))
    with desk.clock.stage("write"):
        desk.cache.write()
    return seen


def _read(desk: _Desk, source: int, number: int) -> Seen:
    """From pixels; the block is forgotten before the next one is read."""
    plan, planned = desk.bench.plan, desk.bench.plan.sources[source]
    with desk.clock.stage("read"):
        wanted = desk.bench.parts.block(source, number)
        sheet = read_block(planned.source, planned.level_grid, wanted, plan.stretch, planned.factor, planned.chip_shape)
    looked = []
    for first in range(0, len(sheet), plan.batch):
        with desk.clock.stage("read"):
            chips = sheet.chips(first, first + plan.batch)
        tiles = Seen.of(chips, plan.min_valid)
        kept = slice(None) if tiles.ok.all() else tiles.ok  # a slice copies nothing
        desk.model.add(chips.pixels[kept], None if chips.valid is None else chips.valid[kept])
        looked.append(tiles)
    return Seen.join(looked)


def _recall(desk: _Desk, cache: PartCache, source: int, number: int) -> Seen:
    """From features on disk: no pixel is read, the model sees nothing."""
    found, batch = cache.recall(source, number), desk.bench.plan.batch
    for first in range(0, found.n_ok, batch):
        with desk.clock.stage("read"):
            features = found.features(first, first + batch)
        desk.model.add(features, None)
    tiles = np.array(list(desk.bench.parts.block(source, number).tiles()), np.int64)
    return Seen(tiles, found.looked.valid_frac, found.looked.status, np.full(len(tiles), None))
