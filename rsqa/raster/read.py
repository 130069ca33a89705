"""From a block of tiles to chips: one read, cut in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsqa.raster.grid import Block, Tile, TileGrid, Window
from rsqa.raster.raw import RawPixels, block_table, palette, read_raw, reopen
from rsqa.raster.source import GDAL_ERRORS, RasterSource, gdal_env
from rsqa.raster.stretch import Stretch
from rsqa.raster.tiff import BlockTable

ReadError = Literal["block_unreadable"]
"""Why a tile could not be read: a file block under its window can't be decoded or has lost its size."""


@dataclass(frozen=True, slots=True, eq=False)
class Chips:
    """The tiles of a block, cut and ready for a model. N tiles, T = the grid's window_px."""

    tiles: NDArray[np.int32]
    """(N, 2) tile row and column, row by row."""
    pixels: NDArray[np.uint8]
    """(N, 3, T, T) red, green, blue; 0 where invalid."""
    valid: NDArray[np.bool_] | None
    """(N, T, T); None when every pixel of every tile is valid."""
    valid_frac: NDArray[np.float32]
    """(N,) valid share of the core; NaN where the tile could not be read."""
    error: NDArray[np.object_]
    """(N,) None or a ReadError."""
    seconds: float
    """Wall time of reading and cutting."""
    bytes_read: int
    """Raw bytes that came out of the file, decoded."""


def choose_level(source: RasterSource, tile_px: int, side_px: int, overlap_px: int = 0) -> int:
    """The coarsest overview that still shows a tile with at least the model's side; its factor, or 1.

    tile_px, overlap_px: source pixels, whole pixels of the overview too; side_px: what the model sees.
    """
    fits = (f for f in source.overviews if tile_px % f == 0 and overlap_px % f == 0 and tile_px // f >= side_px)
    return max(fits, default=1)


def level_grid(source: RasterSource, tile_px: int, factor: int, overlap_px: int = 0) -> TileGrid:
    """The tile grid in pixels of the level `factor`; the same tiles as the source's own grid.

    Where the size is not a multiple of the factor, what is read may lie up to one overview pixel beside the source's
    own tile: GDAL spreads the overview's ceil(size / factor) pixels evenly over the picture.
    """
    level = source.level(factor)
    return TileGrid(level.height, level.width, tile_px // factor, overlap_px // factor)


def read_block(source: RasterSource, grid: TileGrid, block: Block, stretch: Stretch, factor: int) -> Chips:
    """Read one block of the grid of level `factor` (see level_grid).

    A file block that can't be decoded costs the tiles whose windows touch it: they get an error, the others are read.
    Raises SourceChanged when the file was replaced, written to or is gone.
    """
    started = perf_counter()
    table = block_table(source, factor)
    sheet = _Sheet(source, grid, block, stretch)
    window = block.window(grid)
    with rasterio.Env(**gdal_env(sidecars=source.sidecars)):
        if source.palette:
            sheet.colours = palette(source)
        try:
            sheet.put(range(len(sheet.tiles)), _read(source, table, window, factor), window)
        except GDAL_ERRORS:
            reopen(source)
            for i, tile in enumerate(sheet.tiles):
                try:
                    sheet.put([i], _read(source, table, tile.window, factor), tile.window)
                except GDAL_ERRORS:
                    sheet.fail(i)
    if table is not None:
        for i, tile in enumerate(sheet.tiles):
            if table.touched(tile.window).odd.any():  # GDAL reads such a block as zeros and says nothing
                sheet.fail(i)
    return sheet.chips(perf_counter() - started)


def _read(source: RasterSource, table: BlockTable | None, window: Window, factor: int) -> RawPixels | None:
    """Raw pixels, those of absent file blocks invalid; None when all are absent, and then nothing is read."""
    if table is None:
        return read_raw(source, window, factor)
    part = table.touched(window)
    sparse = np.logical_and.reduce(part.sparse, axis=0)  # (rows, cols) of blocks
    if sparse.all():
        return None
    raw = read_raw(source, window, factor)
    if not sparse.any():
        return raw
    present = ~part.spread(sparse, window)
    return RawPixels(raw.pixels, present if raw.valid is None else raw.valid & present)


class _Sheet:
    """Chips in the making: what has not been put stays 0 and invalid."""

    def __init__(self, source: RasterSource, grid: TileGrid, block: Block, stretch: Stretch) -> None:
        self.tiles = [grid.tile(row, col) for row, col in block.tiles()]
        self.stretch = stretch
        self.colours: NDArray[np.uint8] | None = None
        """(n, 3) of a palette; colours are not stretched."""
        n, side = len(self.tiles), grid.window_px
        self.pixels = np.zeros((n, 3, side, side), np.uint8)
        self.masks: list[NDArray[np.bool_] | bool] = [False] * n
        """Of each window: (h, w), or one word for all of it."""
        self.error = np.full(n, None, dtype=object)
        self.bytes_read = 0

    def put(self, tiles: Iterable[int], raw: RawPixels | None, origin: Window) -> None:
        """Cut tiles out of what was read for `origin`; None = nothing is there."""
        if raw is not None:
            self.bytes_read += raw.pixels.nbytes
            for i in tiles:
                self._cut(i, raw, origin)

    def _cut(self, i: int, raw: RawPixels, origin: Window) -> None:
        window = self.tiles[i].window
        rows, cols = window.within(origin).slices
        pixels = raw.pixels[:, rows, cols]
        mask = None if raw.valid is None else raw.valid[rows, cols]
        if self.colours is None:
            rgb = self.stretch.apply(pixels, mask)
        else:
            rgb = Stretch().apply(self.colours[pixels[0]].transpose(2, 0, 1), mask)  # (3, h, w)
        self.pixels[i, :, : window.height, : window.width] = rgb  # grey (1, h, w) fills all three
        self.masks[i] = True if mask is None or mask.all() else mask

    def fail(self, i: int) -> None:
        """Tile i could not be read."""
        error: ReadError = "block_unreadable"
        self.error[i] = error
        self.pixels[i] = 0
        self.masks[i] = False

    def chips(self, seconds: float) -> Chips:
        """All tiles together."""
        shares = [_core_share(mask, tile) for mask, tile in zip(self.masks, self.tiles, strict=True)]
        unread = [error is not None for error in self.error]
        return Chips(
            tiles=np.array([(tile.row, tile.col) for tile in self.tiles], np.int32),
            pixels=self.pixels,
            valid=self._valid(),
            valid_frac=np.where(unread, np.nan, shares).astype(np.float32),
            error=self.error,
            seconds=seconds,
            bytes_read=self.bytes_read,
        )

    def _valid(self) -> NDArray[np.bool_] | None:
        side = self.pixels.shape[-1]
        unpadded = all((tile.window.height, tile.window.width) == (side, side) for tile in self.tiles)
        if unpadded and all(mask is True for mask in self.masks):
            return None
        valid = np.zeros((len(self.tiles), side, side), bool)
        for mask, tile, target in zip(self.masks, self.tiles, valid, strict=True):
            target[: tile.window.height, : tile.window.width] = mask
        return valid


def _core_share(mask: NDArray[np.bool_] | bool, tile: Tile) -> float:
    """Valid share of a tile's core."""
    return float(mask) if isinstance(mask, bool) else float(mask[tile.core.within(tile.window).slices].mean())
