"""The finished table: parts in, `answers.parquet` out, never more than a row group in memory.

N tiles, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rsqa.sinks.ground import LONLAT, common_crs, crs_label, lonlat, projjson
from rsqa.sinks.part_reading import count_rows, read_parts
from rsqa.sinks.summary import AnswersSummary, Tally
from rsqa.sinks.table import SCHEMA, Bounds, bbox_array, bbox_bounds, file_keys, geo_metadata, open_writer
from rsqa.sinks.whole import discard, write_whole, write_whole_folder
from rsqa.tasks.question import Question

GROUP_ROWS = 100_000
"""Rows of a row group, about: whole tiles."""
FILE_GROUPS = 10
"""Row groups of a file where the table is a folder of files."""
MOST_ROWS = 5_000_000
"""Larger tables become a folder."""

ZSTD_LEVEL = 9

_WKB_TYPES = {b"\x03\0\0\0": "Polygon", b"\x06\0\0\0": "MultiPolygon"}


def finish_answers(
    path: Path,
    parts: Sequence[Path],
    questions: Sequence[Question],
    crs_wkts: Iterable[str],
    plan_id: str,
    schema: pa.Schema = SCHEMA,
) -> AnswersSummary:
    """Gather `parts`, in order, in one table of answers. See `finish_table`; `schema`: columns that the parts have."""
    tally = Tally(questions)
    columns = Columns(schema, tally.count, read=schema.names)
    finish_table(path, parts, columns, len(questions), crs_wkts, {"plan_id": plan_id})
    return tally.summary()


def _unchanged(group: pa.Table) -> pa.Table:
    return group


@dataclass(frozen=True, slots=True)
class Columns:
    """What a table has, and how it comes from rows of parts, some whole tiles at a time."""

    schema: pa.Schema
    """Its geometry columns are those of the answers."""
    counted: Callable[[pa.Table], pa.Table]
    """Rows of parts -> the rows that go on; sees each once, in order."""
    shaped: Callable[[pa.Table], pa.Table] = _unchanged
    """Those, in the system of the table -> rows of `schema`."""
    read: Sequence[str] = tuple(SCHEMA.names)
    """What is read of the parts."""


def finish_table(
    path: Path,
    parts: Sequence[Path],
    columns: Columns,
    n_questions: int,
    crs_wkts: Iterable[str],
    facts: Mapping[str, object],
) -> None:
    """Gather `parts`, in order, in one GeoParquet file, or in a folder of files above 5 million rows.

    `facts` go into the metadata of each file. With one CRS geometries stay as they are; with several they become
    OGC:CRS84, cut at the antimeridian, and the column `source_crs` tells where each came from. The same parts give the
    same bytes. Raises OutputError when a part is damaged or `path` can't be written, SourceRefused when the sources
    share no CRS and are not all on Earth.
    """
    systems = {crs_label(wkt): wkt for wkt in crs_wkts if wkt}
    crs = common_crs(systems.values())
    group_rows = max(1, GROUP_ROWS // n_questions) * n_questions
    groups = map(columns.counted, read_parts(parts, group_rows, columns.read))
    if crs == LONLAT:
        groups = map(lambda group: _to_lonlat(group, systems, n_questions), groups)
    groups = map(columns.shaped, groups)
    write_table(path, columns.schema, groups, crs, facts, as_folder=count_rows(parts) > MOST_ROWS)


def write_table(
    path: Path,
    schema: pa.Schema,
    groups: Iterator[pa.Table],
    crs: str,
    facts: Mapping[str, object],
    *,
    as_folder: bool,
) -> None:
    """Write row groups as one GeoParquet file, or as a folder of files of `FILE_GROUPS` groups each.

    `crs`: WKT or "OGC:CRS84", of the column `geometry`; `facts` go into the metadata of each file.
    Raises OutputError when `path` can't be written.
    """

    def write_file(file: Path, its_groups: Iterable[pa.Table]) -> None:
        extent = Extent()
        with open_writer(file, ZSTD_LEVEL, schema) as writer:
            for group in its_groups:
                extent.add(group)
                writer.write_table(group, row_group_size=group.num_rows)
            geo = geo_metadata(projjson(crs), extent.types, extent.bounds)
            writer.add_key_value_metadata(file_keys(geo, facts))

    def write_folder(folder: Path) -> None:
        for number in count():
            if (first := next(groups, None)) is None:
                break
            write_file(folder / f"{number:05d}.parquet", chain([first], islice(groups, FILE_GROUPS - 1)))

    if as_folder:
        write_whole_folder(path, write_folder)
    else:
        if path.is_dir():
            discard(path)  # an earlier, larger table: a file can't be moved over a folder
        write_whole(path, lambda file: write_file(file, groups))


def _to_lonlat(group: pa.Table, systems: Mapping[str, str], n_questions: int) -> pa.Table:
    """Rows in their own systems -> rows in OGC:CRS84. `systems`: label as in `source_crs` -> WKT."""
    tiles = group.take(pa.array(np.arange(0, group.num_rows, n_questions)))
    polygons = shapely.from_wkb(tiles["geometry"].to_numpy())
    windows = bbox_bounds(tiles["window_bbox"])
    labels = tiles["source_crs"].to_numpy()
    shapes = np.full(len(tiles), None, object)
    for label in tiles["source_crs"].unique().drop_null().to_pylist():
        here = labels == label
        shapes[here] = lonlat(shapely.get_coordinates(polygons[here]).reshape(-1, 5, 2), systems[label])
        differ = here & ~np.isnan(windows).any(axis=1)
        boxes = shapely.get_coordinates(shapely.box(*windows[differ].T)).reshape(-1, 5, 2)
        windows[differ] = shapely.bounds(lonlat(boxes, systems[label]))
    columns = {
        "geometry": pa.array(shapely.to_wkb(shapes, byte_order=1), pa.binary()),
        "bbox": bbox_array(shapely.bounds(shapes)),
        "window_bbox": bbox_array(windows),
    }
    tile_of_row = pa.array(np.repeat(np.arange(len(tiles)), n_questions))
    for name, column in columns.items():
        group = group.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column.take(tile_of_row))
    return group


@dataclass(slots=True)
class Extent:
    """What the `geo` key says about the rows of a file."""

    types: set[str] = field(default_factory=set)
    low: NDArray[np.float64] = field(default_factory=lambda: np.full(2, np.inf))
    high: NDArray[np.float64] = field(default_factory=lambda: np.full(2, -np.inf))

    def add(self, group: pa.Table) -> None:
        kinds = pc.unique(pc.binary_slice(group["geometry"], 1, 5)).drop_null()  # after the byte order
        self.types |= {_WKB_TYPES[kind.as_py()] for kind in kinds}
        bounds = bbox_bounds(group["bbox"])
        self.low = np.fmin.reduce(np.vstack([self.low, bounds[:, :2]]))  # fmin and fmax pass over NaN
        self.high = np.fmax.reduce(np.vstack([self.high, bounds[:, 2:]]))

    @property
    def bounds(self) -> Bounds | None:
        (xmin, ymin), (xmax, ymax) = self.low.tolist(), self.high.tolist()
        return (xmin, ymin, xmax, ymax) if xmin <= xmax else None
