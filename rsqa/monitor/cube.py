"""The dataset as a cube: answers over time on the tile grid, (time, y, x), for xarray and GDAL.

    QUESTION/   value (codes with CF flags, the highest one unknown), confidence, status

Derived from the dataset and made anew each time. One chunk is one moment of 256 x 256 tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from rsqa.errors import InputError
from rsqa.monitor.dataset import Stored, damaged, ledger
from rsqa.raster.anchored import AnchoredGrid, Tiles
from rsqa.sinks.cube_layout import (
    CHUNK,
    NO_STATUS,
    add_array,
    add_coordinates,
    flags,
    place_attributes,
    question_group,
    value_codes,
)
from rsqa.sinks.table import FORMAT, STATUSES
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import write_whole_folder
from rsqa.tasks.question import Question

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = ["tile_row", "tile_col", "question_id", "acquired", "value", "confidence", "status", "processing_id"]


def write_cube(out: Path, path: Path, grid: AnchoredGrid, questions: Sequence[Question], asked: dict[str, str]) -> int:
    """Write a Zarr (format 2) of the closed `questions`, as they are asked now; -> moments.

    asked: question id -> processing id: rows of another model or other words are left out, they can't be compared.
    InputError when nothing was observed, OutputError when `path` can't be written.
    """
    stored = ledger(out)
    moments = sorted({observation.acquired for file in stored for observation in file.observations})
    tiles = _extent(stored)
    if not len(tiles):
        raise InputError(f"nothing was observed yet in {str(out)!r}; rsqa monitor run does it")
    closed = {asked[question.id]: question for question in questions if question.closed}

    def write(folder: Path) -> None:
        root = zarr.open_group(LocalStore(folder), mode="w", zarr_format=2)
        root.attrs.update({"rsqa": {"format": FORMAT, "first_tile": [tiles.row0, tiles.col0]}})
        arrays = {id_: _create(root, question, grid, tiles, moments) for id_, question in closed.items()}
        for file in stored:
            for (when, id_), rows in _groups(_read(file.path)):
                if id_ in closed:
                    _put(arrays[id_], closed[id_], moments.index(when), rows, tiles)
        zarr.consolidate_metadata(root.store)

    write_whole_folder(path, write)
    return len(moments)


def _extent(stored: Sequence[Stored]) -> Tiles:
    """All tiles that were ever looked at, by the statistics of the footers."""
    whole = Tiles(0, 0, 0, 0)
    for file in stored:
        metadata = pq.read_metadata(file.path)
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        at = names.index("tile_row"), names.index("tile_col")
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if group.num_rows:
                rows, cols = (group.column(i).statistics for i in at)
                whole |= Tiles(rows.min, rows.max + 1, cols.min, cols.max + 1)
    return whole


def _create(
    root: zarr.Group, question: Question, grid: AnchoredGrid, tiles: Tiles, moments: Sequence[datetime]
) -> dict[str, zarr.Array[Any]]:
    """The group of a question, empty but for its coordinates; -> name -> array (time, y, x)."""
    height, width = grid.shape_px(tiles)
    place = TiledSource(
        name="", crs_wkt=grid.crs_wkt, transform=grid.transform(tiles), width=width, height=height,
        tile_px=grid.tile_px,
    )  # fmt: skip
    about = {"Conventions": "CF-1.10", "question_id": question.id, "question": question.text}
    group = root.create_group(question_group(question.id), attributes=about | place_attributes(place))
    add_coordinates(group, place)
    seconds = np.array([(moment - EPOCH).total_seconds() for moment in moments])
    time = {"units": "seconds since 1970-01-01", "calendar": "standard", "standard_name": "time", "axis": "T"}
    add_array(group, "time", ("time",), time, shape=seconds.shape, dtype="f8", fill_value=np.nan,
              chunks=seconds.shape)[:] = seconds  # fmt: skip
    dtype, unknown = value_codes(question)
    layers: dict[str, tuple[Any, float, dict[str, Any]]] = {
        "value": (dtype, unknown, {"long_name": question.text, **flags(question.options, unknown)}),
        "confidence": ("f4", np.nan, {"long_name": "probability of the value"}),
        "status": ("u1", NO_STATUS, flags(STATUSES, NO_STATUS)),
    }
    shape, chunks = (len(moments), place.n_rows, place.n_cols), (1, CHUNK, CHUNK)
    return {
        name: add_array(group, name, ("time", "y", "x"), {**attributes, "grid_mapping": "spatial_ref"}, shape=shape,
                        dtype=dtype, fill_value=fill, chunks=chunks)
        for name, (dtype, fill, attributes) in layers.items()
    }  # fmt: skip


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=_COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def _groups(table: pa.Table) -> Iterator[tuple[tuple[datetime, str], pa.Table]]:
    """((when, processing id), rows) of a file."""
    table = table.sort_by([("acquired", "ascending"), ("processing_id", "ascending")])
    keys = list(zip(table["acquired"].to_pylist(), table["processing_id"].to_pylist(), strict=True))
    for (when, id_), positions in groupby(range(len(keys)), key=keys.__getitem__):
        at = list(positions)
        yield (when.astimezone(UTC), id_), table.slice(at[0], len(at))


def _put(arrays: dict[str, zarr.Array[Any]], question: Question, at: int, rows: pa.Table, tiles: Tiles) -> None:
    """One moment; the caller is the only writer."""
    _, unknown = value_codes(question)
    codes: dict[str, NDArray[Any]] = {
        "value": pc.fill_null(pc.index_in(rows["value"], pa.array(question.options)), unknown).to_numpy(),
        "confidence": rows["confidence"].to_numpy(),
        "status": pc.index_in(rows["status"], pa.array(STATUSES)).to_numpy(),
    }
    y, x = rows["tile_row"].to_numpy() - tiles.row0, rows["tile_col"].to_numpy() - tiles.col0
    empty = np.asarray(arrays["status"][at])[y, x] == NO_STATUS  # of two views of one moment nodata hides nothing
    new = empty | (codes["status"] != STATUSES.index("nodata"))
    for name, array in arrays.items():
        layer = np.asarray(array[at])
        layer[y[new], x[new]] = codes[name][new].astype(layer.dtype)
        array[at] = layer
