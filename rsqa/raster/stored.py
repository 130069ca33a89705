"""How many bytes of its files a run will read: told by block tables, before a pixel is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rsqa.raster.chosen import ChosenBlocks
from rsqa.raster.gdal import FILE_CACHE_BYTES
from rsqa.raster.grid import BlockGrid, TileGrid, Window
from rsqa.raster.opening import PICTURES
from rsqa.raster.raw import block_table, mask_table
from rsqa.raster.source import Level, RasterSource
from rsqa.raster.tiff import BlockTable

Spans = Sequence[tuple[int, int]]
"""(first pixel, pixel behind the last) along one axis."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is fetched of one source, or of several."""

    n_bytes: int = 0
    """Of files with a block table, as they are stored: mostly compressed."""
    n_unknown: int = 0
    """File blocks of other files: what lies elsewhere, and under a VRT."""

    @property
    def kept(self) -> bool:
        """Whether who read it once has it in memory."""
        return self.n_bytes <= FILE_CACHE_BYTES

    def __add__(self, other: Stored) -> Stored:
        return Stored(self.n_bytes + other.n_bytes, self.n_unknown + other.n_unknown)


def stored_under(
    source: RasterSource, grid: TileGrid, blocks: BlockGrid | ChosenBlocks, factor: int, readers: int
) -> Stored:
    """What the blocks of a grid of level `factor` (see level_grid) take: a file block once for each that touches it.

    Of a picture so small that each of `readers` threads keeps what it read, no more than all of it for each of them.
    SourceChanged when a file is gone.
    """
    total = Stored()
    for rows, cols in _rectangles(grid, blocks):
        total += _under(source, factor, rows, cols)
    whole = _under(source, factor, [(0, grid.height)], [(0, grid.width)])
    return replace(total, n_bytes=min(total.n_bytes, readers * whole.n_bytes)) if whole.kept else total


def stored_window(source: RasterSource, window: Window) -> Stored:
    """The same for one window of the full resolution."""
    return _under(source, 1, [(window.row, window.row_end)], [(window.col, window.col_end)])


def _rectangles(grid: TileGrid, blocks: BlockGrid | ChosenBlocks) -> Iterator[tuple[Spans, Spans]]:
    """Spans of which each pair of a row's and a column's is a block: all blocks at once, or one by one."""
    if isinstance(blocks, ChosenBlocks):
        windows = [block.window(grid) for block in blocks.blocks]
        yield from (([(w.row, w.row_end)], [(w.col, w.col_end)]) for w in windows)
        return
    n_cols = blocks.cols.n_runs
    lefts = [blocks.block(number).window(grid) for number in range(0, len(blocks), n_cols)]
    tops = [blocks.block(number).window(grid) for number in range(n_cols)]
    yield [(w.row, w.row_end) for w in lefts], [(w.col, w.col_end) for w in tops]


def _under(source: RasterSource, factor: int, rows: Spans, cols: Spans) -> Stored:
    total = Stored()
    for member in source.members:
        level = member.source.level(factor)
        inner = _within(rows, member.row // factor, level.height), _within(cols, member.col // factor, level.width)
        total += _under(member.source, factor, *inner)
    return total if source.members else _of_file(source, factor, rows, cols)


def _within(spans: Spans, start: int, size: int) -> Spans:
    """Of spans what lies within `size` pixels from `start`, counted from there."""
    cut = ((max(first - start, 0), min(end - start, size)) for first, end in spans)
    return [(first, end) for first, end in cut if first < end]


def _of_file(source: RasterSource, factor: int, rows: Spans, cols: Spans) -> Stored:
    if source.driver in PICTURES.values():
        return Stored(os.path.getsize(source.path))  # decoded whole
    table = block_table(source, factor)
    if table is None:
        return Stored(n_unknown=_n_touched(source, source.level(factor), rows, cols))
    tables = [table, *([mask] if source.mask == "mask" and (mask := mask_table(source, factor)) else [])]
    return Stored(sum(_bytes(table, rows, cols) for table in tables))


def _bytes(table: BlockTable, rows: Spans, cols: Spans) -> int:
    _, n_rows, n_cols = table.counts.shape
    down = _touches(rows, table.block_height, n_rows)
    across = _touches(cols, table.block_width, n_cols)
    sizes = table.counts.sum(axis=0, dtype=np.float64)  # a hostile size must not overflow
    return int(down @ sizes @ across)


def _n_touched(source: RasterSource, level: Level, rows: Spans, cols: Spans) -> int:
    height, width = level.layout.block_height, level.layout.block_width
    down = _touches(rows, height, -(-level.height // height)).sum()
    across = _touches(cols, width, -(-level.width // width)).sum()
    planes = 1 if level.layout.pixel_interleaved else len(source.bands)
    return int(down * across) * planes


def _touches(spans: Spans, side: int, n: int) -> NDArray[np.float64]:
    """(n,) how many spans touch each of `n` file blocks of `side` pixels."""
    steps = np.zeros(n + 1)
    for first, end in spans:
        steps[first // side] += 1
        steps[-(-end // side)] -= 1
    touches: NDArray[np.float64] = steps.cumsum()[:n]
    return touches
