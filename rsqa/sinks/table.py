"""The answers table: its columns, its GeoParquet 1.1 metadata, and how its files are written and read.

pyarrow's own writer and a plain binary geometry: geopandas would tag the field as `geoarrow.wkb`, and GDAL between
Arrow 21 and 3.13 loses the CRS of such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FORMAT = 1
"""Version of the columns and of the `rsqa` key; readers refuse newer ones."""

Bounds = tuple[float, float, float, float]
"""(xmin, ymin, xmax, ymax)."""

TILE_STATUSES = ("ok", "nodata", "error")
STATUSES = ("ok", "off_list", "unparsed", "truncated", "nodata", "error")

ABSTAINED = "abstained"
"""Of a label that was not sure enough, in tables of classes only."""

BBOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])

SCHEMA = pa.schema(
    [
        ("tile_id", pa.string()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("source", pa.string()),
        ("acquired", pa.timestamp("us", tz="UTC")),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("kind", pa.string()),
        ("value", pa.string()),
        ("confidence", pa.float32()),
        ("option_mass", pa.float32()),
        ("probabilities", pa.map_(pa.string(), pa.float32())),
        ("text", pa.string()),
        ("token_logprob", pa.float32()),
        ("reasoning", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("valid_frac", pa.float32()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
        ("window_bbox", BBOX),
        ("processing_id", pa.string()),
        ("source_crs", pa.string()),
    ]
)

EVIDENCE = pa.field("evidence", pa.list_(pa.float32()))
"""Share of each block of the tile's window in what an adapter told the model, row by row of the square that they form:
where the prompt looked. Null for tiles that were not asked, a null share for a block without ground."""

EVIDENCE_SCHEMA = SCHEMA.append(EVIDENCE)
"""Of runs that keep it."""

BOXES = pa.list_(pa.list_(pa.float64(), 8))
"""x, y of the four corners of each box, as `rsqa.tasks.boxes.pixel_corners` gives them."""

BOX_SCHEMA = pa.schema([*SCHEMA, ("boxes", BOXES), ("malformed", pa.int32())])
"""Of parts of a detect run: `confidence` is the score of the row's boxes, `token_logprob` that of their words."""


def open_writer(
    where: str | Path | pa.NativeFile, compression_level: int, schema: pa.Schema = SCHEMA
) -> pq.ParquetWriter:
    """A writer of `schema` with zstd and page checksums; give it `file_keys` before it closes.

    Without a stored Arrow schema, which our plain types don't need: pyarrow hides the footer's keys behind it, and
    geopandas then finds no `geo` in a folder of files.
    """
    return pq.ParquetWriter(
        where,
        schema,
        compression="zstd",
        compression_level=compression_level,
        write_page_checksum=True,
        store_schema=False,
    )


def file_keys(geo: Mapping[str, object], facts: Mapping[str, object]) -> dict[str, str]:
    """-> the `geo` and `rsqa` keys of the footer."""
    return {"geo": json.dumps(geo), "rsqa": json.dumps({"format": FORMAT, **facts})}


def geo_metadata(
    projjson: Mapping[str, Any] | None, geometry_types: Iterable[str], bounds: Bounds | None
) -> dict[str, Any]:
    """-> the `geo` key; `bounds` None when there is no geometry in the file."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(geometry_types),
        "crs": None if projjson is None else dict(projjson),  # null is unknown; no key at all would be OGC:CRS84
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if bounds is not None:
        column["bbox"] = list(bounds)
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def bbox_array(bounds: NDArray[np.float64]) -> pa.StructArray:
    """(N, 4) xmin, ymin, xmax, ymax -> the struct column; rows with NaN are null."""
    columns = [pa.array(bounds[:, i]) for i in range(4)]
    missing = pa.array(np.isnan(bounds).any(axis=1))
    return pa.StructArray.from_arrays(columns, fields=list(BBOX), mask=missing)


def probability_map(names: pa.Array, shares: NDArray[np.float32], known: NDArray[np.bool_]) -> pa.MapArray:
    """(n * k,) options and (n, k) their shares, of the n rows that are `known` (N,) -> the column, else null."""
    ends = np.concatenate([[0], np.cumsum(known)]) * shares.shape[1]
    # An offset that is null makes its row null; the last one is the end and is never null.
    offsets = pa.array(ends, pa.int32(), mask=np.append(~known, False))
    return pa.MapArray.from_arrays(offsets, names, pa.array(shares.ravel().astype(np.float32)))


def bbox_bounds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The inverse of `bbox_array`: null rows become NaN."""
    sides = column.combine_chunks().flatten()  # `flatten`, unlike `field`, knows which structs are null
    return np.stack([side.to_numpy(zero_copy_only=False) for side in sides], axis=1)


def tile_statuses(statuses: NDArray[Any]) -> NDArray[np.uint8]:
    """(N, Q) statuses of N tiles and Q questions -> (N,) indices in TILE_STATUSES.

    A tile failed when all its questions did; where only some did, those rows say so.
    """
    nodata, failed = (statuses == "nodata").all(axis=1), (statuses == "error").all(axis=1)
    return np.select([nodata, failed], [1, 2], 0).astype(np.uint8)
