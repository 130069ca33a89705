"""A mosaic of files is read as the one file that it was cut from."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from truth_rasters import TILED, UTM, places, read_all

from rsqa.errors import SourceChanged, SourceRefused
from rsqa.raster.describe import check_unchanged, open_source
from rsqa.raster.grid import Window
from rsqa.raster.mosaic import files_under, join
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch, fit_stretch

HEIGHT, WIDTH = 300, 430


FOLDERS = count()
"""A file that is written again under its name is one that changed while it was read."""


def cut(write, pixels, rows, cols, transform=UTM["transform"], **profile) -> list[str]:
    """A raster in pieces between successive rows and columns -> their paths, row by row."""
    folder = f"cut{next(FOLDERS)}"
    return [
        write(
            pixels[:, r0:r1, c0:c1],
            f"{folder}/{r0}_{c0}.tif",
            transform=transform @ Affine.translation(c0, r0),
            **profile,
        )
        for (r0, r1), (c0, c1) in product(pairwise(rows), pairwise(cols))
    ]


def opened(paths) -> list[RasterSource]:
    return [open_source(path, name=Path(path).name) for path in paths]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for tile, (pixels, valid, valid_frac, error) in found.items():
        np.testing.assert_array_equal(pixels, expected[tile][0])
        np.testing.assert_array_equal(valid, expected[tile][1])
        assert (valid_frac, error) == expected[tile][2:]


BORDERS = st.sets(st.integers(1, 299), max_size=3).map(sorted)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=BORDERS,
    cols=BORDERS,
    tile_px=st.sampled_from([64, 100, 500]),
    overlap_px=st.sampled_from([0, 20]),
    profile=st.sampled_from([TILED, {"blockysize": 7, "compress": "deflate"}]),
    order=st.randoms(use_true_random=False),
    angle=st.sampled_from([0, 30]),
)
def test_a_cut_raster_is_read_as_the_whole(write, rows, cols, tile_px, overlap_px, profile, order, angle):
    pixels = places(HEIGHT, WIDTH)
    turned = UTM["transform"] @ Affine.rotation(angle)
    whole = open_source(write(pixels, f"whole{next(FOLDERS)}.tif", transform=turned, **profile), name="a.tif")
    paths = cut(write, pixels, [0, *rows, HEIGHT], [0, *cols, WIDTH], turned, **profile)
    order.shuffle(paths)
    mosaic = join(opened(paths), "cut")
    assert (mosaic.height, mosaic.width, mosaic.transform) == (HEIGHT, WIDTH, whole.transform)
    assert (mosaic.crs_wkt, mosaic.gsd_m, mosaic.dtype) == (whole.crs_wkt, whole.gsd_m, whole.dtype)
    found, _ = read_all(mosaic, tile_px, overlap_px=overlap_px)
    assert_same(found, read_all(whole, tile_px, overlap_px=overlap_px)[0])


def test_between_files_nothing_is_valid(write):
    pixels = places(HEIGHT, WIDTH)
    paths = cut(write, pixels, [0, 130, HEIGHT], [0, 150, WIDTH], **TILED)
    mosaic = join(opened([paths[0], paths[3]]), "cut")
    valid = np.zeros((HEIGHT, WIDTH), bool)
    valid[:130, :150] = valid[130:, 150:] = True
    found, grid = read_all(mosaic, 100)
    for (row, col), (chip, mask, share, _) in found.items():
        tile = grid.tile(row, col)
        expected = valid[tile.window.slices]
        np.testing.assert_array_equal(mask, expected)
        np.testing.assert_array_equal(chip, pixels[:, *tile.window.slices] * expected)
        assert share == pytest.approx(valid[tile.core.slices].mean())


def test_the_first_file_lies_above_and_is_seen_through_where_it_has_no_data(write):
    below, above = np.full((1, 200, 200), 50, np.uint8), np.full((1, 200, 200), 90, np.uint8)
    above[:, 50:80, 20:60] = 0
    shifted = UTM["transform"] @ Affine.translation(100, 0)
    paths = [write(above, "above.tif", nodata=0, **TILED), write(below, "below.tif", transform=shifted, **TILED)]
    truth = np.full((200, 300), 50, np.uint8)
    truth[:, :200] = above
    (pixels, valid, _, _) = read_all(join(opened(paths), "a"), 300)[0][0, 0]
    np.testing.assert_array_equal(pixels[0, :200], truth)
    np.testing.assert_array_equal(valid[:200], truth != 0)
    truth[:, 100:] = 50
    pixels = read_all(join(opened(paths[::-1]), "a"), 300)[0][0, 0][0]
    np.testing.assert_array_equal(pixels[0, :200], truth)


@pytest.mark.parametrize(("border", "factors"), [(128, (2, 4)), (130, (2,)), (131, ())])
def test_overviews_are_used_where_their_pixels_do_not_cross_a_border(write, border, factors):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    whole, *paths = [write(pixels, **TILED), *cut(write, pixels, [0, 256], [0, border, 256], **TILED)]
    for path in (whole, *paths):
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
    mosaic = join(opened(paths), "cut")
    assert mosaic.overviews == factors
    for factor in factors:
        expected = read_all(open_source(whole, name="a"), 64, factor=factor)[0]
        assert_same(read_all(mosaic, 64, factor=factor)[0], expected)


def test_a_corrupt_block_of_one_file_costs_only_its_tiles(write):
    pixels = np.random.default_rng(0).integers(1, 256, (3, 512, 512), dtype=np.uint8)
    paths = cut(write, pixels, [0, 512], [0, 256, 512], **TILED)
    with rasterio.open(paths[1]) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    content = bytearray(Path(paths[1]).read_bytes())
    content[offset : offset + 40] = bytes(40)
    Path(paths[1]).write_bytes(content)
    found, grid = read_all(join(opened(paths), "cut"), 128)
    for (row, col), (chip, _, _, error) in found.items():
        assert error == ("block_unreadable" if row >= 2 and col >= 2 else None)
        if error is None:
            np.testing.assert_array_equal(chip, pixels[:, *grid.tile(row, col).window.slices])


def test_a_stretch_is_that_of_the_whole(write):
    pixels = np.random.default_rng(0).normal(3000, 500, (3, 1024, 1024)).astype(np.uint16)
    profile = TILED | {"blockxsize": 64, "blockysize": 64}
    whole = fit_stretch([open_source(write(pixels, **profile), name="a")])
    paths = cut(write, pixels, [0, 512, 1024], [0, 256, 1024], **profile)
    assert fit_stretch([join(opened(paths), "cut")]) == whole
    corner = join(opened([paths[0], *cut(write, pixels, [960, 1024], [960, 1024], **profile)]), "cut")
    assert fit_stretch([corner]).low[0] == pytest.approx(whole.low[0], rel=0.01)  # the hole has no say


def test_files_that_do_not_fit_are_refused_by_name(write):
    pixels = places(100, 100)
    first = open_source(write(pixels, "first.tif"), name="first.tif")
    right = UTM["transform"] @ Affine.translation(100, 0)

    def refusal(pixels=pixels, **profile) -> str:
        other = open_source(write(pixels, "other.tif", **{"transform": right} | profile), name="other.tif")
        with pytest.raises(SourceRefused, match="other") as caught:
            join([first, other], "a")
        return str(caught.value)

    assert "another CRS" in refusal(crs="EPSG:32634")
    assert "0.5 px beside" in refusal(transform=UTM["transform"] @ Affine.translation(100.5, 0))
    assert "px beside" in refusal(transform=right @ Affine.scale(1.01, 1.01))
    assert "px beside" in refusal(transform=right @ Affine.rotation(90))
    assert "3 bands of uint16" in refusal(pixels.astype(np.uint16))
    assert "1 bands of uint8" in refusal(pixels[:1])
    with pytest.raises(SourceRefused, match="palette"):
        join([replace(first, name="palette.tif", palette=True)], "a")
    far = write(pixels, "far.tif", transform=UTM["transform"] @ Affine.translation(10**7, 10**7))
    with pytest.raises(SourceRefused, match="the limit is"):
        join([first, open_source(far, name="far.tif")], "a")


def test_rounded_corners_are_on_the_grid(write):
    rounded = UTM["transform"] @ Affine.translation(100.004, 0)
    paths = [write(places(100, 100)), write(places(100, 100), "b.tif", transform=rounded)]
    assert join(opened(paths), "a").width == 200


def test_a_changed_file_is_found_out(write):
    paths = cut(write, places(HEIGHT, WIDTH), [0, HEIGHT], [0, 200, WIDTH])
    mosaic = join(opened(paths), "cut")
    check_unchanged(mosaic)
    assert [file.name for file in files_under(mosaic, Window(0, 0, 10, 200))] == ["0_0.tif"]
    assert len(files_under(mosaic, Window(0, 0, 10, 201))) == 2
    with rasterio.open(paths[1], "r+") as file:
        file.write(np.zeros((3, HEIGHT, WIDTH - 200), np.uint8))
    with pytest.raises(SourceChanged, match="0_200"):
        check_unchanged(mosaic)
    assert join(opened(paths), "cut").fingerprint != mosaic.fingerprint


def test_a_mosaic_of_one_file_is_that_file(write):
    source = open_source(write(places(100, 130)), name="a.tif")
    mosaic = join([source], "a")
    assert_same(read_all(mosaic, 50, stretch=Stretch())[0], read_all(source, 50)[0])
    assert RasterSource.from_json(mosaic.to_json()) == mosaic
