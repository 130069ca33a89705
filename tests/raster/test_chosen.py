"""Blocks of some tiles of a grid hold those tiles and no others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsqa.raster.chosen import chosen_blocks, count, packed, runs_of
from rsqa.raster.grid import Layout, TileGrid, block_grid

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


def chosen(wanted: np.ndarray, max_tiles: int = 12):
    grid = TileGrid(wanted.shape[0] * 10, wanted.shape[1] * 10, 10)
    blocks = block_grid(grid, Layout(20, 20, True, False), bytes_per_px=3, max_tiles=max_tiles)
    return blocks, chosen_blocks(blocks, runs_of(wanted))


@given(wanted=MASKS)
def test_blocks_of_chosen_tiles_hold_each_once_and_no_other(wanted):
    whole, found = chosen(wanted)
    times = np.zeros(wanted.shape, int)
    for number in range(len(found)):
        block = found.block(number)
        assert block.number == number
        times[block.row0 : block.row1, block.col0 : block.col1] += 1
        assert any(b.row0 <= block.row0 and block.row1 <= b.row1 and b.col0 <= block.col0 and block.col1 <= b.col1
                   for b in whole)  # fmt: skip
    assert (times == wanted).all()
    assert count(runs_of(wanted)) == wanted.sum()


@given(wanted=MASKS.filter(np.any), most_tiles=st.integers(12, 30))
def test_packed_blocks_are_all_there_in_order_and_few(wanted, most_tiles):
    _, found = chosen(wanted)
    parts = list(packed(found, most_tiles))
    assert [number for part in parts for number in part] == list(range(len(found)))
    sizes = [sum(len(found.block(number)) for number in part) for part in parts]
    assert max(sizes) <= most_tiles
    assert all(a + len(found.block(part.start)) > most_tiles for a, part in zip(sizes, parts[1:], strict=False))


def test_a_full_rectangle_is_one_block():
    wanted = np.zeros((8, 8), bool)
    wanted[2:5, 1:7] = True
    _, found = chosen(wanted, max_tiles=64)
    assert [(b.row0, b.row1, b.col0, b.col1) for b in found.blocks] == [(2, 5, 1, 7)]
