"""The sources of a plan as a Parquet table: one row per source, so that 100,000 of them stay a small file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from sys import intern
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from rsqa.raster.source import RasterSource
from rsqa.run.plan import PlannedSource

_LAYOUT = pa.struct(
    {"block_height": pa.int64(), "block_width": pa.int64(), "pixel_interleaved": pa.bool_(), "striped": pa.bool_()}
)
_LEVEL = pa.struct(
    {"factor": pa.int32(), "overview": pa.int32(), "height": pa.int64(), "width": pa.int64(), "layout": _LAYOUT}
)
_BLOCKS = pa.struct({"blocks": pa.int64(), "past_end": pa.int64(), "sparse": pa.int64(), "odd": pa.int64()})
_FILE = {
    "name": pa.string(),
    "path": pa.string(),
    "driver": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "dtype": pa.string(),
    "bands": pa.list_(pa.int32()),
    "band_names": pa.list_(pa.string()),
    "mask": pa.string(),
    "alpha_band": pa.int32(),
    "nodata": pa.string(),
    "palette": pa.bool_(),
    "crs_wkt": pa.string(),
    "transform": pa.list_(pa.float64()),
    "gsd_m": pa.float64(),
    "levels": pa.list_(_LEVEL),
    "acquired": pa.string(),
    "fingerprint": pa.string(),
    "sidecars": pa.bool_(),
    "blocks": _BLOCKS,
    "notes": pa.list_(pa.string()),
    "mask_band": pa.int32(),
    "mask_values": pa.list_(pa.int64()),
}
_CUT = {
    "tile_px": pa.int32(), "factor": pa.int32(), "whole": pa.bool_(), "overlap_px": pa.int32(), "scale": pa.int32(),
    "chosen": pa.list_(pa.list_(pa.int32())),
}  # fmt: skip
_MEMBER = pa.struct({"row": pa.int64(), "col": pa.int64(), **_FILE})
SCHEMA = pa.schema({**_FILE, "members": pa.list_(_MEMBER), **_CUT})
"""The fields of `RasterSource`, and those of `PlannedSource`."""
ROWS = 1024
"""Sources that are Python dictionaries at once."""


def write_sources(path: Path, sources: Sequence[PlannedSource]) -> None:
    """One row per source, in the plan's order."""
    parquet.write_table(
        pa.Table.from_batches(_batches(sources), SCHEMA), path, compression="zstd", write_page_checksum=True,
        store_schema=False, write_statistics=False,  # of 74 columns they would be half of a small file
        use_dictionary=["crs_wkt", "members.list.element.crs_wkt"],  # and of the others each value is its own
    )  # fmt: skip


def _batches(sources: Sequence[PlannedSource]) -> Iterator[pa.RecordBatch]:
    for first in range(0, len(sources), ROWS):
        yield pa.RecordBatch.from_pylist([planned.to_json() for planned in sources[first : first + ROWS]], SCHEMA)


def read_sources(path: Path) -> tuple[PlannedSource, ...]:
    """What `write_sources` wrote. Raises what pyarrow raises for a file that is damaged or has other columns."""
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        batches = file.iter_batches(ROWS)
        return tuple(_planned(**row) for batch in batches for row in batch.cast(SCHEMA).to_pylist())


def _planned(
    tile_px: int, factor: int, whole: bool, overlap_px: int, scale: int, chosen: list[list[int]] | None, crs_wkt: str,
    **source: Any,
) -> PlannedSource:  # fmt: skip
    one_of_many = intern(crs_wkt)  # sources have few CRSs, each of kilobytes
    runs = None if chosen is None else tuple((row, start, end) for row, start, end in chosen)
    opened = RasterSource.from_json({**source, "crs_wkt": one_of_many})
    return PlannedSource(opened, tile_px, factor, whole, overlap_px, scale, runs)
