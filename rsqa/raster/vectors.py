"""Files of shapes, and what is decided about one before GDAL sees it.

Some of GDAL's vector drivers follow what a file names: a VRT reads other files and addresses, GML its schema, a web
service itself, GeoJSON the address of its CRS. So the kind is told by content, GDAL is given the three that lead
nowhere, and GeoJSON is read without it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyproj
import shapely

from rsqa.errors import SourceRefused
from rsqa.raster.opening import require_file

if TYPE_CHECKING:
    import geopandas

MAX_JSON_BYTES = 512 << 20
"""GeoJSON is held whole, some ten times as large."""
_KINDS = {b"SQLite format 3\0": "GPKG", b"fgb\x03": "FlatGeobuf", b"\0\0\x27\x0a": "Shapefile", b"PAR1": "Parquet"}
"""First bytes -> kind."""
_GEOPACKAGE = (b"GPKG", b"GP10", b"GP11")
"""At byte 68; other SQLite files may hold tables that are read from elsewhere."""
_FOREIGN = re.compile(rb"<\s*(OGR|WFS|\?xml)", re.IGNORECASE)
"""GDAL takes a file for a VRT or a web service when these letters are anywhere in its beginning."""
_HEAD_BYTES = 1 << 20
_CRS_NAME = re.compile(r"(urn:ogc:def:crs:|https?://www\.opengis\.net/def/crs/|EPSG:|OGC:)[\w:./-]+", re.IGNORECASE)


def read_shapes(path: str, option: str) -> geopandas.GeoDataFrame:
    """The shapes of a vector file of one layer, with their columns and CRS: GeoPackage, FlatGeobuf, Shapefile,
    GeoJSON, GeoParquet. `option` named it.

    SourceMissing, or SourceRefused with what to do.
    """
    import geopandas  # a second, for those who name such a file
    from pyarrow import ArrowException
    from pyogrio.errors import DataLayerError, DataSourceError

    named = f"{option} {path!r}"
    require_file(path, path)
    kind = kind_of(path, named)
    try:
        if kind == "GeoJSON":
            table = _read_json(path)
        elif kind == "Parquet":  # which the GDAL of many wheels can't read
            table = geopandas.read_parquet(path)
        else:
            _check_layers(path, named)
            table = geopandas.read_file(path)
    except (DataSourceError, DataLayerError, ArrowException, shapely.errors.ShapelyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceRefused(f"{named} can't be read as shapes on the ground: {reason}") from error
    if table.crs is None:
        raise SourceRefused(f"{named} has no CRS; give it one: ogr2ogr -a_srs EPSG:… out.gpkg {path}")
    return table


def kind_of(path: str, named: str) -> str:
    """What a file of shapes is, by its content; `named` is what messages call it. SourceRefused for all other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SourceRefused(f"{named} can't be read: {error.strerror}") from error
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return "GeoJSON"
    kind = next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)
    if kind is None or (kind == "GPKG" and head[68:72] not in _GEOPACKAGE) or _FOREIGN.search(head[:4096]):
        raise SourceRefused(
            f"{named} is no GeoPackage, GeoJSON, Shapefile (.shp), FlatGeobuf or GeoParquet; make it one: "
            f"ogr2ogr out.gpkg {path}"
        )
    return kind


def _check_layers(path: str, named: str) -> None:
    """SourceRefused unless there is one layer with shapes."""
    import pyogrio

    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not layers:
        raise SourceRefused(f"{named} holds no layer of shapes; name another file")
    if len(layers) > 1:
        raise SourceRefused(
            f"{named} has {len(layers)} layers: {', '.join(layers[:5])}; "
            f"write one to a file of its own: ogr2ogr out.gpkg {path} {layers[0]}"
        )


def _read_json(path: str) -> geopandas.GeoDataFrame:
    """RFC 7946, and the member `crs` of its predecessor as far as it is a name. ValueError for anything else."""
    import geopandas

    with open(path, encoding="utf-8-sig") as file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MB; as a GeoPackage it may be")
    try:
        said = json.loads(text)
        features = _features(said)
        crs = _named_crs(said["crs"]) if said.get("crs") is not None else pyproj.CRS("EPSG:4326")
        if not features:
            raise ValueError("it holds no feature")
        return geopandas.GeoDataFrame.from_features(features, crs=crs)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError, shapely.errors.ShapelyError) as error:
        raise ValueError("it is JSON, but no GeoJSON") from error


def _features(said: Any) -> list[Any]:
    """GeoJSON may also be one feature, or a shape alone."""
    if said["type"] == "FeatureCollection":
        return list(said["features"])
    if said["type"] == "Feature":
        return [said]
    return [{"type": "Feature", "properties": {}, "geometry": said}]


def _named_crs(said: Any) -> pyproj.CRS:
    name = said["properties"]["name"] if said["type"] == "name" else ""
    if not _CRS_NAME.fullmatch(name):
        raise ValueError(f"its crs is {str(said)[:80]}, which is not the name of one, as urn:ogc:def:crs:EPSG::32633")
    try:
        return pyproj.CRS(name)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"its crs {name!r} is not known") from error
