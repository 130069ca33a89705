"""Files that are broken, absent in part, or changed while they are read."""

from __future__ import annotations

import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from damaged_rasters import noisy, patch, spoil, table_entry
from truth_rasters import TILED, UTM, assert_chips_equal, assert_masked, places, read_all

from rsqa.errors import SourceChanged
from rsqa.raster.describe import open_source
from rsqa.raster.grid import Block, TileGrid, block_grid
from rsqa.raster.raw import block_table
from rsqa.raster.read import read_block
from rsqa.raster.stretch import Stretch, fixed_stretch
from rsqa.raster.tiff import read_block_table, read_directories


def assert_only_broken(path, pixels, broken_blocks, tile_px=200):
    """Exactly the tiles whose windows touch a broken file block carry the error; all others are right."""
    source = open_source(path, name="a.tif")
    found, grid = read_all(source, tile_px)
    n_broken = 0
    for (row, col), (chip, valid, valid_frac, error) in found.items():
        window = grid.tile(row, col).window
        rows = range(window.row // 256, -(-window.row_end // 256))
        cols = range(window.col // 256, -(-window.col_end // 256))
        if any((r, c) in broken_blocks for r in rows for c in cols):
            n_broken += 1
            assert error == "block_unreadable"
            assert (chip.any(), valid.any(), np.isnan(valid_frac)) == (False, False, True)
        else:
            assert (error, valid_frac) == (None, 1.0)
            np.testing.assert_array_equal(chip, pixels[:, *window.slices])
    assert 0 < n_broken < len(found)
    return source


def test_colours_under_a_whole_mask_are_not_decoded(write):
    """A block that can't be decoded shows it: where the mask covers all that is read at once, nobody notices."""
    pixels, valid = (
        np.random.default_rng(0).integers(0, 256, (3, 512, 1024), dtype=np.uint8),
        np.ones((512, 1024), bool),
    )
    valid[:, :512] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(pixels, **TILED)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    spoil(path, (0, 0, 0))
    source, grid = open_source(path, name="a.tif"), TileGrid(512, 1024, 256)
    masked, shown = (read_block(source, grid, Block(0, 0, 2, col, col + 2), Stretch(), 1).chips() for col in (0, 2))
    assert (masked.valid_frac.tolist(), list(masked.error), masked.pixels.any()) == ([0.0] * 4, [None] * 4, False)
    assert shown.valid_frac.tolist() == [1.0] * 4
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.ones_like(valid))
    source = open_source(path, name="a.tif")
    seen = read_block(source, grid, Block(0, 0, 2, 0, 2), Stretch(), 1).chips()
    assert list(seen.error) == ["block_unreadable", None, None, None]  # the truth of this test: it is broken


@pytest.mark.parametrize("tile_px", [128, 200, 256])
def test_a_corrupt_block_costs_only_its_tiles(write, tile_px):
    path, pixels = noisy(write)
    spoil(path, (0, 1, 1))
    assert_only_broken(path, pixels, {(1, 1)}, tile_px)


def test_a_corrupt_block_of_one_band(write):
    path, pixels = noisy(write, interleave="band")
    spoil(path, (2, 1, 1))
    assert_only_broken(path, pixels, {(1, 1)})


@pytest.mark.parametrize("kind", ["colour", "grey", "float"])
def test_a_corrupt_block_among_nodata_keeps_the_mask_of_the_others(write, kind):
    pixels = np.random.default_rng(0).integers(1, 255, (1 if kind == "grey" else 3, 1024, 1024), dtype=np.uint8)
    pixels[:, 512:, :300] = 0
    truth, stretch = pixels, Stretch()
    if kind == "float":
        pixels, stretch = pixels.astype(np.float32), fixed_stretch("0,255")
    path = write(pixels, nodata=0, **TILED)
    spoil(path, (0, 1, 1))
    found, grid = read_all(open_source(path, name="a.tif"), 128, stretch=stretch)
    statuses = Counter()
    for (row, col), (chip, valid, valid_frac, error) in found.items():
        expected = np.broadcast_to(truth[:, *grid.tile(row, col).window.slices], (3, 128, 128))
        if 2 <= row < 4 and 2 <= col < 4:
            assert (error, chip.any(), valid.any()) == ("block_unreadable", False, False)
        else:
            assert error is None
            np.testing.assert_array_equal(chip, expected)
            np.testing.assert_array_equal(valid, expected[0] != 0)
            assert valid_frac == pytest.approx((expected[0] != 0).mean())
        statuses[error, bool(valid.any()), bool(valid.all())] += 1
    assert statuses == {
        ("block_unreadable", False, False): 4, (None, False, False): 8, (None, True, False): 4, (None, True, True): 48,
    }  # fmt: skip


def test_a_truncated_file_is_known_before_it_is_read(write):
    path, pixels = noisy(write)
    table = read_block_table(path, read_directories(path)[0])
    cut = int(np.sort(table.offsets.ravel())[7]) + 10
    with open(path, "r+b") as file:
        file.truncate(cut)
    broken = {tuple(place) for place in np.argwhere(table.offsets[0] + table.counts[0] > cut).tolist()}
    source = assert_only_broken(path, pixels, broken)
    assert source.blocks.past_end == len(broken) == 9


def test_one_missing_byte_is_one_broken_block(write):
    path, pixels = noisy(write)
    size = Path(path).stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - 1)
    assert_only_broken(path, pixels, {(3, 3)})


def test_an_offset_past_the_end(write):
    path, pixels = noisy(write)
    patch(path, table_entry(path, 5, what="offset"), struct.pack("<I", 0xFFFFFF00))
    assert assert_only_broken(path, pixels, {(1, 1)}).blocks.past_end == 1


def test_a_block_without_size_is_an_error_although_gdal_reads_zeros(write):
    path, pixels = noisy(write)
    patch(path, table_entry(path, 5, what="count"), struct.pack("<I", 0))
    with rasterio.open(path) as dataset:
        assert not dataset.read(1)[256:512, 256:512].any()  # what would be believed otherwise
    assert assert_only_broken(path, pixels, {(1, 1)}).blocks.odd == 1


def test_a_size_past_the_end_is_a_hint_only(write):
    path, pixels = noisy(write)
    patch(path, table_entry(path, 5, what="count"), struct.pack("<I", 0xFFFFFFFF))
    source = open_source(path, name="a.tif")
    assert source.blocks.past_end == 1
    found, grid = read_all(source, 256)
    assert_chips_equal(found, grid, pixels)


def test_absent_blocks_are_nodata(write, tmp_path):
    path = str(tmp_path / "sparse.tif")
    pixels = np.zeros((3, 1024, 1024), np.uint8)
    pixels[:, 256:512, 512:768] = places(256, 256)
    pixels[0, 256:512, 512:768] |= 1
    with rasterio.open(
        path, "w", driver="GTiff", width=1024, height=1024, count=3, dtype="uint8", crs="EPSG:32633",
        transform=UTM["transform"], sparse_ok=True, **TILED,
    ) as dataset:  # fmt: skip
        dataset.write(pixels[:, 256:512, 512:768], window=rasterio.windows.Window(512, 256, 256, 256))
    source = open_source(path, name="sparse.tif")
    assert (source.blocks.sparse, source.blocks.blocks) == (15, 16)
    valid = np.zeros((1024, 1024), bool)
    valid[256:512, 512:768] = True
    assert_masked(*read_all(source, 200), pixels, valid)


def test_a_sparse_file_of_any_size_is_not_read(tmp_path, monkeypatch):
    path = str(tmp_path / "sparse.tif")
    with rasterio.open(
        path, "w", driver="GTiff", width=30_000, height=30_000, count=3, dtype="uint8", crs="EPSG:32633",
        transform=UTM["transform"], sparse_ok=True, **TILED,
    ):  # fmt: skip
        pass
    monkeypatch.setattr("rsqa.raster.mosaic.read_raw", None)  # reading would fail
    started = time.perf_counter()
    source = open_source(path, name="sparse.tif")
    grid = TileGrid(30_000, 30_000, 448)
    n = 0
    for block in block_grid(grid, source.layout, bytes_per_px=source.bytes_per_px):
        sheet = read_block(source, grid, block, Stretch(), 1)
        assert sheet.pixels is None
        assert not sheet.chips().valid_frac.any()
        n += len(sheet)
    assert n == 67**2
    assert time.perf_counter() - started < 10


def test_a_file_written_to_while_it_is_read_is_noticed(write):
    path = write(places(300, 300))
    source = open_source(path, name="a.tif")
    read_all(source, 100)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(places(300, 300)[::-1])
    with pytest.raises(SourceChanged):
        read_all(source, 100)


def test_a_file_that_vanishes_is_noticed(write):
    path = write(places(300, 300))
    source = open_source(path, name="a.tif")
    Path(path).unlink()
    with pytest.raises(SourceChanged, match="gone"):
        read_all(source, 100)


def test_a_file_that_can_no_longer_be_opened_is_noticed(write):
    path = write(places(300, 300))
    source = open_source(path, name="a.tif")
    table_is_cached = block_table(source, 1)
    assert table_is_cached is not None
    Path(path).write_bytes(b"gone")
    with pytest.raises(SourceChanged, match=r"a\.tif"):
        read_all(source, 100)
