"""Tiles and blocks of a raster, in integer arithmetic only.

A tile has a *core*, the pixels it answers for, and a *window*, the pixels the model sees. Cores partition the raster.
A block is a rectangle of tiles that is read at once. Grids and blocks are implicit: a raster of 10^7 tiles costs
nothing until its tiles are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from rsqa.errors import UsageError

MAX_BLOCK_PX = 64 << 20
MAX_BLOCK_BYTES = 128 << 20
"""Limits of what is read at once, before it is cut into chips."""
ENOUGH_BYTES = 48 << 20
"""Blocks are larger only where that spares decoding; else they would only take memory, in each slot."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels; all four numbers in pixels."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_end(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, cols) that cut the window out of an array (..., H, W)."""
        return slice(self.row, self.row_end), slice(self.col, self.col_end)

    def within(self, outer: Window) -> Window:
        """The same pixels, counted from the corner of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its place in the grid, the pixels it answers for, the pixels that are read for it."""

    row: int
    """Tile row, not pixel row."""
    col: int
    core: Window
    window: Window


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How a raster is cut into tiles.

    Cores are `tile_px` squares from the upper left corner, smaller at the lower and right edge. All windows of a grid
    have one size: `window_px` a side, or the raster's side where that is smaller (then the reader pads the chip).
    At the edges windows shift inward, so that they show real pixels instead of padding.
    """

    height: int
    """Pixels."""
    width: int
    tile_px: int
    overlap_px: int = 0
    """Pixels that neighbouring windows share; one half lies before the core, the other after it."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile_px) < 1 or self.overlap_px < 0:
            raise ValueError(f"sizes must be positive and the overlap not negative, got {self}")

    @property
    def n_rows(self) -> int:
        return -(-self.height // self.tile_px)

    @property
    def n_cols(self) -> int:
        return -(-self.width // self.tile_px)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of tiles."""
        return self.n_rows, self.n_cols

    @property
    def window_px(self) -> int:
        """Side of a chip, pixels, padding included."""
        return self.tile_px + self.overlap_px

    def __len__(self) -> int:
        return self.n_rows * self.n_cols

    def __iter__(self) -> Iterator[Tile]:
        for row in range(self.n_rows):
            for col in range(self.n_cols):
                yield self.tile(row, col)

    def tile(self, row: int, col: int) -> Tile:
        """The tile at tile row and column; IndexError outside the grid."""
        if not (0 <= row < self.n_rows and 0 <= col < self.n_cols):
            raise IndexError(f"tile ({row}, {col}) is outside the grid of {self.n_rows} x {self.n_cols} tiles")
        top, core_height = self._core(row, self.height)
        left, core_width = self._core(col, self.width)
        window_top, height = self._window(top, self.height)
        window_left, width = self._window(left, self.width)
        core = Window(top, left, core_height, core_width)
        return Tile(row, col, core, Window(window_top, window_left, height, width))

    def _core(self, index: int, extent: int) -> tuple[int, int]:
        """(start, size) of the index-th core along one axis."""
        start = index * self.tile_px
        return start, min(self.tile_px, extent - start)

    def _window(self, core_start: int, extent: int) -> tuple[int, int]:
        """(start, size) of a window along one axis, shifted inward where the raster ends."""
        size = min(self.window_px, extent)
        start = core_start - self.overlap_px // 2
        return max(0, min(start, extent - size)), size


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file stores its pixels."""

    block_height: int
    """Rows of the unit that is decoded at once, pixels."""
    block_width: int
    pixel_interleaved: bool
    """A file block holds all bands, so that reading one band decodes all."""
    striped: bool
    """File blocks span the whole width."""


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles that are read at once: tile rows row0 to row1 - 1, tile columns col0 to col1 - 1."""

    number: int
    row0: int
    row1: int
    col0: int
    col1: int

    def __len__(self) -> int:
        return (self.row1 - self.row0) * (self.col1 - self.col0)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """(row, col) of each tile, row by row."""
        for row in range(self.row0, self.row1):
            for col in range(self.col0, self.col1):
                yield row, col

    def window(self, grid: TileGrid) -> Window:
        """The pixels that its tiles' windows cover together."""
        first = grid.tile(self.row0, self.col0).window
        last = grid.tile(self.row1 - 1, self.col1 - 1).window
        return Window(first.row, first.col, last.row_end - first.row, last.col_end - first.col)


@dataclass(frozen=True, slots=True)
class _Runs:
    """`n` tiles along one axis in `n_runs` runs of whole units; no two runs differ by more than one unit."""

    n: int
    unit: int
    n_runs: int

    def bounds(self, run: int) -> tuple[int, int]:
        """First tile of the run and of the one after it."""
        n_units = -(-self.n // self.unit)
        start, end = run * n_units // self.n_runs, (run + 1) * n_units // self.n_runs
        return start * self.unit, min(end * self.unit, self.n)


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of a grid, numbered row by row; a block is computed when it is asked for."""

    grid: TileGrid
    rows: _Runs
    cols: _Runs

    def __len__(self) -> int:
        return self.rows.n_runs * self.cols.n_runs

    def __iter__(self) -> Iterator[Block]:
        return map(self.block, range(len(self)))

    def block(self, number: int) -> Block:
        """The block of that number; IndexError outside 0 to len - 1."""
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        row, col = divmod(number, self.cols.n_runs)
        return Block(number, *self.rows.bounds(row), *self.cols.bounds(col))


@dataclass(frozen=True, slots=True)
class _Axis:
    """One direction of a grid over a file: rows or columns."""

    extent: int
    """Pixels."""
    n: int
    """Tiles."""
    tile_px: int
    overlap_px: int
    block_px: int
    """Side of a file block."""

    @property
    def unit(self) -> int:
        """Tiles after which an edge of a tile falls on an edge of a file block; 1 where windows overlap anyway."""
        if self.block_px >= self.extent:
            return self.n
        return 1 if self.overlap_px else min(self.n, lcm(self.tile_px, self.block_px) // self.tile_px)

    def span(self, tiles: int) -> int:
        """Pixels that the windows of neighbouring tiles cover together."""
        return min(self.extent, tiles * self.tile_px + self.overlap_px)

    def most(self, px: int, tiles: int) -> int:
        """How many neighbouring tiles are at most so many pixels and tiles; whole units where one fits."""
        fit = self.n if px >= self.extent else (px - self.overlap_px) // self.tile_px
        fit = min(fit, tiles)
        return fit - fit % self.unit if self.unit <= fit < self.n else fit

    def decoded(self, tiles: int) -> float:
        """Pixels decoded per pixel of a run of tiles, on average over its possible places; 1 when it is aligned."""
        if tiles >= self.n or (tiles % self.unit == 0 and not self.overlap_px):
            return 1.0
        return (self.span(tiles) + self.block_px - 1) / (tiles * self.tile_px)

    def runs(self, longest: int) -> _Runs:
        """As few runs as possible of at most `longest` tiles, all about as long."""
        unit = self.unit if longest % self.unit == 0 else 1
        n_units = -(-self.n // unit)
        return _Runs(self.n, unit, -(-n_units // max(1, longest // unit)))


def block_grid(grid: TileGrid, layout: Layout, *, bytes_per_px: int, max_tiles: int | None = None) -> BlockGrid:
    """Gather tiles in blocks that suit the file's layout.

    A block holds at most 64 Mpx, 128 MB of raw pixels and `max_tiles` tiles. Within that, its edges fall on edges of
    file blocks (full-width bands where the file has strips), so that no file block is decoded twice; where no such
    block fits, or windows overlap, the shape is taken that decodes least; of equals one of at most `ENOUGH_BYTES`, and
    the widest of those.
    UsageError when a single tile is too large.

    bytes_per_px: of all bands that are read, mask included.
    """
    rows = _Axis(grid.height, grid.n_rows, grid.tile_px, grid.overlap_px, layout.block_height)
    cols = _Axis(grid.width, grid.n_cols, grid.tile_px, grid.overlap_px, layout.block_width)
    limit_px = min(MAX_BLOCK_PX, MAX_BLOCK_BYTES // bytes_per_px)
    limit_tiles = max_tiles or len(grid)
    shapes = []
    most_rows = 0 if grid.window_px**2 > MAX_BLOCK_PX else min(grid.n_rows, limit_tiles)  # small rasters are padded
    for n_rows in range(1, most_rows + 1):
        if rows.span(n_rows) * cols.span(1) > limit_px:
            break
        for px in (min(limit_px, ENOUGH_BYTES // bytes_per_px), limit_px):
            n_cols = cols.most(px // rows.span(n_rows), limit_tiles // n_rows)
            if n_cols >= 1:
                shapes.append((rows.decoded(n_rows) * cols.decoded(n_cols), px == limit_px, -n_cols, -n_rows))
    if not shapes:
        raise UsageError(
            f"a tile of {grid.window_px} px is more than can be read at once ({MAX_BLOCK_PX >> 20} Mpx and "
            f"{MAX_BLOCK_BYTES >> 20} MB); build overviews (gdaladdo) or choose smaller tiles or a finer --gsd"
        )
    _, _, minus_cols, minus_rows = min(shapes)
    return BlockGrid(grid, rows.runs(-minus_rows), cols.runs(-minus_cols))
