from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from truth_rasters import TILED, places

from rsqa.errors import UsageError
from rsqa.raster.describe import open_source
from rsqa.raster.stretch import BLIND, Stretch, fit_stretch, fixed_stretch


@given(
    hnp.arrays(st.sampled_from([np.float32, np.uint16, np.int16, np.float64]), (3, 4, 5)),
    hnp.arrays(bool, (4, 5)) | st.none(),
    st.floats(-1e6, 1e6), st.floats(0, 1e6),
)  # fmt: skip
def test_any_pixels_become_uint8_and_invalid_ones_0(pixels, valid, low, span):
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=0)
        valid = finite if valid is None else valid & finite
    shown = Stretch((low,), (low + span,)).apply(pixels, valid)
    assert (shown.dtype, shown.shape) == (np.uint8, pixels.shape)
    if valid is not None:
        assert not shown[:, ~valid].any()


def test_low_is_0_and_high_is_255_in_each_band():
    pixels = np.array([[[100, 300, 200]], [[10, 20, 15]], [[0, 5, 99]]], np.uint16)
    shown = Stretch((100, 10, 1), (300, 20, 2)).apply(pixels, None)
    assert shown[:, 0].tolist() == [[0, 255, 128], [0, 255, 128], [0, 255, 255]]


def test_identity_neither_changes_nor_copies():
    pixels = places(10, 10)
    assert Stretch().apply(pixels, None) is pixels
    with pytest.raises(ValueError, match="need a stretch"):
        Stretch().apply(pixels.astype(np.uint16), None)


@pytest.mark.parametrize("text", ["0,3000", " -1.5 , 2e3 "])
def test_fixed(text):
    low, high = (float(part) for part in text.split(","))
    assert fixed_stretch(text) == Stretch((low,), (high,))


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "3,3", "4,3", "0,inf", "nan,1"])
def test_fixed_refuses(text):
    with pytest.raises(UsageError, match="--scale"):
        fixed_stretch(text)


def test_json():
    stretch = Stretch((1.5, 2, 3), (4, 5, 6.25))
    assert Stretch.from_json(json.loads(json.dumps(stretch.to_json()))) == stretch
    assert Stretch.from_json(Stretch().to_json()).identity


def test_uint8_is_left_alone(write):
    assert fit_stretch([open_source(write(places(100, 100)), name="a")]).identity


def noise(seed, dtype, low, high, shape=(3, 600, 600)):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("profile", [{}, TILED, TILED | {"interleave": "band"}], ids=["strips", "tiled", "planar"])
def test_percentiles_of_valid_pixels(write, dtype, profile):
    pixels = noise(0, dtype, 1000, 2000)
    pixels[1] += 1000
    pixels[:, :200] = 0  # nodata must not count
    source = open_source(write(pixels, nodata=0, **profile), name="a")
    stretch = fit_stretch([source])
    assert np.allclose(stretch.low, (1020, 2020, 1020), atol=5)
    assert np.allclose(stretch.high, (1980, 2980, 1980), atol=5)
    assert fit_stretch([source]) == stretch


def test_nan_and_infinity_do_not_count(write):
    pixels = noise(0, np.float32, 0, 1)
    pixels[0, :100], pixels[1, 100:200], pixels[2, 200:300] = np.nan, np.inf, -np.inf
    stretch = fit_stretch([open_source(write(pixels), name="a")])
    assert np.allclose(stretch.low, 0.02, atol=0.005)
    assert np.allclose(stretch.high, 0.98, atol=0.005)


def test_a_collection_has_one_stretch(write):
    paths = [write(noise(i, np.uint16, low, low + 100), f"{i}.tif", **TILED) for i, low in enumerate([0, 1000])]
    stretch = fit_stretch([open_source(path, name=path) for path in paths])
    assert max(stretch.low) < 10
    assert min(stretch.high) > 1080


@pytest.mark.parametrize("value", [0, 500])
def test_a_constant_picture_does_not_divide_by_zero(write, value):
    pixels = np.full((3, 50, 50), value, np.uint16)
    stretch = fit_stretch([open_source(write(pixels), name="a")])
    assert not stretch.apply(pixels, None).any()


def test_nothing_valid(write):
    source = open_source(write(np.zeros((1, 50, 50), np.float32), nodata=0), name="a")
    assert fit_stretch([source]) == BLIND


def test_mixed_sources_are_refused(write):
    eight, sixteen, grey = (
        open_source(write(pixels, f"{i}.tif"), name=str(i))
        for i, pixels in enumerate([places(9, 9), places(9, 9).astype(np.uint16), places(9, 9)[:1].astype(np.uint16)])
    )
    for sources in ([eight, sixteen], [sixteen, grey]):
        with pytest.raises(UsageError, match="--scale"):
            fit_stretch(sources)


def test_at_most_512_blocks_are_read_from_all_over_the_collection(write, monkeypatch):
    pixels = noise(0, np.uint16, 0, 100, (1, 1024, 1024))
    profile = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    sources = [open_source(write(pixels, f"{i}.tif", **profile), name=str(i)) for i in range(3)]
    read = []
    from rsqa.raster import stretch as module

    def count(source, window, factor):
        read.append((source.name, window))
        return real(source, window, factor)

    real = module.read_window
    monkeypatch.setattr(module, "read_window", count)
    fit_stretch(sources)
    assert len(read) == len(set(read)) == 512
    per_source = [sum(name == str(i) for name, _ in read) for i in range(3)]
    assert max(per_source) - min(per_source) <= 1


def test_broken_blocks_have_no_say(write):
    path = write(noise(0, np.uint16, 1000, 2000), **TILED)
    with open(path, "r+b") as file:
        file.truncate(700_000)
    stretch = fit_stretch([open_source(path, name="a")])
    assert np.allclose(stretch.low, 1020, atol=10)
