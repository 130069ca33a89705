"""GDAL's raster tile indexes (GTI): a vector file whose features name the files of a mosaic.

They are read here, not by GDAL's driver of that name: each file is looked at as any other, and is joined as --mosaic
joins. So the files must share one grid. An index may name files beside it, by paths, and addresses. Of the metadata of
its layer LOCATION_FIELD, SORT_FIELD and SORT_FIELD_ASC are followed; a document in the domain xml:GTI is not seen.
"""

from __future__ import annotations

import os
from math import isclose
from typing import Any

import pyogrio
import pyproj

from rsqa.errors import SourceRefused
from rsqa.raster.addresses import is_remote
from rsqa.raster.bands import Masked
from rsqa.raster.describe import open_sources
from rsqa.raster.folders import PREFIX, expand
from rsqa.raster.mosaic import join
from rsqa.raster.opening import require_file
from rsqa.raster.source import RasterSource
from rsqa.raster.vectors import kind_of

_ENDINGS = (".gti.gpkg", ".gti.fgb")
_FOLLOWED = {"LOCATION_FIELD", "SORT_FIELD", "SORT_FIELD_ASC"}
_HARMLESS = {"BAND_COUNT", "DATA_TYPE", "COLOR_INTERPRETATION", "BLOCKXSIZE", "BLOCKYSIZE", "MASK_BAND", "RESAMPLING",
             "DBF_DATE_LAST_UPDATE", "DESCRIPTION", "IDENTIFIER"}  # fmt: skip
"""What the files say themselves, or what does not change pixels on one grid."""
_ADDRESSES = ("/vsicurl/https://", "/vsicurl/http://", "/vsis3/")
"""GDAL's own words for them."""


def is_tile_index(path: str) -> bool:
    """Whether a path, or what the user typed, is a tile index, by its name."""
    return path.startswith(PREFIX) or path.lower().endswith(_ENDINGS)


def open_index(path: str, name: str, bands: tuple[str, ...] | None, masked: Masked | None) -> RasterSource:
    """One source of the files of an index; SourceMissing or SourceRefused where it, or one of them, can't be read.

    As GDAL draws them: in the order of SORT_FIELD or of the features, later ones above. UsageError as `open_source`.
    """
    path = path.removeprefix(PREFIX)
    if path.startswith("/vsi"):
        raise SourceRefused(f"the tile index {name!r} is read from disk; copy it here, with addresses of its files")
    require_file(path, name)
    try:
        said, locations = _read(path, name)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        raise SourceRefused(f"{name!r} can't be read as a tile index: {' '.join(str(error).split())}") from error
    above_first = [_placed(location, os.path.dirname(path), name) for location in reversed(locations)]
    files = []
    for file in open_sources(expand(above_first), bands, masked, chips=False):
        if not isinstance(file, RasterSource):
            raise file
        files.append(file)
    source = join(files, name)
    _check_metadata(said, source)
    return source


def _read(path: str, name: str) -> tuple[dict[str, str], list[Any]]:
    """-> the metadata, and what the features name, the one that lies above the others last."""
    kind_of(path, f"the tile index {name!r}")  # GDAL's other drivers follow what a file names
    layers = [layer for layer, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) != 1:
        raise SourceRefused(f"the tile index {name!r} has {len(layers)} layers; write one to a file of its own")
    said: dict[str, str] = pyogrio.read_info(path, layer=layers[0])["layer_metadata"] or {}
    field, order = said.get("LOCATION_FIELD", "location"), said.get("SORT_FIELD")
    wanted = [field, *([order] if order else [])]
    table = pyogrio.read_dataframe(path, layer=layers[0], columns=wanted, read_geometry=False)
    if missing := [column for column in (field, order) if column and column not in table]:
        raise SourceRefused(f"the tile index {name!r} has no field {missing[0]!r}; gdaltindex writes one")
    if not len(table):
        raise SourceRefused(f"the tile index {name!r} names no files")
    if order:
        rising = said.get("SORT_FIELD_ASC", "YES").upper() in ("YES", "TRUE", "1", "ON")
        table = table.sort_values(order, ascending=rising, kind="stable")
    return said, table[field].tolist()


def _placed(location: Any, folder: str, name: str) -> str:
    """The path or address of a file: relative ones are beside the index, or else, as in GDAL, in the current folder."""
    if not isinstance(location, str) or not location:
        raise SourceRefused(f"a feature of the tile index {name!r} names no file")
    if is_remote(location) or location.startswith(_ADDRESSES):
        return location
    if location.startswith("/vsi"):
        raise SourceRefused(
            f"the tile index {name!r} names {os.path.basename(location)!r} in a way that only the command line may"
        )
    beside = os.path.join(folder, location)
    return beside if os.path.exists(beside) else location


def _check_metadata(said: dict[str, str], source: RasterSource) -> None:
    """SourceRefused where an index asks for another picture than its files are."""
    a, _, _, _, e, _ = source.transform
    same = {"SRS": lambda text: pyproj.CRS(text) == pyproj.CRS(source.crs_wkt)}
    same |= {"RESX": lambda text: isclose(float(text), a), "RESY": lambda text: isclose(float(text), abs(e))}
    for key in sorted(said.keys() - _FOLLOWED - _HARMLESS):
        try:
            agrees = key in same and same[key](said[key])
        except (ValueError, pyproj.exceptions.CRSError):
            agrees = False
        if not agrees:
            raise SourceRefused(
                f"the tile index {source.name!r} sets {key} to {said[key]!r}, other than its files, which rsqa can't "
                "follow; write its pixels to a file first: gdal_translate -of COG index out.tif"
            )
