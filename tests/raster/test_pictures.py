"""Chips that are no GeoTIFF: read as Pillow reads them, damage is told and never shown as black."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rsqa.errors import InputError, SourceRefused
from rsqa.raster.describe import check_unchanged, open_source, open_sources
from rsqa.raster.grid import Block, TileGrid
from rsqa.raster.read import Chips, read_block
from rsqa.raster.stretch import Stretch

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def chips(path) -> Chips:
    source = open_source(str(path), name=path.name, chips=True)
    grid = TileGrid(source.height, source.width, max(source.height, source.width))
    return read_block(source, grid, Block(0, 0, 1, 0, 1), Stretch(), 1, (source.height, source.width)).chips()


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("png", {}), ("webp", {"lossless": True}), ("jp2", {"irreversible": False}),
        ("jpg", {"quality": 95, "subsampling": 0}), ("tif", {}),
    ],
)  # fmt: skip
def test_a_chip_is_shown_whole_as_it_is(tmp_path, ending, how):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PIXELS).save(path, **how)
    read = chips(path)
    assert read.pixels.shape == (1, 3, 40, 56)
    assert read.valid is None
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)
    assert abs(read.pixels[0] - expected).max() <= (0 if ending != "jpg" else 3)
    source = open_source(str(path), name="a", chips=True)
    assert (source.placed, source.gsd_m) == (False, None)
    check_unchanged(source)


def test_grey_palette_and_transparent_pictures(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    assert (chips(tmp_path / "grey.png").pixels[0] == PIXELS[..., 0]).all()
    few = Image.fromarray(PIXELS).quantize(16)
    few.save(tmp_path / "few.png")
    assert (chips(tmp_path / "few.png").pixels[0] == np.asarray(few.convert("RGB")).transpose(2, 0, 1)).all()
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "clear.png")
    read = chips(tmp_path / "clear.png")
    assert read.valid_frac[0] == pytest.approx(30 / 40)
    assert (read.pixels[0, :, 10:] == PIXELS[10:].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("ending", ["png", "webp", "jp2", "jpg"])
@pytest.mark.parametrize("kept", [0.4, 0.97])
def test_a_file_cut_short_is_refused_or_an_error(tmp_path, ending, kept):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    try:
        read = chips(path)
    except SourceRefused:
        return
    assert read.error[0] == "block_unreadable"


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_a_png_is_refused(tmp_path, at):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(SourceRefused, match="damaged PNG"):
        open_source(str(path), name="a.png", chips=True)


def test_ask_says_who_takes_pictures(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    with pytest.raises(SourceRefused, match="rsqa classify"):
        open_source(str(tmp_path / "a.jpg"), name="a.jpg")


def test_many_are_opened_in_their_order_and_the_bad_ones_are_told(tmp_path):
    files = []
    for i in range(30):
        path = tmp_path / f"{i}.png"
        Image.fromarray(PIXELS[: 10 + i]).save(path)
        if i % 7 == 3:
            path.write_bytes(b"no picture")
        files.append((str(path), path.name))
    for i, found in enumerate(open_sources(files, None)):
        if i % 7 == 3:
            assert isinstance(found, InputError)
        else:
            assert (found.name, found.height) == (f"{i}.png", 10 + i)
