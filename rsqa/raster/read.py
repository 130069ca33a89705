"""From a block of tiles to chips: one read, cut in memory as they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from rsqa.raster.gdal import GDAL_ERRORS, gdal_env
from rsqa.raster.grid import Block, Tile, TileGrid, Window
from rsqa.raster.mosaic import odd_blocks, read_window, reopen_files
from rsqa.raster.pages import zeros
from rsqa.raster.raw import RawPixels, palette
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch

ReadError = Literal["block_unreadable"]
"""Why a tile could not be read: a file block under its window can't be decoded or has lost its size."""
STRETCHED_PX = 1 << 18
"""Pixels that are stretched at once, in whole rows: the arithmetic takes 12 bytes a value in between."""


@dataclass(frozen=True, slots=True, eq=False)
class Chips:
    """Tiles, cut and ready for a model. N tiles, H x W pixels."""

    tiles: NDArray[np.int32]
    """(N, 2) tile row and column, row by row."""
    pixels: NDArray[np.uint8]
    """(N, 3, H, W) red, green, blue; 0 where invalid."""
    valid: NDArray[np.bool_] | None
    """(N, H, W); None when every pixel of every tile is valid."""
    valid_frac: NDArray[np.float32]
    """(N,) valid share of the core; NaN where the tile could not be read."""
    error: NDArray[np.object_]
    """(N,) None or a ReadError."""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A block as it was read. Chips are cut out of it when they are wanted: a block's pixels are held once."""

    tiles: tuple[Tile, ...]
    chip_shape: tuple[int, int]
    """(H, W) of a chip; what a window does not fill is padding."""
    window: Window
    """What `pixels` show."""
    pixels: NDArray[np.uint8] | None
    """(C, H, W) colours, C = 3 or 1, 0 where invalid; None when nothing is there."""
    valid: NDArray[np.bool_] | None
    """(H, W); None when all pixels are valid."""
    unread: frozenset[int]
    """Positions of the tiles that could not be read."""

    def __len__(self) -> int:
        return len(self.tiles)

    def chips(self, first: int = 0, end: int | None = None) -> Chips:
        """Cut the tiles at positions first to end - 1, by default all."""
        tiles = self.tiles[first:end]
        masks = [self._mask(first + i) for i in range(len(tiles))]
        unread = np.array([first + i in self.unread for i in range(len(tiles))], bool)
        shares = np.array([_core_share(mask, tile) for mask, tile in zip(masks, tiles, strict=True)], np.float32)
        error: ReadError = "block_unreadable"
        return Chips(
            tiles=np.array([(tile.row, tile.col) for tile in tiles], np.int32).reshape(-1, 2),
            pixels=self._cut(tiles, masks),
            valid=self._valid(tiles, masks),
            valid_frac=np.where(unread, np.float32(np.nan), shares),
            error=np.where(unread, error, np.array(None, object)),
        )

    def _mask(self, position: int) -> NDArray[np.bool_] | bool:
        """(h, w) valid pixels of a window, or one word for all of it."""
        if self.pixels is None or position in self.unread:
            return False
        if self.valid is None:
            return True
        mask = self.valid[self.tiles[position].window.within(self.window).slices]
        return True if mask.all() else mask

    def _cut(self, tiles: Sequence[Tile], masks: Sequence[NDArray[np.bool_] | bool]) -> NDArray[np.uint8]:
        chips: NDArray[np.uint8] = zeros((len(tiles), 3, *self.chip_shape), np.uint8)
        for chip, tile, mask in zip(chips, tiles, masks, strict=True):
            if mask is not False:
                assert self.pixels is not None  # else every mask is False
                rows, cols = tile.window.within(self.window).slices
                # Grey (1, h, w) fills all three.
                chip[:, : tile.window.height, : tile.window.width] = self.pixels[:, rows, cols]
        return chips

    def _valid(self, tiles: Sequence[Tile], masks: Sequence[NDArray[np.bool_] | bool]) -> NDArray[np.bool_] | None:
        unpadded = all((tile.window.height, tile.window.width) == self.chip_shape for tile in tiles)
        if unpadded and all(mask is True for mask in masks):
            return None
        valid = np.zeros((len(tiles), *self.chip_shape), bool)
        for mask, tile, target in zip(masks, tiles, valid, strict=True):
            target[: tile.window.height, : tile.window.width] = mask
        return valid


def choose_level(source: RasterSource, tile_px: int, side_px: int, overlap_px: int = 0) -> int:
    """The coarsest overview that still shows a tile's window with at least the model's side; its factor, or 1.

    tile_px, overlap_px: source pixels, whole pixels of the overview too; side_px: what the model sees.
    """
    shown_px = tile_px + overlap_px
    fits = (f for f in source.overviews if tile_px % f == 0 and overlap_px % f == 0 and shown_px // f >= side_px)
    return max(fits, default=1)


def level_grid(source: RasterSource, tile_px: int, factor: int, overlap_px: int = 0) -> TileGrid:
    """The tile grid in pixels of the level `factor`; the same tiles as the source's own grid.

    Where the size is not a multiple of the factor, what is read may lie up to one overview pixel beside the source's
    own tile: GDAL spreads the overview's ceil(size / factor) pixels evenly over the picture.
    """
    level = source.level(factor)
    return TileGrid(level.height, level.width, tile_px // factor, overlap_px // factor)


def shown(source: RasterSource, grid: TileGrid, tile: Tile) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what the chip of a tile of `grid` (see level_grid) shows, pixels of the source.

    Beyond the raster's right and lower edge where the chip is padded.
    """
    x, y = source.width / grid.width, source.height / grid.height
    left, top, side = tile.window.col, tile.window.row, grid.window_px
    return left * x, top * y, (left + side) * x, (top + side) * y


def read_block(
    source: RasterSource,
    grid: TileGrid,
    block: Block,
    stretch: Stretch,
    factor: int,
    chip_shape: tuple[int, int] | None = None,
) -> Sheet:
    """Read one block of the grid of level `factor` (see level_grid).

    chip_shape: (H, W), at least a window of the grid; by default the square that the grid is made for.
    A file block that can't be decoded costs the tiles whose windows touch it: they get an error, the others are read.
    Raises SourceChanged when the file was replaced, written to or is gone.
    """
    tiles = tuple(grid.tile(row, col) for row, col in block.tiles())
    window = block.window(grid)
    unread: set[int] = set()
    with rasterio.Env(**gdal_env(sidecars=source.sidecars)):
        colours = palette(source) if source.palette else None
        try:
            raw = read_window(source, window, factor)
            frame = None if raw is None else _coloured(raw, stretch, colours)
        except GDAL_ERRORS:
            reopen_files(source)
            frame = RawPixels(zeros((3, window.height, window.width), np.uint8),
                              zeros((window.height, window.width), bool))  # fmt: skip
            for i, tile in enumerate(tiles):
                try:
                    raw = read_window(source, tile.window, factor)
                except GDAL_ERRORS:
                    unread.add(i)
                    continue
                if raw is not None:
                    _paste(_coloured(raw, stretch, colours), frame, tile.window.within(window))
    if odd_blocks(source, window, factor):
        unread.update(i for i, tile in enumerate(tiles) if odd_blocks(source, tile.window, factor))
    pixels, valid = (None, None) if frame is None else (frame.pixels, frame.valid)
    shape = chip_shape or (grid.window_px, grid.window_px)
    return Sheet(tiles, shape, window, pixels, valid, frozenset(unread))


def read_colours(source: RasterSource, window: Window, stretch: Stretch, factor: int) -> RawPixels | None:
    """(C, H, W) uint8 colours of any window of the level `factor`, C = 3 or 1; None where nothing is there.

    Raises one of GDAL_ERRORS when a file block under it can't be decoded or has lost its size; SourceChanged as
    `read_block`.
    """
    if odd_blocks(source, window, factor):
        raise RasterioIOError("a file block has a place but no size")
    with rasterio.Env(**gdal_env(sidecars=source.sidecars)):
        colours = palette(source) if source.palette else None
        try:
            raw = read_window(source, window, factor)
        except GDAL_ERRORS:
            reopen_files(source)
            raise
        return None if raw is None else _coloured(raw, stretch, colours)


def _coloured(raw: RawPixels, stretch: Stretch, colours: NDArray[np.uint8] | None) -> RawPixels:
    """uint8 colours of raw pixels, some rows at a time: what arithmetic needs in between is far larger than either."""
    if colours is None and stretch.identity and raw.valid is None:
        return RawPixels(stretch.apply(raw.pixels, None), None)
    _, height, width = raw.pixels.shape
    done = zeros((len(raw.pixels) if colours is None else 3, height, width), np.uint8)
    step = max(1, STRETCHED_PX // width)
    for row in range(0, height, step):
        rows = slice(row, row + step)
        mask = None if raw.valid is None else raw.valid[rows]
        if colours is None:
            done[:, rows] = stretch.apply(raw.pixels[:, rows], mask)
        else:  # colours of a palette are not stretched
            done[:, rows] = Stretch().apply(colours[raw.pixels[0, rows]].transpose(2, 0, 1), mask)
    return RawPixels(done, raw.valid)


def _paste(part: RawPixels, frame: RawPixels, where: Window) -> None:
    rows, cols = where.slices
    frame.pixels[:, rows, cols] = part.pixels
    assert frame.valid is not None
    frame.valid[rows, cols] = True if part.valid is None else part.valid


def _core_share(mask: NDArray[np.bool_] | bool, tile: Tile) -> float:
    """Valid share of a tile's core."""
    return float(mask) if isinstance(mask, bool) else float(mask[tile.core.within(tile.window).slices].mean())
