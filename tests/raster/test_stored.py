"""Bytes that a run will read, against what GDAL and the file system say of the files."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import rasterio
from rasterio.shutil import copy
from truth_rasters import TILED, opened, places

from rsqa.raster.chosen import chosen_blocks
from rsqa.raster.grid import Window, block_grid
from rsqa.raster.mosaic import join
from rsqa.raster.read import level_grid
from rsqa.raster.stored import Stored, stored_under, stored_window

RAW = TILED | {"compress": "none", "interleave": "pixel"}
BLOCK = 256 * 256 * 3
"""Bytes of a file block of three bands of uint8, as RAW stores it."""


def under(source, tile_px, *, overlap_px=0, factor=1, max_tiles=None, runs=None, readers=1000):
    grid = level_grid(source, tile_px, factor, overlap_px)
    blocks = block_grid(grid, source.level(factor).layout, bytes_per_px=source.bytes_per_px, max_tiles=max_tiles)
    return stored_under(source, grid, blocks if runs is None else chosen_blocks(blocks, runs), factor, readers)


def test_without_overlap_each_file_block_is_read_once(write):
    source = opened(write(places(1024, 1280), **RAW))
    assert under(source, 256) == Stored(4 * 5 * BLOCK)
    assert under(source, 128, max_tiles=8) == Stored(4 * 5 * BLOCK)


def test_tiles_beside_the_file_blocks_read_some_again(write):
    source = opened(write(places(1024, 1024), **RAW))
    # Windows of 192 px begin at 0, 192, 384, 576, 768 and, shifted inward, 832.
    assert under(source, 192, max_tiles=1) == Stored((1 + 2 + 2 + 1 + 1 + 1) ** 2 * BLOCK)
    # Windows of 320 px begin at 0, 224, 480 and 704: they touch 2, 3, 3 and 2 blocks along a side.
    assert under(source, 256, overlap_px=64, max_tiles=1) == Stored((2 + 3 + 3 + 2) ** 2 * BLOCK)


def test_a_reader_keeps_a_small_file(write, monkeypatch):
    source = opened(write(places(1024, 1024), **RAW))
    assert under(source, 256, overlap_px=64, max_tiles=1, readers=2) == Stored(2 * 16 * BLOCK)
    assert under(source, 256, readers=2) == Stored(16 * BLOCK)
    monkeypatch.setattr("rsqa.raster.stored.FILE_CACHE_BYTES", 16 * BLOCK - 1)
    assert under(source, 256, overlap_px=64, max_tiles=1, readers=2) == Stored(100 * BLOCK)


def test_compressed_blocks_count_as_they_are_stored(write):
    path = write(places(512, 768), **TILED, interleave="pixel")
    with rasterio.open(path) as file:
        sizes = [
            int(file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1)) for row in (0, 1) for col in range(3)
        ]
    assert len(set(sizes)) > 1
    assert under(opened(path), 256) == Stored(sum(sizes))
    assert stored_window(opened(path), Window(10, 300, 20, 20)) == Stored(sizes[1])


def test_strips_count_once_in_bands_of_full_width(write):
    path = write(places(300, 400), compress="none", interleave="pixel", blockysize=16)
    assert under(opened(path), 100) == Stored(300 * 400 * 3)  # the last strip is shorter, as stored


def test_of_a_planar_file_only_the_bands_that_are_shown_and_alpha_count(write):
    pixels = np.concatenate([places(512, 512), np.full((2, 512, 512), 255, np.uint8)])
    layout = TILED | {"compress": "none", "interleave": "band", "photometric": "RGB"}
    five = opened(write(pixels, "five.tif", **layout))
    assert under(replace(five, mask="none", alpha_band=None), 256) == Stored(4 * BLOCK)
    assert under(replace(five, mask="alpha", alpha_band=4), 256) == Stored(4 * BLOCK * 4 // 3)


def test_an_overview_costs_its_own_blocks(write):
    path = write(places(1024, 1024), **RAW)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert under(opened(path), 512, factor=2) == Stored(4 * BLOCK)
    assert under(opened(path), 512, factor=4) == Stored(BLOCK)


def test_masks_count_inside_the_file_and_beside_it(write):
    plain = write(places(512, 512), "plain.tif", **RAW)
    for inside in (True, False):
        path = write(places(512, 512), f"mask-{inside}.tif", **RAW)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(np.tri(512, dtype=bool))
        source = opened(path)
        assert source.mask == "mask"
        assert os.path.exists(path + ".msk") != inside
        mask_bytes = under(source, 256).n_bytes - under(opened(plain), 256).n_bytes
        assert 0 < mask_bytes < 512 * 512 // 8 + 1  # a bit or a compressed byte for each pixel


def test_absent_blocks_cost_nothing(tmp_path, write):
    path = str(tmp_path / "sparse.tif")
    with rasterio.open(write(places(512, 512), "full.tif", **RAW)) as full:
        profile = full.profile
    with rasterio.open(path, "w", **profile, sparse_ok=True) as file:
        file.write(places(256, 256), window=rasterio.windows.Window(256, 0, 256, 256))
    assert under(opened(path), 256) == Stored(BLOCK)


def test_only_chosen_tiles_count(write):
    source = opened(write(places(1024, 1024), **RAW))
    assert under(source, 256, runs=((0, 1, 3), (3, 0, 1))) == Stored(3 * BLOCK)


def test_a_mosaic_is_the_sum_of_its_files(write):
    left = opened(write(places(512, 512), "left.tif", **RAW))
    east = rasterio.Affine(1, 0, 500_512, 0, -1, 4_600_000)
    right = opened(write(places(256, 512), "right.tif", **RAW | {"transform": east}))
    both = join([left, right], "both")
    assert under(both, 256) == Stored(under(left, 256).n_bytes + under(right, 256).n_bytes) == Stored(6 * BLOCK)


def test_blocks_of_unknown_size_are_counted(write, tmp_path):
    path = write(places(512, 768), **TILED, interleave="pixel")
    copy(path, str(tmp_path / "a.vrt"), driver="VRT")
    here, elsewhere = opened(path), opened(str(tmp_path / "a.vrt"))
    assert under(replace(here, blocks=None), 256) == Stored(n_unknown=6)  # as it is of a /vsi path
    assert under(elsewhere, 256).n_bytes == 0
    assert under(elsewhere, 256).n_unknown > 0
