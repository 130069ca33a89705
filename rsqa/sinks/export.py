"""Finished tables in the formats of other tools: GeoPackage, FlatGeobuf, GeoJSON and CSV. A batch in memory at a time.

Columns that these formats don't know become ones that they do: a struct a column for each of its fields, maps and
lists JSON text. `bbox` is left out: the geometry says it.

N rows, P points of a ring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.dataset as ds
import pyogrio
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS

from rsqa.errors import OutputError, UsageError
from rsqa.sinks.finished import FinishedTable
from rsqa.sinks.ground import LONLAT, lonlat, on_earth, projjson
from rsqa.sinks.whole import write_whole, write_whole_named

BATCH_ROWS = 1 << 14

PYOGRIO_ERRORS = (DataLayerError, DataSourceError)
"""What it raises when a file can't be written or read."""

FORMULA = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""Text that spreadsheets would run when they open a CSV file; the last four are the full-width forms."""

DECIMALS = 6
"""Of numbers within JSON text; more than float32 holds below 1."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A format that pyogrio writes."""

    driver: str
    many: bool
    """A file holds several tables."""
    lonlat: bool = False
    """Its places are in longitude and latitude."""


VECTORS: Mapping[str, Vector] = {
    "gpkg": Vector("GPKG", many=True),
    "fgb": Vector("FlatGeobuf", many=False),
    "geojson": Vector("GeoJSON", many=False, lonlat=True),
}
"""By suffix."""


def export_vector(path: Path, tables: Sequence[FinishedTable], chosen: ds.Expression | None = None) -> None:
    """Write tables to the vector file that the suffix of `path` names; an earlier file is replaced when this is whole.

    Several tables become the layers of a GeoPackage; other formats take one. `chosen`: rows of "answers" that are
    wanted. Raises OutputError when `path` can't be written, UsageError when the format can't hold the rows.
    """
    form = VECTORS[path.suffix.lower().lstrip(".")]
    for table in tables:
        if form.lonlat:
            _check_on_earth(table)

    def write(file: Path) -> None:
        for table in tables:
            wanted = chosen if table.name == "answers" else None
            try:
                pyogrio.raw.write_arrow(
                    _reader(table, wanted, _in_lonlat(table) if form.lonlat else _wkb_column),
                    file,
                    layer=table.name,
                    driver=form.driver,
                    geometry_name="geometry",
                    geometry_type=_geometry_type(table, form.lonlat),
                    crs=LONLAT if form.lonlat else _crs_text(table),
                    layer_options=_layer_options(form, table),
                )
                _check_whole(file, table.name, table.data.count_rows(filter=wanted))
            except PYOGRIO_ERRORS as error:
                reason = " ".join(str(error).split())
                raise OutputError(f"can't write {path}: {reason}; is there room on that disk?") from error

    write_whole_named(path, write)


def _check_whole(file: Path, layer: str, n_rows: int) -> None:
    """Raise one of PYOGRIO_ERRORS unless all rows are there, the last one too.

    GDAL 3.12 says nothing when a disk is full as it closes a file.
    """
    found = pyogrio.read_info(file, layer=layer, force_feature_count=True)
    if found["features"] != n_rows:
        raise DataLayerError(f"{found['features']:,} of {n_rows:,} rows arrived")
    if file.suffix.lower() == ".gpkg" and not found["capabilities"]["fast_spatial_filter"]:
        raise DataLayerError("the spatial index did not arrive")
    pyogrio.raw.read(file, layer=layer, skip_features=max(0, n_rows - 1), max_features=1)


def export_csv(path: Path, table: FinishedTable, chosen: ds.Expression | None = None) -> None:
    """Write a table as CSV (UTF-8), its place as `lon` and `lat` of the centre, degrees, WGS 84.

    Both are empty where there is no such place. No text is a formula to a spreadsheet: what could be one begins with
    an apostrophe. Raises OutputError when `path` can't be written.
    """
    reader = _reader(table, chosen, _centres(table))

    def write(file: Path) -> None:
        with pcsv.CSVWriter(file, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(_without_formulas(batch))

    write_whole(path, write)


Place = Callable[[NDArray[np.object_]], Mapping[str, pa.Array]]
"""(N,) shapes, None where there is none -> the columns that tell where they are."""


def _reader(table: FinishedTable, chosen: ds.Expression | None, place: Place) -> pa.RecordBatchReader:
    """The table's rows in their order, flat, `geometry` replaced by the columns of `place`."""
    columns = [name for name in table.data.schema.names if name != "bbox"]
    batches = table.data.to_batches(
        columns=columns, filter=chosen, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1
    )
    fields = pa.schema([table.data.schema.field(name) for name in columns])
    schema = _flat(pa.RecordBatch.from_pylist([], schema=fields), place).schema
    return pa.RecordBatchReader.from_batches(schema, (_flat(batch, place) for batch in batches))


def _flat(batch: pa.RecordBatch, place: Place) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "geometry":
            columns |= place(shapely.from_wkb(column.to_numpy(zero_copy_only=False)))
        elif pa.types.is_struct(column.type):
            columns |= {f"{name}_{part.name}": side for part, side in zip(column.type, column.flatten(), strict=True)}
        elif pa.types.is_nested(column.type):
            columns[name] = _json_text(column)
        else:
            columns[name] = column
    return pa.record_batch(columns)


def _json_text(column: pa.Array) -> pa.Array:
    values = column.to_pylist(maps_as_pydicts="lossy")
    texts = [None if value is None else json.dumps(_rounded(value), ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _wkb_column(shapes: NDArray[np.object_]) -> Mapping[str, pa.Array]:
    return {"geometry": pa.array(shapely.to_wkb(shapes), pa.binary())}


def _in_lonlat(table: FinishedTable) -> Place:
    return lambda shapes: _wkb_column(_to_lonlat(shapes, table))


def _centres(table: FinishedTable) -> Place:
    def place(shapes: NDArray[np.object_]) -> Mapping[str, pa.Array]:
        lons, lats = np.full((2, len(shapes)), np.nan)
        if _known_on_earth(table):
            there = _to_lonlat(shapes, table)
            # Of a shape that the antimeridian cuts, one side: between them lies the other half of the world.
            parts, owners = shapely.get_parts(there, return_index=True)
            order = np.argsort(shapely.area(parts), kind="stable")  # the last word is the largest part's
            centres = shapely.centroid(parts[order])
            lons[owners[order]], lats[owners[order]] = shapely.get_x(centres), shapely.get_y(centres)
        sides = {"lon": lons.round(7), "lat": lats.round(7)}  # a centimetre
        return {name: pa.array(side, mask=np.isnan(side)) for name, side in sides.items()}

    return place


def _to_lonlat(shapes: NDArray[np.object_], table: FinishedTable) -> NDArray[np.object_]:
    """(N,) polygons in the table's system, None where there is none -> (N,) in OGC:CRS84."""
    if table.crs is None or table.crs == projjson(LONLAT):
        return shapes
    wkt = CRS.from_json_dict(table.crs).to_wkt()
    there = np.full(len(shapes), None, object)
    many = (shapely.get_num_interior_rings(shapes) > 0) | (shapely.get_num_geometries(shapes) > 1)
    for number in np.flatnonzero(many):
        there[number] = shapely.union_all([_rings_to_lonlat(part, wkt) for part in shapely.get_parts(shapes[number])])
    n_points = np.where(shapely.is_missing(shapes) | many, 0, shapely.get_num_coordinates(shapes))
    for n in np.unique(n_points[n_points > 0]).tolist():
        here = n_points == n
        there[here] = lonlat(shapely.get_coordinates(shapes[here]).reshape(-1, n, 2), wkt)
    return there


def _rings_to_lonlat(polygon: shapely.Polygon, wkt: str) -> shapely.Geometry:
    rings = [shapely.get_coordinates(ring)[None] for ring in shapely.get_rings(polygon)]
    outer, *inner = (lonlat(ring, wkt)[0] for ring in rings)
    return shapely.difference(outer, shapely.union_all(inner))


def _known_on_earth(table: FinishedTable) -> bool:
    return table.crs is not None and on_earth(CRS.from_json_dict(table.crs).to_wkt())


def _check_on_earth(table: FinishedTable) -> None:
    if table.crs is not None and not _known_on_earth(table):
        name = CRS.from_json_dict(table.crs).name
        raise UsageError(
            f"GeoJSON holds longitude and latitude, and {name!r} of these answers has none on Earth; "
            "choose gpkg or fgb, which keep it"
        )


def _crs_text(table: FinishedTable) -> str | None:
    """As GDAL reads it: the code where there is one."""
    if table.crs is None:
        return None
    crs = CRS.from_json_dict(table.crs)
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


def _geometry_type(table: FinishedTable, cut: bool) -> str:
    """`cut`: at the antimeridian, which makes MultiPolygons of some."""
    return "Polygon" if table.geometry_types == {"Polygon"} and not cut else "Unknown"


def _layer_options(form: Vector, table: FinishedTable) -> dict[str, str]:
    if form.driver == "GeoJSON":
        return {"RFC7946": "YES"}
    if form.driver == "FlatGeobuf" and table.data.count_rows(filter=ds.field("geometry").is_null()):
        return {"SPATIAL_INDEX": "NO"}  # its index has no place for rows without one
    return {}


def _without_formulas(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Text that a spreadsheet could run gets an apostrophe in front; numbers stay numbers."""
    columns = [
        pc.replace_substring_regex(column, f"({FORMULA})", "'\\1") if pa.types.is_string(column.type) else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, schema=batch.schema)
