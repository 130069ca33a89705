"""How the cube is laid out: groups, arrays, codes, and the attributes by which other tools place it on the ground."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import numpy as np
import zarr
from affine import Affine
from pyproj import CRS

from rsqa.sinks.ground import projection
from rsqa.sinks.table import STATUSES, TILE_STATUSES
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import Question

CHUNK = 256
"""Cells a side."""

NO_STATUS = 255
"""Tiles that have no row."""

NO_COUNT = 65_535
"""Objects of a tile of which is not known whether there are any."""

_OWN = {"status", "valid_frac", "x", "y", "spatial_ref"}
"""Arrays of a source's group, where the groups of questions lie too."""

_CONVENTIONS = [
    {"name": "spatial", "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"},
    {"name": "proj", "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f"},
]
"""Of the GeoZarr pilot, version 0.1: spatial:* and proj:* attributes."""


def group_name(source: str) -> str:
    """-> the group of a source: its name with all but letters, digits, `.`, `_` and `-` as %XX, so that no two collide.

    Very long names end in a hash instead. A leading dot or double underscore means something to Zarr.
    """
    name = quote(source, safe="").replace("~", "%7E")
    if name.startswith((".", "__")):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name if len(name) <= 200 else f"{name[:180]}~{sha256(source.encode()).hexdigest()[:16]}"


def question_group(question_id: str) -> str:
    """-> the group of a question within its source; ids have no dot, so that no two collide."""
    return f"question.{question_id}" if question_id in _OWN else question_id


def value_codes(question: Question) -> tuple[np.dtype[Any], int]:
    """-> type of the codes and the code of "unknown", the highest; the options count from 0."""
    dtype = np.dtype("u1" if len(question.options) < 256 else "u2")
    return dtype, int(np.iinfo(dtype).max)


def create_source(
    root: zarr.Group, source: TiledSource, questions: Sequence[Question], evidence: int = 0
) -> dict[str, zarr.Array[Any]]:
    """Make the groups of a source, empty but for the coordinates; -> path below the source's group -> array.

    `evidence`: blocks along a side of a tile of which there are weights; 0: none.
    """
    place = place_attributes(source)
    shape = source.n_rows, source.n_cols
    own = root.create_group(group_name(source.name), attributes={**_about(source), **place})
    add_coordinates(own, source)
    arrays = {
        "status": _add_layer(own, "status", shape, "u1", NO_STATUS, flags(TILE_STATUSES, NO_STATUS)),
        "valid_frac": _add_layer(own, "valid_frac", shape, "f4", np.nan, {"long_name": "valid share of the core"}),
    }
    for question in questions:
        name = question_group(question.id)
        asked = {"question_id": question.id, "question": question.text, "kind": question.kind}
        group = own.create_group(name, attributes={**_about(source), **asked, **place})
        add_coordinates(group, source)
        if evidence:
            arrays[f"{name}/evidence/weight"] = _add_evidence(group, source, evidence)
        arrays[f"{name}/status"] = _add_layer(group, "status", shape, "u1", NO_STATUS, flags(STATUSES, NO_STATUS))
        if question.kind == "box":
            there = {"long_name": "probability that there is one"}
            arrays[f"{name}/confidence"] = _add_layer(group, "confidence", shape, "f4", np.nan, there)
            number = {"long_name": "objects whose middle is in the tile, each once"}
            arrays[f"{name}/count"] = _add_layer(group, "count", shape, "u2", NO_COUNT, number)
        if not question.closed:
            continue
        dtype, unknown = value_codes(question)
        meaning = {"long_name": question.text, "options": list(question.options), **flags(question.options, unknown)}
        arrays[f"{name}/value"] = _add_layer(group, "value", shape, dtype, unknown, meaning)
        sure = {"long_name": "probability of the value"}
        arrays[f"{name}/confidence"] = _add_layer(group, "confidence", shape, "f4", np.nan, sure)
    return arrays


def _add_evidence(group: zarr.Group, source: TiledSource, side: int) -> zarr.Array[Any]:
    """Add the group `evidence`, whose grid is `side` times as fine."""
    about = {
        "Conventions": "CF-1.10",
        "source": source.name,
        "comment": (
            "Where the prompt of an adapter looked to put this question: the share of each block of a tile in what the "
            "model was told. It is no proof of the answer. Tiles at the lower and right edge are seen in windows "
            "shifted inwards: a cell there has the weight of the block that holds its middle."
        ),
    }
    own = group.create_group("evidence", attributes={**about, **place_attributes(source, side)})
    add_coordinates(own, source, side)
    meaning = {"long_name": "share of the block in the prompt", "units": "1"}
    return _add_layer(own, "weight", (source.n_rows * side, source.n_cols * side), "f4", np.nan, meaning)


def _add_layer(
    group: zarr.Group, name: str, shape: tuple[int, int], dtype: Any, fill: float, attributes: Mapping[str, Any]
) -> zarr.Array[Any]:
    """Add an array (y, x) in which `fill` means "no value" to xarray and GDAL."""
    about = {**attributes, "grid_mapping": "spatial_ref"}
    if group.metadata.zarr_format == 3 and np.dtype(dtype).kind == "u":
        about["_FillValue"] = fill  # format 2 has only one kind of fill, readers of format 3 ask for this one
    return add_array(group, name, ("y", "x"), about, shape=shape, dtype=dtype, fill_value=fill, chunks=(CHUNK, CHUNK))


def add_array(
    group: zarr.Group, name: str, dims: tuple[str, ...], attributes: dict[str, Any], **options: Any
) -> zarr.Array[Any]:
    if group.metadata.zarr_format == 2:
        attributes = {"_ARRAY_DIMENSIONS": list(dims), **attributes}
        options["compressors"] = {"id": "zlib", "level": 6}  # the codec that every GDAL has
    else:  # gzip, zlib's form there, would write the time of day into each chunk
        zstd = {"name": "zstd", "configuration": {"level": 6, "checksum": True}}
        options |= {"dimension_names": dims, "compressors": zstd}
    return group.create_array(name, attributes=attributes, **options)


def add_coordinates(group: zarr.Group, source: TiledSource, side: int = 1) -> None:
    """Add `spatial_ref`, and the centres of the cells, `side` along each side of a tile, if the grid is not rotated."""
    crs, transform = CRS.from_wkt(source.crs_wkt), source.tile_transform @ Affine.scale(1 / side)
    geo_transform = " ".join(map(repr, transform.to_gdal()))
    about = {**crs.to_cf(), "spatial_ref": source.crs_wkt, "GeoTransform": geo_transform}
    add_array(group, "spatial_ref", (), about, shape=(), dtype="i4", fill_value=None)[...] = 0
    if (transform.b, transform.d) != (0, 0):
        return  # no one-dimensional x and y would be true
    geographic = crs.is_geographic
    unit = crs.axis_info[0].unit_name if crs.axis_info else ""
    axes = [
        ("x", transform.c, transform.a, source.n_cols * side, "longitude", "degrees_east"),
        ("y", transform.f, transform.e, source.n_rows * side, "latitude", "degrees_north"),
    ]
    for name, start, step, n, angle, degrees in axes:
        about = {
            "axis": name.upper(),
            "standard_name": angle if geographic else f"projection_{name}_coordinate",
            "units": degrees if geographic else unit,
        }
        centres = start + (np.arange(n) + 0.5) * step
        add_array(group, name, (name,), about, shape=(n,), dtype="f8", fill_value=np.nan, chunks=(n,))[:] = centres


def _about(source: TiledSource) -> dict[str, Any]:
    about: dict[str, Any] = {
        "Conventions": "CF-1.10",
        "source": source.name,
        "tile_px": source.tile_px,
        "comment": (
            "One cell per tile, joined to the tables by tile_row and tile_col. Tiles at the lower and right edge may "
            "cover less ground than their cell; their true outline is in the tables."
        ),
    }
    return about | ({"acquired": source.acquired.isoformat()} if source.acquired else {})


def place_attributes(source: TiledSource, side: int = 1) -> dict[str, Any]:
    """-> the GeoZarr attributes, which also hold for rotated grids, of `side` cells along each side of a tile."""
    transform = source.tile_transform @ Affine.scale(1 / side)
    n_rows, n_cols = source.n_rows * side, source.n_cols * side
    xs, ys = zip(*(transform @ corner for corner in ((0, 0), (n_cols, 0), (n_cols, n_rows), (0, n_rows))), strict=True)
    return {
        "zarr_conventions": _CONVENTIONS,
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [n_rows, n_cols],
        "spatial:transform": list(transform)[:6],
        "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        "spatial:registration": "pixel",
        **projection(source.crs_wkt),
    }


def flags(meanings: Sequence[str], unknown: int) -> dict[str, Any]:
    """-> CF flags: a value for each meaning, and the last one for cells without any."""
    words = [re.sub(r"[^A-Za-z0-9_.@+-]+", "_", meaning) for meaning in meanings]
    times = Counter(words)
    words = [word if times[word] == 1 else f"{word}_{code}" for code, word in enumerate(words)]
    return {"flag_values": [*range(len(words)), unknown], "flag_meanings": " ".join([*words, "unknown"])}
