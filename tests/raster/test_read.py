from __future__ import annotations

import struct
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling
from truth_rasters import TILED, UTM, places, read_all

from rsqa.errors import SourceChanged
from rsqa.raster.bands import Masked
from rsqa.raster.describe import open_source
from rsqa.raster.grid import Block, TileGrid, block_grid
from rsqa.raster.raw import block_table
from rsqa.raster.read import choose_level, read_block, shown
from rsqa.raster.stretch import Stretch, fit_stretch, fixed_stretch
from rsqa.raster.tiff import read_block_table, read_directories


def assert_chips_equal(found, grid, truth):
    """truth: (3, H, W) of the whole raster; every chip must be its window, padded with invalid zeros."""
    for (row, col), (pixels, valid, valid_frac, error) in found.items():
        window = grid.tile(row, col).window
        expected = np.zeros_like(pixels)
        expected[:, : window.height, : window.width] = truth[:, *window.slices]
        np.testing.assert_array_equal(pixels, expected)
        assert valid[: window.height, : window.width].all()
        assert valid.sum() == window.height * window.width
        assert (valid_frac, error) == (1.0, None)


LAYOUTS = {
    "strips": {},
    "one-row strips": {"blockysize": 1, "compress": "deflate"},
    "tiled": TILED,
    "planar": TILED | {"interleave": "band"},
    "planar strips": {"interleave": "band", "compress": "lzw"},
    "bigtiff": TILED | {"bigtiff": "yes"},
    "big endian": TILED | {"endianness": "big"},
    "lzw": TILED | {"compress": "lzw", "predictor": 2},
    "zstd": TILED | {"compress": "zstd"},
    "packbits": TILED | {"compress": "packbits"},
    "lerc": TILED | {"compress": "lerc"},
    "webp": TILED | {"compress": "webp", "webp_lossless": "yes"},
    "cog": {"driver": "COG", "blocksize": 256, "compress": "deflate", "overviews": "none"},
}


@pytest.mark.parametrize("profile", LAYOUTS.values(), ids=LAYOUTS)
def test_every_chip_is_its_window_in_every_layout(write, profile):
    pixels = places(700, 1000)
    source = open_source(write(pixels, **profile), name="a.tif")
    found, grid = read_all(source, 224)
    assert_chips_equal(found, grid, pixels)


@pytest.mark.parametrize("max_tiles", [1, 3, None])
@pytest.mark.parametrize("overlap_px", [0, 31, 64])
def test_blocks_and_overlap_change_no_pixel(write, overlap_px, max_tiles):
    pixels = places(530, 611)
    source = open_source(write(pixels, **TILED), name="a.tif")
    found, grid = read_all(source, 112, overlap_px=overlap_px, max_tiles=max_tiles)
    assert_chips_equal(found, grid, pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (50, 60), (223, 224), (224, 225), (5000, 1)])
def test_rasters_smaller_than_a_tile_are_padded(write, shape):
    pixels = places(*shape)
    source = open_source(write(pixels), name="a.tif")
    found, grid = read_all(source, 224)
    assert_chips_equal(found, grid, pixels)


def test_jpeg_is_read_within_its_loss(write):
    rows, cols = np.indices((512, 512))
    pixels = np.stack([rows // 2, cols // 2, (rows + cols) // 4]).astype(np.uint8)
    path = write(pixels, **TILED | {"compress": "jpeg", "photometric": "ycbcr"})
    found, grid = read_all(open_source(path, name="a.tif"), 256)
    for (row, col), (chip, *_) in found.items():
        difference = chip.astype(int) - pixels[:, *grid.tile(row, col).window.slices]
        assert np.abs(difference).mean() < 3


def test_grey_fills_three_bands(write):
    pixels = places(300, 300)[:1]
    found, grid = read_all(open_source(write(pixels), name="a.tif"), 100)
    assert_chips_equal(found, grid, np.repeat(pixels, 3, axis=0))


def test_palette_is_expanded(write):
    index = (np.indices((100, 100)).sum(axis=0) % 4).astype(np.uint8)
    path = write(index[None], nodata=3)
    colours = {0: (10, 20, 30, 255), 1: (40, 50, 60, 255), 2: (70, 80, 90, 255), 3: (1, 1, 1, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, colours)
    source = open_source(path, name="a.tif")
    assert source.palette
    (pixels, valid, valid_frac, _) = read_all(source, 100)[0][0, 0]
    table = np.array([(10, 20, 30), (40, 50, 60), (70, 80, 90), (0, 0, 0)], np.uint8)
    np.testing.assert_array_equal(pixels, table[index].transpose(2, 0, 1))
    np.testing.assert_array_equal(valid, index != 3)
    assert valid_frac == pytest.approx((index != 3).mean())


def masked_truth(pixels, valid):
    return np.where(valid, pixels, 0)


def assert_masked(found, grid, truth, valid):
    for (row, col), (pixels, chip_valid, valid_frac, error) in found.items():
        tile = grid.tile(row, col)
        np.testing.assert_array_equal(pixels, masked_truth(truth, valid)[:, *tile.window.slices])
        np.testing.assert_array_equal(chip_valid, valid[tile.window.slices])
        assert valid_frac == pytest.approx(valid[tile.core.slices].mean())
        assert error is None


def hole(height, width):
    valid = np.ones((height, width), bool)
    valid[40:150, 90:260] = False
    return valid


def test_alpha_zero_is_invalid(write):
    pixels, valid = places(300, 330), hole(300, 330)
    alpha = np.where(valid, 255, 0).astype(np.uint8)[None]
    path = write(np.concatenate([pixels, alpha]), photometric="rgb", alpha="yes")
    source = open_source(path, name="a.tif")
    assert (source.mask, source.bands, source.alpha_band) == ("alpha", (1, 2, 3), 4)
    assert_masked(*read_all(source, 100), pixels, valid)


def test_grey_with_alpha(write):
    pixels, valid = places(300, 330)[:1], hole(300, 330)
    alpha = np.where(valid, 255, 0).astype(np.uint8)[None]
    path = write(np.concatenate([pixels, alpha]), alpha="yes")
    source = open_source(path, name="a.tif")
    assert (source.mask, source.bands) == ("alpha", (1,))
    assert_masked(*read_all(source, 100), np.repeat(pixels, 3, axis=0), valid)


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_the_file(write, internal):
    pixels, valid = places(300, 330), hole(300, 330)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write(pixels)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    assert Path(path + ".msk").exists() != internal
    source = open_source(path, name="a.tif")
    assert (source.mask, source.sidecars) == ("mask", not internal)
    assert_masked(*read_all(source, 100), pixels, valid)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_nodata_is_invalid_where_all_bands_have_it(write, dtype):
    valid = hole(300, 330)
    pixels = places(300, 330).astype(dtype)
    pixels[0] = np.maximum(pixels[0], 1)  # no other pixel is nodata in all bands
    pixels[:, ~valid] = 0
    source = open_source(write(pixels, nodata=0), name="a.tif")
    assert source.mask == "nodata"
    identity = Stretch() if dtype == "uint8" else Stretch((0.0,), (255.0,))
    assert_masked(*read_all(source, 100, stretch=identity), pixels.astype(np.uint8), valid)


def test_a_nodata_value_that_no_pixel_can_have_masks_nothing(write):
    path = write(places(100, 100))
    header = Path(path)
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = 255
    header.write_bytes(header.read_bytes().replace(b"255\0", b"-99\0"))
    assert open_source(path, name="a.tif").mask == "none"


def test_all_nodata(write):
    source = open_source(write(np.zeros((3, 300, 300), np.uint8), nodata=0), name="a.tif")
    for pixels, valid, valid_frac, error in read_all(source, 100)[0].values():
        assert not pixels.any()
        assert not valid.any()
        assert (valid_frac, error) == (0.0, None)


def test_nan_and_infinity_are_invalid_and_never_reach_a_chip(write):
    pixels = places(300, 330).astype(np.float32)
    valid = hole(300, 330)
    pixels[0, ~valid] = np.nan
    pixels[1, 200:210, 0:10] = np.inf
    pixels[2, 210:220, 0:10] = -np.inf
    valid[200:220, 0:10] = False
    source = open_source(write(pixels), name="a.tif")
    truth = np.nan_to_num(pixels, nan=0, posinf=0, neginf=0)
    assert_masked(*read_all(source, 100, stretch=Stretch((0.0,), (255.0,))), truth.astype(np.uint8), valid)
    fitted = read_all(source, 100)[0]
    assert all(np.isfinite(chip).all() for chip, *_ in fitted.values())


def test_all_nan_with_nan_nodata(write):
    source = open_source(write(np.full((1, 90, 90), np.nan, np.float32), nodata=np.nan), name="a.tif")
    (pixels, valid, valid_frac, _) = read_all(source, 100)[0][0, 0]
    assert (pixels.any(), valid.any(), valid_frac) == (False, False, 0.0)


def test_chosen_bands_are_read_in_their_order(write):
    pixels = np.concatenate([places(200, 200), places(200, 200)[::-1]])
    source = open_source(write(pixels), name="a.tif", bands=("6", "2", "1"))
    found, grid = read_all(source, 100)
    assert_chips_equal(found, grid, pixels[[5, 1, 0]])


# ---- the mask band


@pytest.mark.parametrize("profile", [TILED, TILED | {"interleave": "band"}], ids=["pixel", "planar"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_with_a_masked_class_are_not_valid(write, profile, dtype):
    pixels = np.concatenate([places(500, 600), np.random.default_rng(0).integers(0, 12, (1, 500, 600), np.uint8)])
    path = write(pixels.astype(dtype), photometric="minisblack", nodata=None, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], rasterio.enums.Resampling.average)
    source = open_source(path, name="a.tif", masked=Masked("4", (3, 8, 9)))
    assert source.overviews == ()  # the mean of water and cloud is neither
    found, grid = read_all(source, 200, stretch=Stretch() if dtype == np.uint8 else fixed_stretch("0,255"))
    assert_masked(found, grid, pixels[:3], ~np.isin(pixels[3], (3, 8, 9)))


def test_an_absent_block_of_the_mask_band_is_zeros_and_a_broken_one_an_error(write):
    pixels = np.concatenate([np.full((3, 512, 512), 7, np.uint8), np.full((1, 512, 512), 4, np.uint8)])
    path = write(pixels, photometric="minisblack", interleave="band", **TILED)
    directory = read_directories(path)[0]
    table = read_block_table(path, directory)
    sizes, offsets = directory.entries[325], directory.entries[324]
    for entry, block in ((sizes, 12), (offsets, 12), (sizes, 15)):  # absent: neither; broken: a place without a size
        assert (entry.type, entry.count, table.offsets.size) == (4, 16, 16)
        patch(path, entry.start + 4 * block, bytes(4))
    source = open_source(path, name="a.tif", masked=Masked("4", (0,)))
    found, _ = read_all(source, 256, stretch=Stretch())
    shares = {tile: (valid_frac, error) for tile, (_, _, valid_frac, error) in found.items()}
    assert shares[0, 0] == (0.0, None)
    assert shares[0, 1] == shares[1, 0] == (1.0, None)
    assert shares[1, 1][1] == "block_unreadable"


# ---- overviews


@pytest.mark.parametrize("shape", [(1200, 1360), (1197, 1355)])
def test_an_overview_shows_the_same_tiles(write, shape):
    coarse = places(150, 170)
    path = write(coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]], **TILED)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.nearest)
    source = open_source(path, name="a.tif")
    assert source.overviews == (2, 4, 8)
    factor = choose_level(source, 448, 56)
    assert factor == 8
    found, grid = read_all(source, 448, factor=factor)
    assert grid.shape == TileGrid(*shape, 448).shape
    if shape == (1200, 1360):
        assert_chips_equal(found, grid, coarse)
    for (row, col), (pixels, *_) in found.items():  # each pixel within one of where it should be
        expected = coarse[:, *grid.tile(row, col).window.slices].astype(int)
        assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize(
    ("tile_px", "side_px", "overlap_px", "factor"),
    [(448, 448, 0, 1), (448, 224, 0, 2), (448, 225, 0, 1), (448, 112, 0, 4), (448, 1, 0, 8), (446, 100, 0, 2),
     (447, 10, 0, 1), (448, 100, 6, 2), (448, 100, 64, 4)],
)  # fmt: skip
def test_the_coarsest_fitting_overview_is_chosen(write, tile_px, side_px, overlap_px, factor):
    path = write(places(1024, 1024), **TILED)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8])
    assert choose_level(open_source(path, name="a.tif"), tile_px, side_px, overlap_px) == factor


@pytest.mark.parametrize("internal", [True, False])
def test_masks_are_honoured_in_overviews(write, internal):
    valid = np.zeros((64, 64), bool)
    valid[10:40, 20:50] = True
    pixels = places(64, 64).repeat(8, axis=1).repeat(8, axis=2)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write(pixels, **TILED)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid.repeat(8, axis=0).repeat(8, axis=1))
        with rasterio.Env(TIFF_USE_OVR=not internal), rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.nearest)
    assert Path(path + ".ovr").exists() != internal
    source = open_source(path, name="a.tif")
    found, grid = read_all(source, 256, factor=4)
    assert_masked(found, grid, places(64, 64).repeat(2, axis=1).repeat(2, axis=2), valid.repeat(2, 0).repeat(2, 1))


def test_overviews_beside_the_file(write):
    path = write(places(64, 64).repeat(8, axis=1).repeat(8, axis=2), **TILED)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([8], Resampling.nearest)
    assert Path(path + ".ovr").exists()
    source = open_source(path, name="a.tif")
    assert (source.overviews, source.sidecars) == ((8,), True)
    found, grid = read_all(source, 256, factor=8)
    assert_chips_equal(found, grid, places(64, 64))
    assert block_table(source, 8) is not None


# ---- damage


def table_entry(path, number, *, what):
    """Byte position of a tile's offset or size in a classic little-endian TIFF."""
    entry = read_directories(path)[0].entries[{"offset": 324, "count": 325}[what]]
    assert entry.type == 4
    return entry.start + 4 * number


def patch(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def noisy(write, name="a.tif", **profile):
    """1024 x 1024 noise in 4 x 4 file blocks; sizes of noise blocks need 4 bytes each."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 1024, 1024), dtype=np.uint8)
    return write(pixels, name, **TILED | profile), pixels


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
    table = read_block_table(path, read_directories(path)[0])
    patch(path, int(table.offsets[0, 0, 0]) + 200, b"\xff" * 64)
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
    table = read_block_table(path, read_directories(path)[0])
    patch(path, int(table.offsets[0, 1, 1]) + 200, b"\xff" * 64)
    assert_only_broken(path, pixels, {(1, 1)}, tile_px)


def test_a_corrupt_block_of_one_band(write):
    path, pixels = noisy(write, interleave="band")
    table = read_block_table(path, read_directories(path)[0])
    patch(path, int(table.offsets[2, 1, 1]) + 200, b"\xff" * 64)
    assert_only_broken(path, pixels, {(1, 1)})


@pytest.mark.parametrize("kind", ["colour", "grey", "float"])
def test_a_corrupt_block_among_nodata_keeps_the_mask_of_the_others(write, kind):
    pixels = np.random.default_rng(0).integers(1, 255, (1 if kind == "grey" else 3, 1024, 1024), dtype=np.uint8)
    pixels[:, 512:, :300] = 0
    truth, stretch = pixels, Stretch()
    if kind == "float":
        pixels, stretch = pixels.astype(np.float32), fixed_stretch("0,255")
    path = write(pixels, nodata=0, **TILED)
    table = read_block_table(path, read_directories(path)[0])
    patch(path, int(table.offsets[0, 1, 1]) + 200, b"\xff" * 64)
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


def test_stretching_a_wide_file_takes_little_more_than_the_file(write):
    pixels = np.random.default_rng(0).integers(0, 3000, (3, 224, 40_000), dtype=np.uint16)
    source = open_source(write(pixels, blockysize=8), name="a.tif")
    grid = TileGrid(224, 40_000, 224)
    (block,) = block_grid(grid, source.layout, bytes_per_px=source.bytes_per_px)
    tracemalloc.start()
    sheet = read_block(source, grid, block, fixed_stretch("0,3000"), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sheet.pixels.nbytes == pixels.nbytes / 2
    assert peak < 2 * pixels.nbytes


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


# ---- threads and caches


def test_threads_read_the_same(write):
    pixels = places(1024, 1024)
    source = open_source(write(pixels, **TILED), name="a.tif")
    failures = []

    def work():
        try:
            for _ in range(3):
                assert_chips_equal(*read_all(source, 112, max_tiles=9), pixels)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_many_sources_in_one_thread_keep_few_files_open(write):
    pixels = places(64, 64)
    sources = [open_source(write(pixels, f"{i}.tif"), name=f"{i}.tif") for i in range(20)]
    for source in sources * 2:
        assert_chips_equal(*read_all(source, 64), pixels)
    open_files = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    assert sum(name.endswith(".tif") for name in open_files) <= 4


def test_a_block_is_decoded_once_by_windows_that_share_it(write):
    """The cache limit is given in bytes: taken for megabytes it would switch the cache off."""
    side = 2048
    pixels = np.random.default_rng(0).integers(0, 255, (1, side, side), dtype=np.uint8)
    path = write(pixels, tiled=True, blockxsize=side, blockysize=side, compress="deflate")
    source = open_source(path, name="a.tif")
    grid = TileGrid(side, side, 64)
    blocks = block_grid(grid, source.layout, bytes_per_px=1, max_tiles=1)

    def seconds(number):
        started = time.perf_counter()
        read_block(source, grid, blocks.block(number), Stretch(), 1)
        return time.perf_counter() - started

    first = seconds(0)
    assert sorted(seconds(i) for i in range(1, 21))[10] < first / 4


def test_colours_of_a_bgr_file_are_put_in_order(write):
    pixels = places(100, 100)
    path = write(pixels[::-1], photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    source = open_source(path, name="a.tif")
    assert source.bands == (3, 2, 1)
    assert_chips_equal(*read_all(source, 100), pixels)


@pytest.mark.parametrize("kind", ["colours", "nodata", "palette", "float", "damaged"])
def test_chips_do_not_depend_on_how_many_are_cut_at_once(write, kind):
    pixels = (
        places(600, 700) if kind != "damaged" else np.random.default_rng(0).integers(0, 255, (3, 600, 700), np.uint8)
    )
    if kind == "float":
        pixels = pixels.astype(np.float32)
        pixels[:, 100:300, 200:500] = np.nan
    elif kind == "nodata":
        pixels[:, 100:300, 200:500] = 7
    elif kind == "palette":
        pixels = pixels[:1]
    path = write(pixels, nodata=7 if kind == "nodata" else None, **(TILED if kind == "damaged" else {}))
    if kind == "palette":
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {i: (i, 255 - i, i // 2) for i in range(256)})
    source = open_source(path, name="a.tif")
    if kind == "damaged":
        table = read_block_table(path, read_directories(path)[0])
        patch(path, int(table.offsets[0, 1, 1]) + 200, b"\xff" * 64)
        source = open_source(path, name="a.tif")
    grid = TileGrid(600, 700, 64, 16)
    unread = 0
    stretch = fit_stretch([source])
    for block in block_grid(grid, source.layout, bytes_per_px=source.bytes_per_px, max_tiles=40):
        sheet = read_block(source, grid, block, stretch, 1)
        whole = sheet.chips()
        assert len(whole.tiles) == len(sheet)
        unread += len(sheet.unread)
        for at_once in (1, 7):
            pieces = [sheet.chips(first, first + at_once) for first in range(0, len(sheet), at_once)]
            for name in ("tiles", "pixels", "valid_frac", "error"):
                joined = np.concatenate([getattr(piece, name) for piece in pieces])
                np.testing.assert_array_equal(joined, getattr(whole, name))
            valid = [np.ones(p.pixels[:, 0].shape, bool) if p.valid is None else p.valid for p in pieces]
            expected = np.ones(whole.pixels[:, 0].shape, bool) if whole.valid is None else whole.valid
            np.testing.assert_array_equal(np.concatenate(valid), expected)
    assert (unread > 0) == (kind == "damaged")


def test_what_a_chip_shows_in_pixels_of_the_source():
    source = SimpleNamespace(width=1001, height=503)
    whole, quarter = TileGrid(503, 1001, 112, 16), TileGrid(126, 251, 28, 4)
    for row, col in ((0, 0), (2, 3), (4, 8)):
        window = whole.tile(row, col).window
        assert shown(source, whole, whole.tile(row, col)) == (window.col, window.row, window.col_end, window.row_end)
        coarse = shown(source, quarter, quarter.tile(row, col))
        assert np.abs(np.subtract(coarse, shown(source, whole, whole.tile(row, col)))).max() <= 4
    assert shown(source, quarter, quarter.tile(4, 8))[2:] == (1001, 503)


def test_a_padded_chip_shows_more_than_the_source():
    source = SimpleNamespace(width=50, height=30)
    grid = TileGrid(30, 50, 112)
    assert shown(source, grid, grid.tile(0, 0)) == (0, 0, 112, 112)
