"""`item.json`: a STAC item that says where, when and how the answers came to be. No network, no wall-clock time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import shapely
from shapely.geometry import mapping

from rsqa.sinks.ground import LONLAT, common_crs, lonlat, on_earth, projection
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import write_whole_bytes
from rsqa.tasks.question import Question

MOST_OUTLINES = 1000
"""Sources whose outlines the item shows; of more it shows the box around them all."""

ALWAYS = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""STAC wants a time, or a span that holds it. Where the imagery has no date, this is the one that is true."""

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = [
    "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]


def write_item(
    path: Path,
    sources: Sequence[TiledSource],
    questions: Sequence[Question],
    plan_id: str,
    software: Mapping[str, str],
    lineage: str,
) -> None:
    """Write the item; its assets are what lies beside it.

    The geometry is in longitude and latitude, cut at the antimeridian, its box as RFC 7946 has it (west > east across
    that line). Imagery that is not on Earth has neither: a null geometry, which STAC allows, and its own system.
    """
    geometry, bbox = _footprint([source for source in sources if source.crs_wkt])
    start, end = _times(sources)
    about: dict[str, Any] = {
        "title": "Answers per tile",
        "description": "; ".join(question.text for question in questions),
        "processing:level": "L4",
        "processing:lineage": lineage,
        "processing:software": dict(sorted(software.items())),
        "rsqa:plan_id": plan_id,
    }
    crs = common_crs(source.crs_wkt for source in sources)
    if crs:
        about |= {"proj:code": LONLAT} if crs == LONLAT else projection(crs)
    if start != end:
        about |= {"start_datetime": _rfc3339(start), "end_datetime": _rfc3339(end)}
    time = start if start == end else None
    item = pystac.Item(f"rsqa-{plan_id}", geometry, bbox, time, about, stac_extensions=EXTENSIONS)
    for name, asset in _assets(path.parent).items():
        item.add_asset(name, asset)
    text = json.dumps(item.to_dict(include_self_link=False), indent=2, ensure_ascii=False) + "\n"
    write_whole_bytes(path, text.encode())


def _assets(folder: Path) -> dict[str, pystac.Asset]:
    tables = {
        "answers": ("answers.parquet", "Answers", "A row per tile and question"),
        "classes": ("classes.parquet", "Classes", "A row per tile with its label"),
        "class_polygons": ("class_polygons.parquet", "Class polygons", "Tiles of one label that touch, as one polygon"),
        "detections": ("detections.parquet", "Detections", "A row per object, each once"),
        "counts": ("counts.parquet", "Counts", "How many objects there are, everywhere and in each area"),
    }
    assets = {
        key: pystac.Asset(f"./{name}", title, about, "application/vnd.apache.parquet", ["data"])
        for key, (name, title, about) in tables.items()
        if (folder / name).exists()
    }
    for raster in sorted((folder / "class_rasters").glob("*.tif")):
        name = f"./class_rasters/{raster.name}"
        assets[f"raster:{raster.stem}"] = pystac.Asset(name, raster.stem, "The labels as a raster", COG, ["data"])
    if (folder / "tiles.zarr").is_dir():
        assets["cube"] = pystac.Asset(
            "./tiles.zarr", "Cube", "The answers as arrays on the tile grid", "application/vnd+zarr", ["data"]
        )
    assets["run"] = pystac.Asset("./run.json", "Run", "When and how it ran", "application/json", ["metadata"])
    return assets


def _times(sources: Sequence[TiledSource]) -> tuple[datetime, datetime]:
    """-> first and last acquisition; all of time when one of them is unknown."""
    known = [source.acquired.astimezone(UTC) for source in sources if source.acquired is not None]
    return (min(known), max(known)) if len(known) == len(sources) else ALWAYS


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _footprint(sources: Sequence[TiledSource]) -> tuple[dict[str, Any] | None, list[float] | None]:
    """-> (GeoJSON geometry, bbox) around all sources; (None, None) when one of them is not wholly on Earth."""
    if not sources or not all(on_earth(source.crs_wkt) for source in sources):
        return None, None
    outlines = [lonlat(source.outline[None], source.crs_wkt)[0] for source in sources]
    if any(outline is None for outline in outlines):
        return None, None
    west, south, east, north = bbox = _box(outlines)
    if len(outlines) <= MOST_OUTLINES:
        shape = shapely.union_all(outlines)
    elif west <= east:
        shape = shapely.box(*bbox)
    else:
        shape = shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))
    return mapping(shapely.orient_polygons(shape)), bbox


def _box(shapes: Sequence[shapely.Geometry]) -> list[float]:
    """-> west, south, east, north; west > east when the smallest box lies across the antimeridian."""
    bounds = shapely.bounds(shapely.get_parts(np.array(shapes)))  # (N, 4)
    (_, south, _, _), (_, _, _, north) = bounds.min(axis=0).tolist(), bounds.max(axis=0).tolist()
    gaps, reached = [], -180.0
    for west, east in sorted(bounds[:, [0, 2]].tolist()):
        gaps.append((west - reached, reached, west))
        reached = max(reached, east)
    first = gaps[0][2]
    around = (first + 360 - reached, reached, first)  # the gap that the antimeridian lies in
    _, east, west = max([around, *gaps[1:]])
    return [west, south, east, north]
