"""Detections: from the boxes of tiles within parts to objects, and the finished `detections.parquet`, a row for each.

A part of a detect run is a part like any other, every planned tile exactly one row per label asked for, with the boxes
of the tile and how many were malformed in two more columns.

T tiles, L labels, B boxes, N objects.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rsqa.raster.grid import TileGrid, Window
from rsqa.raster.ground import ground_rings
from rsqa.sinks.geoparquet import GROUP_ROWS, MOST_ROWS, write_table
from rsqa.sinks.ground import LONLAT, crs_label, lonlat
from rsqa.sinks.part_reading import read_parts, regrouped
from rsqa.sinks.table import BBOX, SCHEMA, bbox_array
from rsqa.sinks.tiling import TiledSource, tile_id
from rsqa.tasks.merge import Band, Objects, Tiles, merge
from rsqa.tasks.question import Question

DETECTIONS = pa.schema(
    [
        ("source", pa.string()),
        ("acquired", SCHEMA.field("acquired").type),
        ("question_id", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("box_logprob", pa.float32()),
        ("tile_id", pa.string()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("seen_by", pa.list_(pa.string())),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
        ("processing_id", pa.string()),
        ("source_crs", pa.string()),
    ]
)
"""The tile is the one whose core holds the middle of the box: rows join the other tables by it. `seen_by` names the
tiles that saw the object, that of the chosen box first; those of a coarser pass end in @ and its factor."""


@dataclass(frozen=True, slots=True)
class Label:
    """What was looked for."""

    question_id: str
    name: str
    """The column `label`."""
    processing_id: str
    """Of this source."""


@dataclass(frozen=True, slots=True)
class Found:
    """Objects of one source."""

    source: TiledSource
    labels: Sequence[Label]
    objects: Objects


_COLUMNS = ["tile_row", "tile_col", "confidence", "token_logprob", "status", "processing_id", "boxes"]


@dataclass(frozen=True, slots=True)
class Pass:
    """What tiles of one size saw."""

    sources: tuple[TiledSource, ...]
    parts: tuple[Path, ...]
    blocks: Iterable[tuple[int, int]]
    """(number of the source, tiles) of every block, in the order of the parts' rows; of a source each begins no higher
    than the one before it."""


def found_objects(passes: Sequence[Pass], questions: Sequence[Question], names: Sequence[str]) -> Iterator[Found]:
    """Merge the boxes in committed parts, source after source, from top to bottom, a few blocks' rows in memory.

    `passes`: the first one, and perhaps a coarser one over some of the sources, in the same order. `questions` and
    `names` of the labels, in the order of a tile's rows. Raises OutputError when a part is damaged.
    """
    n_labels = len(questions)
    first, *others = (_by_source(one, n_labels) for one in passes)
    coarser = chain(*others)
    ahead = next(coarser, None)
    for source, tables in first:
        rows = next(tables)
        ids = rows["processing_id"][:n_labels].to_pylist()
        labels = [Label(q.id, name, id_) for q, name, id_ in zip(questions, names, ids, strict=True)]
        bands = _bands(source, chain([rows], tables), n_labels, 0)
        also = ahead is not None and ahead[0].name == source.name
        if ahead is not None and also:
            bands = heapq.merge(bands, _bands(*ahead, n_labels, source.overlap_px), key=_top)
        for objects in merge(bands, (source.height, source.width)):
            yield Found(source, labels, objects)
        ahead = next(coarser, None) if also else ahead


def _by_source(one: Pass, n_labels: int) -> Iterator[tuple[TiledSource, Iterator[pa.Table]]]:
    """-> each source and the rows of its blocks; they must be taken before the next source is."""
    for number, group in groupby(_block_rows(one, n_labels), key=itemgetter(0)):
        yield one.sources[number], (rows for _, rows in group)


def _block_rows(one: Pass, n_labels: int) -> Iterator[tuple[int, pa.Table]]:
    """-> (number of the source, rows) of each block."""
    tables = read_parts(one.parts, GROUP_ROWS, _COLUMNS)
    held = next(tables)
    for source, n_tiles in one.blocks:
        n_rows = n_tiles * n_labels
        while held.num_rows < n_rows:
            held = pa.concat_tables([held, next(tables)])
        yield source, held.slice(0, n_rows)
        held = held.slice(n_rows)


def _bands(source: TiledSource, tables: Iterable[pa.Table], n_labels: int, least_px: int) -> Iterator[Band]:
    """-> what the tiles of each block saw; of boxes those larger than `least_px`, as smaller ones were seen before."""
    for rows in tables:
        band = band_of(rows, source.grid, n_labels, source.scale)
        yield band.only(np.ptp(band.corners, axis=1).max(axis=1) > least_px)


def _top(band: Band) -> float:
    return float(band.tiles.window[:, 1].min())


def most_objects(passes: Iterable[Pass]) -> int:
    """As many as there are boxes in the parts, or a few more; by their footers alone."""
    n_values = 0
    for path in chain(*(one.parts for one in passes)):
        metadata = pq.read_metadata(path)
        columns = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        boxes = next(i for i, name in enumerate(columns) if name.startswith("boxes."))
        n_values += sum(metadata.row_group(g).column(boxes).num_values for g in range(metadata.num_row_groups))
    return -(-n_values // 8)  # four corners; a tile without boxes counts as one number


def band_of(rows: pa.Table, grid: TileGrid, n_labels: int, factor: int = 1) -> Band:
    """Rows of parts of one source and pass, tile by tile, the labels of a tile together -> what its tiles saw.

    `grid`: of the pass, in pixels of the source; `factor`: how many times larger its tiles are than those of the first.
    A row whose status is not ok may hold boxes, but what it does not hold may be there all the same.
    """
    first = np.arange(0, rows.num_rows, n_labels)
    names = np.stack([rows[name].to_numpy()[first] for name in ("tile_row", "tile_col")], axis=1).astype(np.int64)
    tiles = [grid.tile(row, col) for row, col in names.tolist()]
    sides = np.array([(*_sides(tile.core), *_sides(tile.window)) for tile in tiles], np.float64).reshape(-1, 8)
    boxes = rows["boxes"].combine_chunks()
    n_boxes = pc.fill_null(boxes.value_lengths(), 0).to_numpy()
    of_row = np.repeat(np.arange(rows.num_rows), n_boxes)
    return Band(
        tiles=Tiles(
            tile=np.insert(names, 0, factor, axis=1),
            core=sides[:, :4],
            window=sides[:, 4:],
            asked=(rows["status"].to_numpy() == "ok").reshape(-1, n_labels),
        ),
        tile=of_row // n_labels,
        label=of_row % n_labels,
        corners=boxes.flatten().flatten().to_numpy().reshape(-1, 4, 2),
        score=rows["confidence"].to_numpy()[of_row],
        logprob=rows["token_logprob"].to_numpy()[of_row],
    )


def _sides(window: Window) -> tuple[int, int, int, int]:
    return window.col, window.row, window.col_end, window.row_end


def detections_table(objects: Objects, source: TiledSource, labels: Sequence[Label], crs: str) -> pa.Table:
    """-> rows of `DETECTIONS`. `crs`: of the finished table, the source's own or OGC:CRS84 (see common_crs)."""
    n_objects = len(objects)
    rings = ground_rings(objects.corners, source.transform)
    shapes = lonlat(rings, source.crs_wkt) if crs == LONLAT else shapely.polygons(rings)
    cols, rows = (objects.corners.mean(axis=1) // source.tile_px).clip(0, (source.n_cols - 1, source.n_rows - 1)).T
    seen = [tile_id(source.name, row, col, scale) for scale, row, col in objects.seen.tolist()]
    offsets = pa.array(np.cumsum([0, *objects.n_seen]), pa.int32())
    own = [labels[number] for number in objects.label.tolist()]
    values = {
        "source": pa.repeat(source.name, n_objects),
        "acquired": pa.repeat(pa.scalar(source.acquired, DETECTIONS.field("acquired").type), n_objects),
        "question_id": [label.question_id for label in own],
        "label": [label.name for label in own],
        "score": _numbers(objects.score),
        "box_logprob": _numbers(objects.logprob),
        "tile_id": [tile_id(source.name, int(row), int(col)) for row, col in zip(rows, cols, strict=True)],
        "tile_row": pa.array(rows.astype(np.int32)),
        "tile_col": pa.array(cols.astype(np.int32)),
        "seen_by": pa.ListArray.from_arrays(offsets, pa.array(seen, pa.string())),
        "geometry": pa.array(shapely.to_wkb(shapes, byte_order=1), pa.binary()),
        "bbox": bbox_array(shapely.bounds(shapes).reshape(-1, 4)),
        "processing_id": [label.processing_id for label in own],
        "source_crs": pa.repeat(crs_label(source.crs_wkt), n_objects),
    }
    return pa.table([values[name] for name in DETECTIONS.names], schema=DETECTIONS)


def _numbers(values: NDArray[np.float32]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def finish_detections(path: Path, tables: Iterable[pa.Table], crs: str, plan_id: str, at_most: int) -> None:
    """Write rows of `DETECTIONS` as they come to one GeoParquet file, or to a folder of files.

    `crs`: WKT or OGC:CRS84; `at_most`: rows that may come, above 5 million a folder is made. The same rows give the
    same bytes, however they are portioned. Raises OutputError when `path` can't be written.
    """
    groups = regrouped(tables, GROUP_ROWS)
    write_table(path, DETECTIONS, groups, crs, {"plan_id": plan_id}, as_folder=at_most > MOST_ROWS)
