from __future__ import annotations

import os
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from truth_rasters import TILED, opened, places, read_all

from rsqa.errors import SourceChanged, SourceRefused, UsageError
from rsqa.raster.bands import Masked, asked_mask
from rsqa.raster.describe import check_unchanged


def test_time_is_never_made_up(write):
    path = write(places(10, 10))
    assert opened(path).acquired is None
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="0000:00:00 00:00:00")
    assert opened(path).acquired is None
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2020-02-03 04:05:06")
    assert opened(path).acquired == datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("profile", "gsd_m"),
    [
        ({"crs": "EPSG:32633"}, 1.0),
        ({"crs": "EPSG:2263", "transform": from_origin(985_000, 200_000, 3, 3)}, 3 * 0.3048006),  # US feet
        ({"crs": "EPSG:4326", "transform": from_origin(10, 60, 0.001, 0.001)}, 78.9),  # 55.8 m by 111.4 m
        ({"crs": "EPSG:3857", "transform": from_origin(0, 8_399_738, 10, 10)}, 5.0),  # latitude 60: half the map metre
        ({"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 1, 3)}, 3**0.5),
        ({"crs": "EPSG:32633", "transform": Affine(0.8, 0.6, 5e5, 0.6, -0.8, 4.6e6)}, 1.0),  # rotated
        ({"crs": 'LOCAL_CS["shed",UNIT["US survey foot",0.304800609601219]]'}, 0.3048006),
        ({"crs": "+proj=eqc +R=1560800 +units=m +no_defs", "transform": from_origin(0, 1000, 282, 282)}, 282.0),
        ({"crs": "EPSG:32660", "transform": from_origin(820_000, 5_000_000, 100, 100)}, 100.0),  # antimeridian
        ({"crs": "EPSG:4326", "transform": from_origin(359.9, 0.1, 0.01, 0.01)}, 1109.0),
    ],
)
def test_ground_size_of_a_pixel(write, profile, gsd_m):
    assert opened(write(places(64, 64), **profile)).gsd_m == pytest.approx(gsd_m, rel=5e-3)


def test_south_up_and_other_planets_keep_their_crs(write):
    europa = "+proj=eqc +R=1560800 +units=m +no_defs"
    source = opened(write(places(20, 20), crs=europa, transform=from_origin(0, 1000, 50, 50)))
    assert source.gsd_m == pytest.approx(50, rel=1e-3)
    assert pyproj.CRS.from_wkt(source.crs_wkt).get_geod().a == 1560800


# ---- bands


@pytest.mark.parametrize(
    ("descriptions", "bands"),
    [
        (("B02", "B03", "B04", "B08"), (3, 2, 1)),
        (("blue", "green", "Red ", "nir"), (3, 2, 1)),
        (("B1", "B2", "B3", "B4"), (1, 2, 3)),  # another mission's names say nothing
        ((None, None, None, None), (1, 2, 3)),
    ],
)
def test_four_bands_are_chosen_by_name(write, descriptions, bands):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = descriptions
    assert opened(path).bands == bands


def test_bands_on_request(write):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "B08")
    assert opened(path, bands=("4", "3", "2")).bands == (4, 3, 2)
    assert opened(path, bands=("nir", "red", "green")).bands == (4, 3, 2)
    assert opened(path, bands=("NIR",)).band_names == ("B08",)


def test_bands_by_the_names_that_they_have_in_the_file(write):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B2, central wavelength 490 nm", "B3", "B8A", "Scene Classification")
    assert opened(path, bands=("b8a", "B03", "B02")).bands == (3, 2, 1)
    source = opened(path, masked=Masked("scene classification", (3, 8)))
    assert (source.bands, source.mask_band, source.mask_values) == ((1, 2, 3), 4, (3, 8))
    with pytest.raises(UsageError, match="--bands asks for 'B08', it has 1 B2, central"):
        opened(path, bands=("B08", "B03", "B02"))
    with pytest.raises(UsageError, match="--mask-band asks for 'SCL', it has 1 B2, central"):
        opened(path, masked=Masked("SCL", (3,)))


def test_the_mask_band_is_shown_only_when_asked_for(write):
    path = write(np.ones((2, 20, 20), np.uint8))
    assert opened(path, masked=Masked("1", (0,))).bands == (2,)
    assert opened(path, masked=Masked("1", (0,)), bands=("1",)).bands == (1,)


@pytest.mark.parametrize(
    ("band", "values", "said"),
    [("SCL", None, "go together"), (None, "3", "go together"), ("SCL", "", "together"), ("SCL", "3,cloud", "cloud")],
)
def test_half_a_mask_is_refused(band, values, said):
    with pytest.raises(UsageError, match=said):
        asked_mask(band, values)
    assert asked_mask(None, None) is None
    assert asked_mask("SCL", "9, 3,3") == Masked("SCL", (3, 9))


@pytest.mark.parametrize("bands", [("5", "1", "2"), ("0",), ("swir",), ("1", "2"), ("",)])
def test_bands_that_are_not_there(write, bands):
    with pytest.raises(UsageError, match="--bands"):
        opened(write(np.ones((4, 20, 20), np.uint16)), bands=bands)


def test_two_bands_need_a_choice(write):
    path = write(np.ones((2, 20, 20), np.uint8))
    with pytest.raises(SourceRefused, match="--bands"):
        opened(path)
    assert opened(path, bands=("2",)).bands == (2,)


# ---- what can't be placed on the ground


def test_no_crs_is_refused_with_the_command(write):
    with pytest.raises(SourceRefused, match=r"no CRS: gdal_edit.py -a_srs EPSG:… 'a.tif'"):
        opened(write(places(20, 20), crs=None))


def test_gcps_only_are_refused_with_the_command(tmp_path):
    path = tmp_path / "gcp.tif"
    gcps = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in [(0, 0), (0, 20), (20, 0), (20, 20)]]
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=20, count=3, dtype="uint8", gcps=gcps, crs="EPSG:4326"
    ) as dataset:
        dataset.write(places(20, 20))
    with pytest.raises(SourceRefused, match="gdalwarp -tps"):
        opened(str(path))


def test_rpcs_only_are_refused_with_the_command(write):
    ones = [1.0] * 20
    rpc = RPC(
        height_off=0, height_scale=1, lat_off=50, lat_scale=1, long_off=10, long_scale=1, line_off=10, line_scale=10,
        samp_off=10, samp_scale=10, line_num_coeff=ones, line_den_coeff=ones, samp_num_coeff=ones, samp_den_coeff=ones,
    )  # fmt: skip
    path = write(places(20, 20), crs=None, transform=None, rpcs=rpc)
    with pytest.raises(SourceRefused, match="gdalwarp -rpc"):
        opened(path)


@pytest.mark.parametrize(
    "transform", [None, Affine(0, 0, 5e5, 0, 0, 4e6), Affine(1, 2, 0, 2, 4, 0), Affine(float("nan"), 0, 0, 0, -1, 0)]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_transform_that_places_nothing_is_refused(write, transform):
    with pytest.raises(SourceRefused, match="can't be placed on the ground"):
        opened(write(places(20, 20), transform=transform))


def test_a_name_that_is_not_in_utf_8_is_refused(write):
    crs = re.sub(r",AUTHORITY\[[^]]*\]", "", pyproj.CRS("EPSG:32633").to_wkt("WKT1_GDAL"))
    crs = crs.replace("WGS 84 / UTM zone 33N", "Reseau geodesique").replace('_meridian",15', '_meridian",15.5')
    path = Path(write(places(20, 20), crs=crs))
    content = path.read_bytes()
    assert content.count(b"Reseau geodesique") == 1
    path.write_bytes(content.replace(b"Reseau geodesique", "Réseau géodésique".encode("latin-1")))
    with pytest.raises(SourceRefused, match=r"can't be opened: .*utf-8"):
        opened(str(path))


# ---- changes


def test_an_unchanged_file_is_recognised_also_after_a_copy(write, tmp_path):
    path = write(places(300, 300), **TILED)
    source = opened(path)
    check_unchanged(source)
    os.utime(path, (0, 0))
    check_unchanged(source)
    copy = tmp_path / "copy.tif"
    copy.write_bytes(Path(path).read_bytes())
    assert opened(str(copy)).fingerprint == source.fingerprint


def rewritten(path):
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 1:-1] ^= 1  # first and last byte of the file stay
        dataset.write(pixels)


def moved(path):
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = from_origin(0, 100, 1, 1)


def truncated(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)


def masked(path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.zeros((300, 300), bool))


@pytest.mark.parametrize("compress", [None, "deflate"])
@pytest.mark.parametrize("change", [rewritten, moved, truncated, masked, os.unlink])
def test_a_change_is_noticed(write, change, compress):
    path = write(places(300, 300), compress=compress)
    source = opened(path)
    change(path)
    with pytest.raises(SourceChanged, match=r"a\.tif"):
        check_unchanged(source)


# ---- /vsi


def test_vsi_paths_are_opened_when_typed(write, tmp_path):
    path = write(places(300, 300), **TILED)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inner.tif")
    source = opened(f"/vsizip/{tmp_path}/a.zip/inner.tif")
    assert (source.width, source.blocks) == (300, None)
    check_unchanged(source)
    with pytest.raises(SourceRefused):
        opened(f"/vsizip/{tmp_path}/a.zip/no.tif")
    with pytest.raises(SourceRefused, match="VRT"):
        opened(f"/vsizip/{tmp_path}/a.zip/a.vrt")


# ---- real rasters


@pytest.mark.data
@pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA is not set")
def test_real_rasters_are_described_or_refused():
    folder = Path(os.environ["RSQA_TEST_DATA"]) / "geotiff"
    refused = set()
    for path in sorted(folder.glob("*.tif")):
        try:
            source = opened(str(path))
        except SourceRefused:
            refused.add(path.name)
            continue
        with rasterio.open(path) as dataset:
            assert (source.height, source.width) == dataset.shape
            truth = dataset.read(source.bands) if source.dtype == "uint8" else None
            valid = dataset.dataset_mask() != 0
        found, grid = read_all(source, 448)
        for (row, col), (pixels, chip_valid, valid_frac, error) in found.items():
            tile = grid.tile(row, col)
            rows, cols = tile.window.slices
            shown = (slice(tile.window.height), slice(tile.window.width))
            assert error is None
            np.testing.assert_array_equal(chip_valid[shown], valid[rows, cols])
            assert valid_frac == pytest.approx(valid[tile.core.slices].mean(), abs=1e-6)
            if truth is not None:
                np.testing.assert_array_equal(pixels[:, *shown], np.where(valid, truth, 0)[:, rows, cols])
    assert refused == {"rotated.tif"}
