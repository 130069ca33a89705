from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from damaged_rasters import spoil
from rasterio.enums import ColorInterp, Resampling
from truth_rasters import TILED, assert_chips_equal, places, read_all

from rsqa.raster.describe import open_source
from rsqa.raster.grid import TileGrid, block_grid
from rsqa.raster.raw import block_table
from rsqa.raster.read import choose_level, read_block, shown
from rsqa.raster.stretch import Stretch, fit_stretch, fixed_stretch

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


def test_chosen_bands_are_read_in_their_order(write):
    pixels = np.concatenate([places(200, 200), places(200, 200)[::-1]])
    source = open_source(write(pixels), name="a.tif", bands=("6", "2", "1"))
    found, grid = read_all(source, 100)
    assert_chips_equal(found, grid, pixels[[5, 1, 0]])


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
        spoil(path, (0, 1, 1))
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
