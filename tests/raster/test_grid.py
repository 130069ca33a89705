from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import UsageError
from rsqa.raster import grid as grid_module
from rsqa.raster.grid import ENOUGH_BYTES, MAX_BLOCK_BYTES, MAX_BLOCK_PX, Layout, TileGrid, Window, block_grid

sides = st.integers(1, 90)


@st.composite
def grids(draw):
    return TileGrid(draw(sides), draw(sides), draw(st.integers(1, 40)), draw(st.integers(0, 20)))


@st.composite
def layouts(draw, side):
    return Layout(draw(side), draw(side), draw(st.booleans()), draw(st.booleans()))


@given(grids())
def test_every_pixel_has_exactly_one_owner(grid):
    owners = np.zeros((grid.height, grid.width), int)
    for tile in grid:
        owners[tile.core.slices] += 1
    assert (owners == 1).all()


@given(grids())
def test_windows_have_one_size_and_show_real_pixels_around_their_core(grid):
    size = min(grid.window_px, grid.height), min(grid.window_px, grid.width)
    for tile in grid:
        window, core = tile.window, tile.core
        assert (window.height, window.width) == size
        assert 0 <= window.row <= core.row
        assert core.row_end <= window.row_end <= grid.height
        assert 0 <= window.col <= core.col
        assert core.col_end <= window.col_end <= grid.width


@given(grids())
def test_iteration_is_row_major_and_complete(grid):
    assert [(t.row, t.col) for t in grid] == [(r, c) for r in range(grid.n_rows) for c in range(grid.n_cols)]
    assert len(grid) == grid.n_rows * grid.n_cols
    assert grid.shape == (grid.n_rows, grid.n_cols)


def test_overlap_is_shared_by_neighbours():
    grid = TileGrid(1000, 1000, tile_px=100, overlap_px=30)
    left, right = grid.tile(3, 4).window, grid.tile(3, 5).window
    assert left.width == right.width == 130
    assert left.col_end - right.col == 30
    assert left.col == 400 - 15


def test_without_overlap_inner_windows_are_their_cores():
    grid = TileGrid(1000, 777, 100)
    assert all(t.window == t.core for t in grid if t.row < 9 and t.col < 7)
    assert grid.tile(9, 7).window == Window(900, 677, 100, 100)
    assert grid.tile(9, 7).core == Window(900, 700, 100, 77)


@pytest.mark.parametrize(("row", "col"), [(-1, 0), (0, -1), (10, 0), (0, 8)])
def test_no_tile_outside(row, col):
    with pytest.raises(IndexError):
        TileGrid(1000, 777, 100).tile(row, col)


@pytest.mark.parametrize("sizes", [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (1, 1, 1, -1)])
def test_nonsense_grid_cannot_be_built(sizes):
    with pytest.raises(ValueError, match="positive"):
        TileGrid(*sizes)


@given(grids(), layouts(st.integers(1, 100)), st.integers(1, 8), st.none() | st.integers(1, 50))
def test_every_tile_is_in_exactly_one_block(grid, layout, bytes_per_px, max_tiles):
    blocks = block_grid(grid, layout, bytes_per_px=bytes_per_px, max_tiles=max_tiles)
    tiles = [tile for block in blocks for tile in block.tiles()]
    assert sorted(tiles) == [(t.row, t.col) for t in grid]
    for number, block in enumerate(blocks):
        assert block == blocks.block(number)
        assert block.number == number
        assert len(block) == len(list(block.tiles())) <= (max_tiles or len(grid))
        outer = block.window(grid)
        covered = np.zeros((grid.height, grid.width), bool)
        for tile in block.tiles():
            covered[grid.tile(*tile).window.slices] = True
        rows, cols = np.nonzero(covered)
        assert outer == Window(rows[0], cols[0], rows[-1] + 1 - rows[0], cols.max() + 1 - cols.min())


big = st.integers(1, 250_000)


@given(big, big, st.sampled_from([28, 224, 256, 448, 450, 512, 1000]), st.sampled_from([0, 64]), st.data())
def test_blocks_of_large_rasters_keep_the_limits_and_are_even(height, width, tile_px, overlap_px, data):
    grid = TileGrid(height, width, tile_px, overlap_px)
    side = st.sampled_from([1, 3, 16, 128, 256, 512, 1024, width])
    layout = data.draw(layouts(side))
    bytes_per_px = data.draw(st.integers(1, 13))
    blocks = block_grid(grid, layout, bytes_per_px=bytes_per_px)
    for number in {0, len(blocks) // 2, len(blocks) - 1}:
        window = blocks.block(number).window(grid)
        assert window.height * window.width <= MAX_BLOCK_PX
        assert window.height * window.width * bytes_per_px <= MAX_BLOCK_BYTES
    for runs in (blocks.rows, blocks.cols):
        lengths = [end - start for start, end in map(runs.bounds, range(runs.n_runs))]
        assert max(lengths[:-1], default=lengths[-1]) - min(lengths[:-1], default=lengths[-1]) <= runs.unit


@pytest.mark.parametrize(
    ("size", "tile_px", "block", "bytes_per_px"),
    [(30_000, 448, 512, 3), (30_000, 448, 256, 3), (10_000, 512, 512, 6), (200_000, 448, 512, 4), (9_999, 224, 512, 3)],
)
def test_no_file_block_is_decoded_twice_without_overlap(size, tile_px, block, bytes_per_px):
    grid = TileGrid(size, size, tile_px)
    layout = Layout(block, block, pixel_interleaved=True, striped=False)
    for item in block_grid(grid, layout, bytes_per_px=bytes_per_px):
        window = item.window(grid)
        # a shifted edge window may reach back into a neighbour's file block; the cores never do
        core_end = grid.tile(item.row1 - 1, item.col1 - 1).core
        assert grid.tile(item.row0, item.col0).core.row % block == 0
        assert grid.tile(item.row0, item.col0).core.col % block == 0
        assert core_end.row_end % block == 0 or core_end.row_end == size
        assert core_end.col_end % block == 0 or core_end.col_end == size
        assert window.height * window.width * bytes_per_px <= MAX_BLOCK_BYTES


def decoded(grid, runs, block, vertical):
    """Pixels of file blocks that the runs of one direction touch, per pixel; and how often one is touched at most."""
    extent = grid.height if vertical else grid.width
    times = np.zeros(-(-extent // block), int)
    for start, end in map(runs.bounds, range(runs.n_runs)):
        first, last = (grid.tile(i, 0).window if vertical else grid.tile(0, i).window for i in (start, end - 1))
        low, high = (first.row, last.row_end) if vertical else (first.col, last.col_end)
        times[low // block : -(-high // block)] += 1
    sizes = np.minimum(block, extent - block * np.arange(len(times)))
    return (times * sizes).sum() / extent, times.max()


@pytest.mark.parametrize(
    ("size", "tile_px", "overlap_px", "block", "bytes_per_px"),
    [(10_000, 448, 64, 512, 3), (30_000, 512, 64, 256, 3), (30_000, 448, 128, 1024, 6), (60_000, 448, 64, 512, 4)],
)
def test_with_overlap_hardly_more_is_decoded_than_by_the_best_blocks(size, tile_px, overlap_px, block, bytes_per_px):
    grid = TileGrid(size, size, tile_px, overlap_px)
    layout = Layout(block, block, pixel_interleaved=True, striped=False)
    blocks = block_grid(grid, layout, bytes_per_px=bytes_per_px)
    (rows, twice), (cols, _) = decoded(grid, blocks.rows, block, True), decoded(grid, blocks.cols, block, False)
    assert twice <= 2
    costs = {n: decoded(grid, grid_module._Runs(grid.n_rows, 1, -(-grid.n_rows // n)), block, True)[0]
             for n in range(1, grid.n_rows + 1)}  # fmt: skip
    most = min(MAX_BLOCK_PX, MAX_BLOCK_BYTES // bytes_per_px)
    side = {n: min(size, n * tile_px + overlap_px) for n in costs}
    assert rows * cols < 1.02 * min(costs[n] * costs[m] for n in costs for m in costs if side[n] * side[m] <= most)


@pytest.mark.parametrize(("rows_per_strip", "width"), [(1, 30_000), (3, 30_000), (16, 60_000)])
def test_strips_are_read_in_full_width_bands(rows_per_strip, width):
    grid = TileGrid(20_000, width, 448)
    blocks = block_grid(grid, Layout(rows_per_strip, width, True, True), bytes_per_px=3)
    assert all((b.col0, b.col1) == (0, grid.n_cols) for b in blocks)


def test_a_narrow_raster_is_read_in_tall_blocks():
    grid = TileGrid(200_000, 1000, 448)
    blocks = block_grid(grid, Layout(512, 512, True, False), bytes_per_px=3)
    assert len(blocks) < 16
    assert all(block.window(grid).height * 1000 * 3 <= ENOUGH_BYTES for block in blocks)


def test_a_block_is_larger_than_enough_only_where_that_decodes_less():
    """Strips as wide as the raster: a band of tiles is 60 MB, and half of it would decode every strip twice."""
    grid = TileGrid(20_000, 45_000, 448)
    blocks = block_grid(grid, Layout(1, 45_000, True, True), bytes_per_px=3)
    windows = [block.window(grid) for block in blocks]
    assert {window.width for window in windows} == {45_000}
    assert min(window.height for window in windows) * 45_000 * 3 > ENOUGH_BYTES


def test_small_blocks_on_request():
    grid = TileGrid(30_000, 30_000, 448)
    layout = Layout(512, 512, True, False)
    assert max(len(b) for b in block_grid(grid, layout, bytes_per_px=3, max_tiles=1)) == 1
    assert max(len(b) for b in block_grid(grid, layout, bytes_per_px=3, max_tiles=16)) <= 16


def test_a_tile_that_alone_is_too_large_is_refused():
    with pytest.raises(UsageError, match="overviews"):
        block_grid(TileGrid(50_000, 50_000, 9000), Layout(512, 512, True, False), bytes_per_px=3)


def test_ten_million_tiles_cost_nothing():
    grid = TileGrid(1_400_000, 1_400_000, 448)
    blocks = block_grid(grid, Layout(512, 512, True, False), bytes_per_px=3)
    assert len(grid) == 3125**2
    assert blocks.block(len(blocks) - 1).col1 == grid.n_cols
