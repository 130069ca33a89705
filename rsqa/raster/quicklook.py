"""A small picture of a whole raster, block by block: memory does not grow with the raster."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsqa.raster.grid import Block, TileGrid, block_grid
from rsqa.raster.read import read_block
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch

PATCH_PX = 256
"""Side of what is read together at least, pixels of the level that is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Quicklook:
    """A raster made small."""

    pixels: NDArray[np.uint8]
    """(H, W, 4) red, green, blue, alpha; alpha 0 where nothing valid was read."""
    step: int
    """Source pixels per pixel, along one side."""


def quicklook(source: RasterSource, stretch: Stretch, most_px: int, most_side: int) -> Quicklook:
    """Each pixel the mean of the valid ones among step x step of the source, or of its nearest finer overview.

    `step` is the least that keeps the picture within `most_px` pixels and `most_side` a side. What can't be read stays
    transparent. Raises SourceChanged when the file was replaced or is gone.
    """
    wanted = max(1.0, sqrt(source.width * source.height / most_px), max(source.width, source.height) / most_side)
    factor = max(level.factor for level in source.levels if level.factor <= wanted)
    level, reduce = source.level(factor), ceil(wanted / factor)
    picture = np.zeros((-(-level.height // reduce), -(-level.width // reduce), 4), np.uint8)
    grid = TileGrid(level.height, level.width, reduce * -(-PATCH_PX // reduce))
    for block in block_grid(grid, level.layout, bytes_per_px=source.bytes_per_px):
        patch = _reduced(_read(source, grid, block, stretch, factor), reduce)
        row, col = (number * grid.tile_px // reduce for number in (block.row0, block.col0))
        picture[row : row + patch.shape[0], col : col + patch.shape[1]] = patch
    return Quicklook(picture, factor * reduce)


def _read(source: RasterSource, grid: TileGrid, block: Block, stretch: Stretch, factor: int) -> NDArray[np.uint8]:
    """-> (h, w, 4), the cores of the block: windows at the edges reach back over their neighbours."""
    first, last = grid.tile(block.row0, block.col0).core, grid.tile(block.row1 - 1, block.col1 - 1).core
    rgba = np.zeros((last.row_end - first.row, last.col_end - first.col, 4), np.uint8)
    sheet = read_block(source, grid, block, stretch, factor)
    if sheet.pixels is not None:
        rows = slice(first.row - sheet.window.row, last.row_end - sheet.window.row)
        cols = slice(first.col - sheet.window.col, last.col_end - sheet.window.col)
        rgba[..., :3] = sheet.pixels[:, rows, cols].transpose(1, 2, 0)  # grey (1, h, w) fills all three
        rgba[..., 3] = 255 if sheet.valid is None else np.where(sheet.valid[rows, cols], 255, 0)
    return rgba


def _reduced(rgba: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """(h, w, 4) -> (ceil(h / by), ceil(w / by), 4), means over the valid pixels."""
    if by == 1:
        return rgba
    weighted = Image.fromarray(rgba).convert("RGBa")  # colours times alpha: what is invalid weighs nothing
    return np.asarray(weighted.reduce(by).convert("RGBA"))
