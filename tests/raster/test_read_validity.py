"""Which pixels of a chip are valid: alpha, masks, nodata, numbers that are none, classes of a mask band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from damaged_rasters import patch
from rasterio.enums import Resampling
from truth_rasters import TILED, assert_masked, places, read_all

from rsqa.raster.bands import Masked
from rsqa.raster.describe import open_source
from rsqa.raster.stretch import Stretch, fixed_stretch
from rsqa.raster.tiff import read_block_table, read_directories


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
