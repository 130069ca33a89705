"""Rasters as they look on an anchored grid: resampled, a few tiles at a time, never a whole scene in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject

from rsqa.errors import SourceRefused
from rsqa.raster.anchored import AnchoredGrid, Tiles, between, net
from rsqa.raster.gdal import GDAL_ERRORS, gdal_env
from rsqa.raster.grid import MAX_BLOCK_PX, Window
from rsqa.raster.ground import ground_gsd
from rsqa.raster.read import read_colours
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch

REACH_PX = 3
"""Pixels beyond an area that its resampling may look at, of the coarser of both grids."""
OPAQUE = 255


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What a raster shows of some neighbouring tiles, h x w pixels."""

    tiles: Tiles
    pixels: NDArray[np.uint8] | None
    """(C, h, w), 0 where invalid; None where a file block can't be read, of a single tile."""
    valid: NDArray[np.bool_] | None
    """(h, w)"""


@dataclass(frozen=True, slots=True)
class View:
    """A raster, how its values become 8 bits, and the grid on which it is looked at."""

    source: RasterSource
    grid: AnchoredGrid
    stretch: Stretch
    kernel: str
    """Name of rasterio's Resampling; where pixels of both grids coincide all but `average` leave them as they are."""

    def __post_init__(self) -> None:
        if self.source.dtype != "uint8" and self.stretch.identity:
            raise SourceRefused(
                f"{self.source.name!r} holds {self.source.dtype} values and no stretch is set; "
                "give low and high, the values that become 0 and 255"
            )

    def patches(self, tiles: Tiles) -> Iterator[Patch]:
        """What there is to see of these tiles, row by row; those that the raster does not touch are left out."""
        factor = self._level(tiles)
        for row in range(tiles.row0, tiles.row1):
            yield from self._patches(Tiles(row, row + 1, tiles.col0, tiles.col1), factor)

    def _level(self, tiles: Tiles) -> int:
        """The coarsest overview that still has the grid's resolution: its factor, or 1."""
        height, width = self.grid.shape_px(tiles)
        wanted = ground_gsd(self.grid.crs_wkt, self.grid.transform(tiles), width, height)
        own = self.source.gsd_m or wanted
        return max((f for f in self.source.overviews if f * own <= wanted * 1.001), default=1)

    def _patches(self, tiles: Tiles, factor: int) -> Iterator[Patch]:
        window = self._window(tiles, factor)
        if window is None:
            return
        if window.height * window.width > MAX_BLOCK_PX:
            if len(tiles) > 1:
                yield from self._halves(tiles, factor)
                return
            raise SourceRefused(
                f"{self.source.name!r} has {window.width} x {window.height} pixels under one tile, too many to be read "
                "at once; build overviews: gdaladdo"
            )
        try:
            seen = read_colours(self.source, window, self.stretch, factor)
        except GDAL_ERRORS:
            if len(tiles) > 1:
                yield from self._halves(tiles, factor)
            else:
                yield Patch(tiles, None, None)
            return
        if seen is not None:
            valid = np.ones((window.height, window.width), bool) if seen.valid is None else seen.valid
            yield self._resampled(tiles, factor, window, seen.pixels, valid)

    def _halves(self, tiles: Tiles, factor: int) -> Iterator[Patch]:
        for half in tiles.halves():
            yield from self._patches(half, factor)

    def _pixels(self, factor: int) -> Affine:
        """Pixel (col, row) of the level -> x, y in the raster's CRS."""
        level = self.source.level(factor)
        step = Affine.scale(self.source.width / level.width, self.source.height / level.height)
        return Affine(*self.source.transform) @ step

    def _window(self, tiles: Tiles, factor: int) -> Window | None:
        """The pixels of the level that the tiles are made of; None where they lie beside the raster."""
        xs, ys = between(self.grid.crs_wkt, self.source.crs_wkt).transform(*net(self.grid.bounds(tiles)))
        known = np.isfinite(xs) & np.isfinite(ys)
        if not known.any():
            return None
        cols, rows = ~self._pixels(factor) @ (xs[known], ys[known])  # affine counts columns first
        height, width = self.grid.shape_px(tiles)
        level = self.source.level(factor)
        reach = REACH_PX * ceil(max(1.0, np.ptp(rows) / height, np.ptp(cols) / width))
        top, bottom = max(0, floor(rows.min()) - reach), min(level.height, ceil(rows.max()) + reach)
        left, right = max(0, floor(cols.min()) - reach), min(level.width, ceil(cols.max()) + reach)
        return Window(top, left, bottom - top, right - left) if top < bottom and left < right else None

    def _resampled(
        self, tiles: Tiles, factor: int, window: Window, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]
    ) -> Patch:
        """(C, H, W) pixels and (H, W) valid ones of a window -> the patch. Half a valid pixel is one."""
        seen = np.concatenate([pixels, (valid * np.uint8(OPAQUE))[None]])
        alpha = len(seen)
        made = np.zeros((alpha, *self.grid.shape_px(tiles)), np.uint8)
        with rasterio.Env(**gdal_env(sidecars=False)):
            try:
                reproject(
                    seen, made,
                    src_transform=self._pixels(factor) @ Affine.translation(window.col, window.row),
                    src_crs=self.source.crs_wkt, dst_transform=Affine(*self.grid.transform(tiles)),
                    dst_crs=self.grid.crs_wkt, src_alpha=alpha, dst_alpha=alpha,
                    resampling=Resampling[self.kernel], num_threads=1,
                )  # fmt: skip
            except (*GDAL_ERRORS, RasterioError) as error:
                raise SourceRefused(f"{self.source.name!r} can't be brought to the grid's CRS: {error}") from error
        shown = made[-1] > OPAQUE // 2
        return Patch(tiles, np.where(shown, made[:-1], np.uint8(0)), shown)
