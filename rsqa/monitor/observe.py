"""One acquisition through `rsqa ask` and `rsqa detect`: laid on the grid as a file, asked, its rows committed.

    scenes ─ warp ─> work/ID/scene.tif ─ rsqa ask, rsqa detect ─> rows ─ onto the grid ─> one file of the dataset

The work folder is the resume: a pass that was stopped goes on with the resampled scene and the parts that are there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from rsqa.engines.registry import ModelRef
from rsqa.errors import ExitCode, OutputError
from rsqa.monitor.dataset import Observation, asked_questions, make_folder, placed, write_observation
from rsqa.monitor.objects import OBSERVED, margin_px, things_of, with_objects, without_objects
from rsqa.monitor.scenes import Acquisition
from rsqa.monitor.watch import Watch, digest
from rsqa.raster.anchored import AnchoredGrid, Tiles, crs_wkt
from rsqa.raster.describe import check_unchanged, open_source
from rsqa.raster.gdal import GDAL_ERRORS
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch
from rsqa.raster.warp import OPAQUE, Patch, View
from rsqa.run import pipeline
from rsqa.run.execute import Stop
from rsqa.run.folder import PARTS, PLAN, read_plan
from rsqa.run.report import size
from rsqa.run.request import Request
from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.table import SCHEMA
from rsqa.sinks.whole import discard, write_whole_named
from rsqa.tasks.question import Question
from rsqa.tasks.task import Ask, Detect

WORK = "work"
SCENE = "scene.tif"
UNREAD = "RSQA_UNREAD"
"""Tag of a resampled scene: (row, col) of tiles whose pixels could not be read, counted from its corner."""
FORMAT = 1
"""Of what makes a row, see `processing_ids`."""
GROUP_ROWS = 1 << 16
SIGNALLED = 128
"""Exit codes above it tell a signal."""
DONE = (ExitCode.DONE, ExitCode.TILES_FAILED)
"""Exit codes of runs whose rows are all there."""


Sizes = Mapping[str, tuple[int, int]]
"""Verb of a run -> batch and tiles per part that the first scene was asked in; all later ones are asked in the same, so
that nothing else differs."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What became of an acquisition."""

    exit_code: ExitCode
    """DONE or TILES_FAILED: committed. OUT_OF_TIME, INTERRUPTED, TERMINATED: to be gone on with."""
    n_tiles: int
    sizes: Sizes
    """Of the runs that were needed."""


def grid_of(watch: Watch) -> AnchoredGrid:
    """The grid of WATCH.toml. UsageError when its CRS is none."""
    grid = watch.grid
    return AnchoredGrid(crs_wkt(grid.crs), grid.origin[0], grid.origin[1], grid.pixel, grid.tile_px)


def processing_ids(watch: Watch, model: ModelRef, dtype: str, questions: Sequence[Question]) -> dict[str, str]:
    """Question id -> what makes its rows: the same for the same model, question, grid and way to show pixels."""
    own = {name: fact for name, fact in model.to_json().items() if name not in ("folder", "base")}
    grid = watch.grid
    shown = [watch.grid_facts, grid.resampling, grid.low, grid.high, watch.scenes.bands, watch.ask.min_valid]
    looked = watch.ask.threshold, margin_px(grid.tile_px)
    return {
        q.id: digest([FORMAT, own, dtype, shown, q.text, q.kind, q.options, looked if q.kind == "box" else ()])
        for q in questions
    }


def observe(
    watch: Watch, acquisition: Acquisition, questions: Sequence[Question], processing: dict[str, str],
    replaces: tuple[str, ...], sizes: Sizes, stop: Stop,
) -> Observed:  # fmt: skip
    """Ask an acquisition `questions` and commit the answers. The caller holds the monitor's lock.

    InputError when a file can't be used, OutputError when there is no room.
    """
    grid = grid_of(watch)
    sources = [
        open_source(scene.found.path, name=scene.found.name, bands=watch.scenes.bands or None)
        for scene in acquisition.scenes
    ]
    tiles = _tiles(watch, grid, sources)
    observation = Observation(
        acquired=acquisition.acquired,
        files=tuple((scene.found.name, scene.fingerprint) for scene in acquisition.scenes),
        replaces=replaces,
        **asked_questions(questions, processing),
    )
    if not len(tiles):  # nothing of it lies in the area: that is worth knowing the next time
        write_observation(watch.out, observation, OBSERVED.empty_table(), grid)
        return Observed(ExitCode.DONE, 0, {})
    work = watch.out / WORK / observation.id
    unread = _laid(watch, grid, tiles, sources, work / SCENE, stop)
    if unread is None:
        return Observed(_stopped(stop), 0, {})
    code, used = _asked(watch, questions, work, sizes, stop)
    if code not in DONE:
        return Observed(code, 0, {})
    table = pa.concat_tables(
        _rows(work, task, grid, tiles, unread, acquisition, processing) for task, _ in _tasks(watch, questions)
    )
    write_observation(watch.out, observation, table, grid)
    discard(work)
    return Observed(ExitCode.TILES_FAILED if unread else code, len(tiles), used)


def _asked(
    watch: Watch, questions: Sequence[Question], work: Path, sizes: Sizes, stop: Stop
) -> tuple[ExitCode, dict[str, tuple[int, int]]]:  # fmt: skip
    """Do the runs over the resampled scene; -> the worst exit code, and what each was asked in."""
    worst = ExitCode.DONE
    used: dict[str, tuple[int, int]] = {}
    for task, asked in _tasks(watch, questions):
        if stop:
            return _stopped(stop), used
        code = pipeline.ask(_request(watch, task, asked, work, sizes.get(task.verb), stop)).exit_code
        if code > SIGNALLED:  # the run heard of it instead of the pass
            stop.signum = code - SIGNALLED
            stop.asked.set()
        if code not in DONE:
            return code, used
        plan = read_plan(work / task.verb)
        used[task.verb] = plan.batch, plan.part_tiles
        worst = max(worst, code)
    return worst, used


def _tasks(watch: Watch, questions: Sequence[Question]) -> Iterator[tuple[Ask | Detect, tuple[Question, ...]]]:
    """The runs that it takes, and the questions of each."""
    asked = tuple(question for question in questions if question.kind != "box")
    if asked:
        yield Ask(), asked
    things = things_of(watch.ask.objects, watch.ask.threshold)
    wanted = tuple(name for name, question in things.items() if question in questions)
    if wanted:
        yield Detect(objects=wanted, threshold=watch.ask.threshold), ()


def _rows(
    work: Path, task: Ask | Detect, grid: AnchoredGrid, tiles: Tiles, unread: frozenset[tuple[int, int]],
    acquisition: Acquisition, processing: dict[str, str],
) -> pa.Table:  # fmt: skip
    """What a run says, as rows of the dataset."""
    parts = sorted((work / task.verb / PARTS).glob("[0-9]*.parquet"))
    rows = pa.concat_tables(
        placed(group, grid, tiles, unread, acquisition.label, acquisition.acquired, processing)
        for group in read_parts(parts, GROUP_ROWS, SCHEMA.names)
    )
    if isinstance(task, Ask):
        return without_objects(rows)
    return with_objects(rows, work / task.verb / task.table, tiles)


def sweep_work(out: Path, keep: set[str]) -> None:
    """Remove what was begun and will not be gone on with. `keep`: ids of acquisitions that are still to be observed."""
    for folder in (out / WORK).glob("*"):
        if folder.name.partition(".")[0] not in {name.partition(".")[0] for name in keep}:
            discard(folder)


def _stopped(stop: Stop) -> ExitCode:
    return ExitCode.OUT_OF_TIME if stop.signum is None else ExitCode(SIGNALLED + stop.signum)


def _request(
    watch: Watch, task: Ask | Detect, questions: tuple[Question, ...], work: Path, sizes: tuple[int, int] | None,
    stop: Stop,
) -> Request:  # fmt: skip
    """What is asked of the resampled scene, with the settings of WATCH.toml."""
    model, tile_px, out = watch.model, watch.grid.tile_px, work / task.verb
    margin = margin_px(tile_px) if isinstance(task, Detect) else 0
    batch, part_tiles = (None, None) if sizes is None or (out / PLAN).exists() else sizes  # a resume takes its own
    return Request(
        sources=(str(work / SCENE),), questions=questions, task=task, out=out, tile_px=tile_px + margin,
        overlap_px=margin, min_valid=watch.ask.min_valid, model=watch.place(model.name),
        adapter=watch.path(model.adapter) if model.adapter else None, card=watch.place(model.card),
        device=model.device, dtype=model.dtype, batch_size=model.batch_size or batch, part_tiles=part_tiles,
        max_duration_s=None if stop.deadline is None else max(0.0, stop.deadline - time.monotonic()),
    )  # fmt: skip


def _tiles(watch: Watch, grid: AnchoredGrid, sources: Sequence[RasterSource]) -> Tiles:
    seen = Tiles(0, 0, 0, 0)
    for source in sources:
        seen |= grid.seen_by(source)
    if watch.grid.area:
        xmin, ymin, xmax, ymax = watch.grid.area
        seen &= grid.touched((xmin, ymin, xmax, ymax))
    return seen


def _laid(
    watch: Watch, grid: AnchoredGrid, tiles: Tiles, sources: Sequence[RasterSource], path: Path, stop: Stop
) -> frozenset[tuple[int, int]] | None:
    """Write the resampled scene, if it is not there; -> tiles that could not be read, None when stopped."""
    if not path.exists():
        make_folder(path.parent)
        _check_room(watch, sum(_bytes(grid, tiles & grid.seen_by(source), source) for source in sources))
        try:
            write_whole_named(path, lambda file: _write_checked(watch, grid, tiles, sources, file, stop))
        except _Stopped:
            return None
        for source in sources:
            check_unchanged(source)
    with rasterio.open(path) as scene:
        return frozenset((tiles.row0 + row, tiles.col0 + col) for row, col in json.loads(scene.tags()[UNREAD]))


def _bytes(grid: AnchoredGrid, tiles: Tiles, source: RasterSource) -> int:
    """What a source takes on disk when it is laid on the grid, and once more for what is made of it."""
    return 2 * len(tiles) * grid.tile_px**2 * (1 + len(source.bands))


class _Stopped(Exception):
    """Asked to stop while a scene was written."""


def _check_room(watch: Watch, n_bytes: int) -> None:
    free = shutil.disk_usage(watch.out).free
    wanted = n_bytes + int(watch.limits.min_free_gb * 1e9)
    if free < wanted:
        raise OutputError(
            f"{size(free)} are free at {str(watch.out)!r}, a scene of {size(n_bytes)} and min_free_gb want "
            f"{size(wanted)}; free some space, or move the monitor"
        )


def _write_checked(
    watch: Watch, grid: AnchoredGrid, tiles: Tiles, sources: Sequence[RasterSource], path: Path, stop: Stop
) -> None:
    """Write the resampled scene and read it back: GDAL 3.10 does not tell of every write that failed."""
    fault = f"can't write {str(path)!r}: "
    try:
        n_valid = _write_scene(watch, grid, tiles, sources, path, stop)
        with rasterio.open(path) as file:
            n_read = sum(np.count_nonzero(file.read(file.count, window=of)) for _, of in file.block_windows())
    except GDAL_ERRORS as error:
        raise OutputError(f"{fault}{' '.join(str(error).split())}; is the disk full?") from error
    if n_read != n_valid:
        raise OutputError(f"{fault}{n_valid - n_read:,} of {n_valid:,} pixels are missing; is the disk full?")


def _write_scene(
    watch: Watch, grid: AnchoredGrid, tiles: Tiles, sources: Sequence[RasterSource], path: Path, stop: Stop
) -> int:
    """The scenes on the grid as one TIFF with alpha; where they overlap the first one is on top. -> valid pixels."""
    colours = max(len(source.bands) for source in sources)
    height, width = grid.shape_px(tiles)
    unread: set[tuple[int, int]] = set()
    stretch, n_valid = Stretch(watch.grid.low, watch.grid.high), 0
    with rasterio.open(
        path, "w+", driver="GTiff", width=width, height=height, count=colours + 1, dtype="uint8",
        crs=grid.crs_wkt, transform=Affine(*grid.transform(tiles)), tiled=True, blockxsize=256, blockysize=256,
        photometric="RGB" if colours == 3 else "MINISBLACK", bigtiff="IF_SAFER", interleave="pixel",
        sparse_ok=True,  # files of one moment may lie far apart
    ) as file:  # fmt: skip
        names = (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if colours == 3 else (ColorInterp.gray,)
        file.colorinterp = [*names, ColorInterp.alpha]
        for source in sources:
            view = View(source, grid, stretch, watch.grid.resampling)
            for patch in view.patches(tiles & grid.seen_by(source)):
                if stop:
                    raise _Stopped
                if patch.pixels is None:
                    unread.add((patch.tiles.row0 - tiles.row0, patch.tiles.col0 - tiles.col0))
                else:
                    n_valid += _paste(file, patch, tiles, grid.tile_px, colours)
        file.update_tags(**{UNREAD: json.dumps(sorted(unread))})
    return n_valid


def _paste(file: rasterio.io.DatasetWriter, patch: Patch, tiles: Tiles, tile_px: int, colours: int) -> int:
    """Below what is there; -> pixels that had not been valid."""
    assert patch.pixels is not None
    assert patch.valid is not None
    height, width = patch.valid.shape
    col, row = (patch.tiles.col0 - tiles.col0) * tile_px, (patch.tiles.row0 - tiles.row0) * tile_px
    window = Window(col, row, width, height)
    below = file.read(window=window)
    new = patch.valid & (below[-1] == 0)
    below[:-1, new] = np.broadcast_to(patch.pixels, (colours, height, width))[:, new]  # grey fills all three
    below[-1, new] = OPAQUE
    file.write(below, window=window)
    return int(np.count_nonzero(new))
