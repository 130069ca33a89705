from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling

from rsqa.raster.describe import open_source
from rsqa.raster.quicklook import quicklook
from rsqa.raster.stretch import Stretch

HEIGHT, WIDTH = 700, 1100


def written(path, pixels, **options):
    """A raster of blocks of 128 px; -> its source."""
    profile = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "nodata": 0} | options
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=len(pixels), dtype=pixels.dtype, crs="EPSG:32631",
        transform=Affine(1, 0, 5e5, 0, -1, 5e6), **profile,
    ) as file:  # fmt: skip
        file.write(pixels)
    return open_source(str(path), name="a.tif")


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(3)
    noise = rng.integers(1, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    noise[:, 100:333, 250:777] = 0  # nodata
    return noise


def means(pixels, step):
    """By the book: each pixel the mean of what is valid among step x step, and the share that is."""
    rows, cols = -(-HEIGHT // step), -(-WIDTH // step)
    below, beside = rows * step - HEIGHT, cols * step - WIDTH
    inside = np.pad(np.ones((HEIGHT, WIDTH)), ((0, below), (0, beside))).reshape(rows, step, cols, step)
    padded = np.pad(pixels.astype(float), ((0, 0), (0, below), (0, beside))).reshape(3, rows, step, cols, step)
    n_valid = padded.any(axis=0).sum(axis=(1, 3))
    colour = padded.sum(axis=(2, 4)) / np.maximum(n_valid, 1)  # what is not valid is 0 in all bands
    return colour.transpose(1, 2, 0), n_valid / inside.sum(axis=(1, 3))


@pytest.mark.parametrize("layout", [{}, {"tiled": False, "blockysize": 3}])
@pytest.mark.parametrize(("most_px", "step"), [(10**6, 1), (100_000, 3), (9_000, 10)])
def test_every_pixel_is_the_mean_of_its_ground(tmp_path, pixels, most_px, step, layout):
    look = quicklook(written(tmp_path / "a.tif", pixels, **layout), Stretch(), most_px, most_side=10**4)
    colour, share = means(pixels, step)
    assert look.step == step
    assert look.pixels.shape == (*share.shape, 4)
    np.testing.assert_allclose(look.pixels[..., 3] / 255, share, atol=0.01)
    whole = share == 1
    assert np.abs(look.pixels[whole, :3] - colour[whole]).max() <= 1
    part = share > 0.3
    assert np.abs(look.pixels[part, :3] - colour[part]).max() <= 6  # Pillow rounds colours times alpha
    assert not look.pixels[share == 0].any()


def test_the_longer_side_is_bounded(tmp_path, pixels):
    look = quicklook(written(tmp_path / "a.tif", pixels), Stretch(), 10**6, most_side=275)
    assert look.step == 4
    assert max(look.pixels.shape) == 275


def test_an_overview_is_read_where_it_is_fine_enough(tmp_path, pixels):
    path = tmp_path / "a.tif"
    written(path, pixels)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
        overview = file.read(out_shape=(3, HEIGHT // 4, WIDTH // 4))
    look = quicklook(open_source(str(path), name="a.tif"), Stretch(), 10**6, most_side=275)
    assert look.step == 4
    np.testing.assert_array_equal(look.pixels[..., :3], overview.transpose(1, 2, 0))


def test_other_types_are_stretched_as_the_model_saw_them(tmp_path, pixels):
    deep = pixels[:1].astype(np.uint16) * 100
    look = quicklook(written(tmp_path / "a.tif", deep), Stretch((0.0,), (25500.0,)), 10**6, most_side=10**4)
    np.testing.assert_array_equal(look.pixels[..., 0], pixels[0])
    np.testing.assert_array_equal(look.pixels[..., 0], look.pixels[..., 2])
    np.testing.assert_array_equal(look.pixels[..., 3] > 0, pixels[0] > 0)


def test_what_is_broken_stays_empty(tmp_path, pixels):
    source = written(tmp_path / "a.tif", pixels)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    (tmp_path / "b.tif").write_bytes(content)
    broken = open_source(str(tmp_path / "b.tif"), name="b.tif")
    look = quicklook(broken, Stretch(), 10**6, most_side=10**4)
    whole = quicklook(source, Stretch(), 10**6, most_side=10**4)
    lost = look.pixels[..., 3] < whole.pixels[..., 3]
    assert 0 < lost.mean() < 0.3
    np.testing.assert_array_equal(look.pixels[~lost], whole.pixels[~lost])
