"""A grid that stays where it is: tiles of fixed ground, whatever raster is looked at, for years.

Rows count downward and columns to the right from the grid's origin, and may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, isfinite

import numpy as np
import pyproj
import pyproj.exceptions
import rasterio.errors
from numpy.typing import NDArray
from rasterio.crs import CRS

from rsqa.errors import UsageError
from rsqa.raster.ground import Transform
from rsqa.raster.source import RasterSource

Bounds = tuple[float, float, float, float]
"""(xmin, ymin, xmax, ymax), CRS units."""

POINTS = 33
"""A side, of the net that is laid over an area to find where it lies in another CRS: straight sides bend there."""
SLACK_PX = 1e-6
"""Rounding of coordinates must not add a row of tiles."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """A rectangle of tiles, half open; empty ones are allowed."""

    row0: int
    row1: int
    col0: int
    col1: int

    def __len__(self) -> int:
        return max(0, self.row1 - self.row0) * max(0, self.col1 - self.col0)

    def __and__(self, other: Tiles) -> Tiles:
        """Those that are in both."""
        return Tiles(
            max(self.row0, other.row0), min(self.row1, other.row1),
            max(self.col0, other.col0), min(self.col1, other.col1),
        )  # fmt: skip

    def __or__(self, other: Tiles) -> Tiles:
        """The smallest rectangle around both."""
        if not len(self) or not len(other):
            return self if len(self) else other
        return Tiles(
            min(self.row0, other.row0), max(self.row1, other.row1),
            min(self.col0, other.col0), max(self.col1, other.col1),
        )  # fmt: skip

    def halves(self) -> tuple[Tiles, Tiles]:
        """Two parts of a rectangle of at least two tiles, cut across its longer side."""
        if self.row1 - self.row0 > self.col1 - self.col0:
            middle = (self.row0 + self.row1) // 2
            return Tiles(self.row0, middle, self.col0, self.col1), Tiles(middle, self.row1, self.col0, self.col1)
        middle = (self.col0 + self.col1) // 2
        return Tiles(self.row0, self.row1, self.col0, middle), Tiles(self.row0, self.row1, middle, self.col1)


@dataclass(frozen=True, slots=True)
class AnchoredGrid:
    """Square tiles of square pixels, north up."""

    crs_wkt: str
    x0: float
    """Left side of column 0, CRS units."""
    y0: float
    """Upper side of row 0, CRS units."""
    pixel: float
    """Side of a pixel, CRS units."""
    tile_px: int

    def __post_init__(self) -> None:
        if not (isfinite(self.x0) and isfinite(self.y0) and isfinite(self.pixel) and self.pixel > 0 < self.tile_px):
            raise ValueError(f"a grid needs a finite origin and positive sizes, got {self}")

    @property
    def tile(self) -> float:
        """Side of a tile, CRS units."""
        return self.pixel * self.tile_px

    def transform(self, tiles: Tiles) -> Transform:
        """Of pixels counted from the upper left corner of these tiles."""
        return self.pixel, 0.0, self.x0 + tiles.col0 * self.tile, 0.0, -self.pixel, self.y0 - tiles.row0 * self.tile

    def shape_px(self, tiles: Tiles) -> tuple[int, int]:
        """(height, width) of these tiles, pixels."""
        return (tiles.row1 - tiles.row0) * self.tile_px, (tiles.col1 - tiles.col0) * self.tile_px

    def bounds(self, tiles: Tiles) -> Bounds:
        """The ground of these tiles."""
        left, top = self.x0 + tiles.col0 * self.tile, self.y0 - tiles.row0 * self.tile
        height, width = self.shape_px(tiles)
        return left, top - height * self.pixel, left + width * self.pixel, top

    def touched(self, bounds: Bounds) -> Tiles:
        """The tiles of which some ground lies within the bounds."""
        xmin, ymin, xmax, ymax = bounds
        slack = SLACK_PX / self.tile_px
        return Tiles(
            floor((self.y0 - ymax) / self.tile + slack), ceil((self.y0 - ymin) / self.tile - slack),
            floor((xmin - self.x0) / self.tile + slack), ceil((xmax - self.x0) / self.tile - slack),
        )  # fmt: skip

    def seen_by(self, source: RasterSource) -> Tiles:
        """The tiles that a raster shows something of, and perhaps some around them; none where it can't be told."""
        cols, rows = net((0.0, 0.0, float(source.width), float(source.height)))
        a, b, c, d, e, f = source.transform
        xs, ys = between(source.crs_wkt, self.crs_wkt).transform(a * cols + b * rows + c, d * cols + e * rows + f)
        known = np.isfinite(xs) & np.isfinite(ys)
        if not known.any():
            return Tiles(0, 0, 0, 0)
        xs, ys = xs[known], ys[known]
        return self.touched((float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())))


def net(bounds: Bounds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) of points all over the bounds, their corners among them."""
    xmin, ymin, xmax, ymax = bounds
    xs, ys = np.meshgrid(np.linspace(xmin, xmax, POINTS), np.linspace(ymin, ymax, POINTS))
    return xs.ravel(), ys.ravel()


@lru_cache(maxsize=64)
def between(from_wkt: str, to_wkt: str) -> pyproj.Transformer:
    """Takes (x, y) of one CRS to another; points without an image become infinite."""
    return pyproj.Transformer.from_crs(from_wkt, to_wkt, always_xy=True)


def crs_wkt(text: str) -> str:
    """`EPSG:32631`, or whatever else PROJ understands -> WKT as files hold it. UsageError when it names no CRS."""
    try:
        with rasterio.Env():
            return str(CRS.from_user_input(text).to_wkt())
    except rasterio.errors.CRSError as error:
        raise UsageError(f"{text!r} is no CRS; write for example EPSG:32631") from error
