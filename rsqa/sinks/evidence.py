"""Weights of blocks from tiles to the ground: the model sees windows, the map is made of cores.

N tiles, k blocks along a side of a tile.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsqa.sinks.tiling import TiledSource


def shares_of(column: pa.ChunkedArray, side: int) -> NDArray[np.float32]:
    """The column `evidence` of N tiles -> (N, k·k), NaN where nothing is known."""
    column = column.combine_chunks()
    shares = np.full((len(column), side * side), np.nan, np.float32)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    shares[known] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, side * side)
    return shares


def on_cores(
    shares: NDArray[np.float32], source: TiledSource, rows: NDArray[np.integer[Any]], cols: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """(N, k·k) weights of the blocks of each tile's window -> (N, k, k) of the cells that its core is cut into.

    A cell has the weight of the block that holds its middle, to within a visual token; NaN beyond the raster. Cells
    and blocks differ at the lower and right edge only, where windows are shifted inwards.
    """
    side = isqrt(shares.shape[1])
    down = _blocks(rows, source.height, source.tile_px, side)
    right = _blocks(cols, source.width, source.tile_px, side)
    cells = shares[np.arange(len(shares))[:, None, None], down[:, :, None] * side + right[:, None, :]]
    beyond = (down < 0)[:, :, None] | (right < 0)[:, None, :]
    return np.where(beyond, np.float32(np.nan), cells)


def _blocks(tiles: NDArray[np.integer[Any]], extent: int, tile_px: int, side: int) -> NDArray[np.int64]:
    """(N,) tiles along an axis of `extent` pixels -> (N, k) the block in the middle of each cell, -1 for none."""
    start = tiles.astype(np.int64)[:, None] * tile_px  # (N, 1)
    edges = start + np.arange(side + 1) * tile_px / side
    low, high = edges[:, :-1], np.minimum(edges[:, 1:], extent)
    window = np.clip(start, None, max(0, extent - tile_px))  # as rsqa.raster.grid has it
    block = ((low + high) / 2 - window) * side // tile_px
    return np.where(low < extent, block, -1).astype(np.int64)
