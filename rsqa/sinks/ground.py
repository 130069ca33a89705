"""Coordinate reference systems as the outputs name them, and the way to longitude and latitude.

N polygons, P points of a closed ring (first = last).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rsqa.errors import SourceRefused

LONLAT = "OGC:CRS84"
"""WGS 84, longitude first, -180 to 180."""

STEPS = 16
"""Points that a side gets before a large polygon is transformed: its straight sides are not straight there."""

SMALL = 1.0
"""Degrees. Polygons up to so wide and high are transformed by their corners alone."""


@lru_cache(maxsize=256)
def crs_label(wkt: str) -> str:
    """-> "EPSG:32633" where the WKT is exactly a registered system, else the WKT itself; empty stays empty."""
    if not wkt:
        return ""
    authority = CRS.from_wkt(wkt).to_authority(min_confidence=100)
    return ":".join(authority) if authority else wkt


@lru_cache(maxsize=256)
def projjson(crs: str) -> dict[str, Any] | None:
    """WKT or "OGC:CRS84" -> PROJJSON; don't change the dict. None, GeoParquet's "unknown", for an empty one."""
    if not crs:
        return None
    found: dict[str, Any] = CRS.from_user_input(crs).to_json_dict()
    return found


def projection(wkt: str) -> dict[str, str]:
    """-> the attribute that STAC and GeoZarr name a system by: its code, or its WKT2 where it has none."""
    label = crs_label(wkt)
    return {"proj:wkt2": CRS.from_wkt(wkt).to_wkt()} if label == wkt else {"proj:code": label}


def on_earth(wkt: str) -> bool:
    """Whether places in this system have a longitude and latitude on Earth."""
    return _to_lonlat(wkt) is not None


def common_crs(crs_wkts: Iterable[str]) -> str:
    """-> the system that one table of all sources can have: the WKT they share, else OGC:CRS84.

    Sources without a place, whose WKT is empty, have no say; with no other the table has no system, which is empty too.
    Raises SourceRefused when there are several and not all of them are on Earth.
    """
    systems = {crs_label(wkt): wkt for wkt in crs_wkts if wkt}
    if len(systems) <= 1:
        return next(iter(systems.values()), "")
    elsewhere = [CRS.from_wkt(wkt).name for wkt in systems.values() if not on_earth(wkt)]
    if elsewhere:
        raise SourceRefused(
            f"sources of {len(systems)} coordinate systems make one table in longitude and latitude, and "
            f"{elsewhere[0]!r} has none on Earth; run rsqa once for each system"
        )
    return LONLAT


def lonlat(rings: NDArray[np.float64], wkt: str) -> NDArray[np.object_]:
    """(N, P, 2) x, y in the system `wkt` -> (N,) shapes in OGC:CRS84.

    Shapes over the antimeridian are MultiPolygons cut there; shapes around a pole reach up to it. A ring with a
    corner that is nowhere on Earth (beside the disk of a geostationary view) gives None. Raises ValueError for a
    system that is not on Earth.
    """
    transformer = _to_lonlat(wkt)
    if transformer is None:
        raise ValueError(f"not on Earth: {wkt[:80]}")
    points = _transform(transformer, rings)
    low, high = points.min(axis=1), points.max(axis=1)
    with np.errstate(invalid="ignore"):  # inf - inf of corners nowhere on Earth
        simple = (high - low <= SMALL).all(axis=1) & (low >= (-180, -89)).all(axis=1) & (high <= (180, 89)).all(axis=1)
    shapes = np.full(len(rings), None, dtype=object)
    shapes[simple] = shapely.polygons(points[simple])
    for i in np.flatnonzero(~simple):
        shapes[i] = _split(_transform(transformer, _densified(rings[i])))
    return shapes


@lru_cache(maxsize=256)
def _to_lonlat(wkt: str) -> Transformer | None:
    try:
        return Transformer.from_crs(CRS.from_wkt(wkt), LONLAT, always_xy=True)
    except ProjError:  # another celestial body, or a local system
        return None


def _transform(transformer: Transformer, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2) x, y -> (..., 2) lon, lat; inf where there is none."""
    return np.stack(transformer.transform(points[..., 0], points[..., 1]), axis=-1)


def _densified(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 2) -> (STEPS * (P - 1) + 1, 2), points in equal steps along each side."""
    steps = np.arange(STEPS)[:, None] / STEPS
    sides = ring[:-1, None] + steps * (ring[1:, None] - ring[:-1, None])  # (P - 1, STEPS, 2)
    return np.concatenate([sides.reshape(-1, 2), ring[-1:]])


def _split(ring: NDArray[np.float64]) -> shapely.Geometry | None:
    """(P, 2) lon, lat of a ring with neighbours less than 180 degrees apart -> its shape within -180 to 180."""
    if not np.isfinite(ring).all():
        return None
    ring = _without_poles(ring)
    lons = ring[0, 0] + np.concatenate([[0], np.cumsum((np.diff(ring[:, 0]) + 180) % 360 - 180)])
    ring = np.stack([lons, ring[:, 1]], axis=1)
    if abs(lons[-1] - lons[0]) > 180:  # once around: the pole is inside
        pole = np.copysign(90, ring[:, 1].mean())
        ring = np.concatenate([ring, [(lons[-1], pole), (lons[0], pole), ring[0]]])
    shape = shapely.make_valid(shapely.polygons(ring))
    pieces = []
    for turn in range(floor((lons.min() + 180) / 360), ceil((lons.max() + 180) / 360)):
        piece = shapely.intersection(shape, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        moved = shapely.transform(piece, lambda points, turn=turn: points - (360 * turn, 0))
        pieces += [part for part in shapely.get_parts(moved) if part.geom_type == "Polygon"]
    return shapely.union_all(pieces)  # those of a full circle touch where it began


def _without_poles(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A corner at a pole has no longitude of its own: give it those of its two neighbours."""
    at_pole = np.abs(ring[:, 1]) > 90 - 1e-9
    if not at_pole.any():
        return ring
    start = int(np.argmin(at_pole))
    open_ring = np.roll(ring[:-1], -start, axis=0)  # begins away from the pole
    points = []
    for i, (lon, lat) in enumerate(open_ring):
        if abs(lat) > 90 - 1e-9:
            points += [(open_ring[i - 1, 0], lat), (open_ring[(i + 1) % len(open_ring), 0], lat)]
        else:
            points.append((lon, lat))
    return np.array([*points, points[0]])
