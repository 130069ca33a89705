"""The area that --aoi names: polygons, and which tiles of a source they touch.

Edges are straight in the file's own CRS. They are cut into short pieces before they are brought to another one, where
they may bend; tiles are compared with them in pixels of the source, so rotated rasters are like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from rsqa.errors import SourceRefused
from rsqa.raster.chosen import Run, runs_of
from rsqa.raster.source import RasterSource
from rsqa.raster.vectors import read_shapes

EDGE_PX = 0.01
"""How far, in pixels, an area must reach into a tile: one drawn along a tile's edge must not touch its neighbour only
because reprojection rounds."""
PIECES = 1000
"""Of an edge as long as the source: over a whole UTM zone they leave its bent line by centimetres."""
MARGIN = 0.01
"""Of the source's size, around it: what lies outside is not looked at, as it may have no place in the source's CRS."""


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Polygons on the ground."""

    path: str
    """As the user gave it."""
    polygons: NDArray[np.object_]
    """Valid, two-dimensional."""
    crs: pyproj.CRS

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of what the file says, however it is stored."""
        content = sha256(self.crs.to_wkt().encode())
        for outline in shapely.to_wkb(self.polygons, byte_order=1):
            content.update(outline)
        return content.hexdigest()[:16]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, degrees; across the antimeridian west is larger than east."""
        to_lonlat = _transformer(self.crs.to_wkt(), "OGC:CRS84")
        west, south, east, north = to_lonlat.transform_bounds(*shapely.total_bounds(self.polygons))
        if not np.isfinite([west, south, east, north]).all():
            raise SourceRefused(f"--aoi {self.path!r} reaches where its CRS has no place; reproject it to EPSG:4326")
        return west, south, east, north


def read_area(path: str) -> Area:
    """The polygons of a vector file, see `read_shapes`. SourceMissing, or SourceRefused with what to do."""
    table = read_shapes(path, "--aoi")
    found = np.asarray(table.geometry.array, object)
    found = shapely.force_2d(found[~(shapely.is_missing(found) | shapely.is_empty(found))])
    others = sorted({shape.geom_type for shape in found} - {"Polygon", "MultiPolygon"})
    if others or not len(found):
        raise SourceRefused(
            f"--aoi {path!r} holds {' and '.join(others) or 'no geometry'}, polygons are wanted; draw or buffer some"
        )
    return Area(path, shapely.make_valid(found), pyproj.CRS(table.crs))


def touched_tiles(area: Area, source: RasterSource, tile_px: int) -> tuple[Run, ...]:
    """The tiles whose cores the area reaches into. SourceRefused where it can't be brought to the source's CRS."""
    inside = _in_pixels(area, source)
    n_rows, n_cols = -(-source.height // tile_px), -(-source.width // tile_px)
    wanted = np.zeros((n_rows, n_cols), bool)
    shapely.prepare(inside)
    todo = np.array([(0, n_rows, 0, n_cols)])  # rectangles of tiles, in quarters as long as the area's edge is in them
    while len(todo):
        row0, row1, col0, col1 = todo.T * tile_px
        right, bottom = col1.clip(max=source.width), row1.clip(max=source.height)
        boxes = shapely.box(col0 + EDGE_PX, row0 + EDGE_PX, right - EDGE_PX, bottom - EDGE_PX)
        hit = shapely.intersects(inside, boxes)
        done = hit & (shapely.contains_properly(inside, boxes) | (np.ptp(todo.reshape(-1, 2, 2), axis=2) == 1).all(1))
        for r0, r1, c0, c1 in todo[done].tolist():
            wanted[r0:r1, c0:c1] = True
        todo = _quarters(todo[hit & ~done])
    return runs_of(wanted)


def _quarters(rectangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 4) row0, row1, col0, col1 -> the same tiles in up to four times as many."""
    row0, row1, col0, col1 = rectangles.T
    row, col = (row0 + row1 + 1) // 2, (col0 + col1 + 1) // 2
    rows, cols = ((row0, row), (row, row1)), ((col0, col), (col, col1))
    found = np.concatenate([np.stack([*r, *c], axis=1) for r in rows for c in cols])
    return found[(found[:, 0] < found[:, 1]) & (found[:, 2] < found[:, 3])]


def _in_pixels(area: Area, source: RasterSource) -> shapely.Geometry:
    """The part of the area around a source, x = column and y = row of its pixels."""
    to_source = _transformer(area.crs.to_wkt(), source.crs_wkt)
    near = _near(area, source, to_source)
    to_pixels = ~Affine(*source.transform)

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, 2)
        x, y = to_source.transform(points[:, 0], points[:, 1])
        return np.stack(to_pixels @ (np.asarray(x), np.asarray(y)), axis=1)

    placed = shapely.transform(near, place)
    if not np.isfinite(shapely.get_coordinates(placed)).all():
        raise SourceRefused(f"--aoi {area.path!r} has edges that have no place in the CRS of {source.name!r}")
    return shapely.union_all(shapely.make_valid(placed))


def _near(area: Area, source: RasterSource, to_source: pyproj.Transformer) -> NDArray[np.object_]:
    """What of the area lies around a source, in the area's CRS, its edges in short pieces."""
    width, height = source.width, source.height
    corners = [Affine(*source.transform) @ corner for corner in ((0, 0), (0, height), (width, 0), (width, height))]
    (x0, y0), (x1, y1) = np.min(corners, axis=0), np.max(corners, axis=0)
    left, bottom, right, top = to_source.transform_bounds(x0, y0, x1, y1, direction="INVERSE")
    if not np.isfinite([left, bottom, right, top]).all():
        raise SourceRefused(f"{source.name!r} reaches where the CRS of --aoi {area.path!r} has no place; reproject it")
    turns = (-360, 0, 360) if area.crs.is_geographic else (0,)
    if left > right:  # across the antimeridian
        right += 360
    margin = MARGIN * max(right - left, top - bottom)
    around = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    shapely.prepare(around)
    turned = [shapely.transform(area.polygons, lambda points, by=turn: np.add(points, (by, 0))) for turn in turns]
    kept = np.concatenate([polygons[shapely.intersects(around, polygons)] for polygons in turned])
    pieces = shapely.segmentize(shapely.intersection(kept, around), max(right - left, top - bottom) / PIECES)
    return np.asarray(pieces, object)


@lru_cache(maxsize=64)
def _transformer(from_wkt: str, to_wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(from_wkt, to_wkt, always_xy=True)
