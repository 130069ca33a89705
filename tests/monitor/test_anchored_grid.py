"""Tiles that stay where they are, and scenes as they look on them."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from painted_scenes import LEFT, PIXEL, SIDE, TILE_PX, TOP, damage_last_block, ground, write_scene
from rasterio.crs import CRS

from rsqa.errors import SourceRefused, UsageError
from rsqa.raster.anchored import AnchoredGrid, Tiles, crs_wkt
from rsqa.raster.describe import open_source
from rsqa.raster.stretch import Stretch
from rsqa.raster.warp import View

GRID = AnchoredGrid(crs_wkt("EPSG:32631"), LEFT, TOP, PIXEL, TILE_PX)


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(-50, 50), st.integers(1, 9), st.floats(0.1, 900))
def test_the_ground_of_tiles_touches_those_tiles_alone(row, rows, col, cols, pixel):
    grid = AnchoredGrid(GRID.crs_wkt, LEFT, TOP, pixel, TILE_PX)
    tiles = Tiles(row, row + rows, col, col + cols)
    assert grid.touched(grid.bounds(tiles)) == tiles
    assert Affine(*grid.transform(tiles)) @ (0, 0) == pytest.approx((grid.bounds(tiles)[0], grid.bounds(tiles)[3]))


def view(path, kernel="bilinear", grid=GRID, stretch=None):
    return View(open_source(str(path), name=path.name), grid, stretch or Stretch(), kernel)


def seen(view, tiles):
    """(3, H, W) and (H, W) of all tiles together, and those that could not be read."""
    height, width = view.grid.shape_px(tiles)
    pixels, valid, unread = np.zeros((3, height, width), np.uint8), np.zeros((height, width), bool), []
    for patch in view.patches(tiles):
        if patch.pixels is None:
            unread.append((patch.tiles.row0, patch.tiles.col0))
            continue
        row, col = (patch.tiles.row0 - tiles.row0) * TILE_PX, (patch.tiles.col0 - tiles.col0) * TILE_PX
        area = slice(row, row + patch.valid.shape[0]), slice(col, col + patch.valid.shape[1])
        pixels[:, *area], valid[area] = patch.pixels, patch.valid
    return pixels, valid, unread


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("shift_px", [(0, 0), (-5, 17)])
def test_pixels_that_coincide_are_left_as_they_are(tmp_path, kernel, shift_px):
    of = view(write_scene(tmp_path / "a.tif", shift_px=shift_px), kernel)
    tiles = GRID.seen_by(of.source)
    assert len(tiles) == (SIDE * SIDE if shift_px == (0, 0) else (SIDE + 1) ** 2)
    pixels, valid, unread = seen(of, tiles)
    y, x = -tiles.row0 * TILE_PX + shift_px[0], -tiles.col0 * TILE_PX + shift_px[1]
    inside = np.zeros_like(valid)
    inside[y : y + SIDE * TILE_PX, x : x + SIDE * TILE_PX] = True
    assert (valid == inside).all()
    top, left = TILE_PX * (1 + tiles.row0), TILE_PX * (1 + tiles.col0)
    truth = ground()[:, top : top + valid.shape[0], left : left + valid.shape[1]]
    assert (pixels[:, : truth.shape[1], : truth.shape[2]] == truth * inside[: truth.shape[1], : truth.shape[2]]).all()
    assert not unread


def test_another_crs_shows_the_same_ground(tmp_path):
    """The scene is brought to longitude and latitude by rasterio itself, and back by the grid."""
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    path = write_scene(tmp_path / "utm.tif")
    with rasterio.open(path) as file:
        transform, width, height = calculate_default_transform(file.crs, "EPSG:4326", file.width, file.height,
                                                               *file.bounds)  # fmt: skip
        fine = transform @ Affine.scale(0.5)
        turned = np.zeros((4, 2 * height, 2 * width), np.uint8)
        reproject(file.read(), turned, src_transform=file.transform, src_crs=file.crs, dst_transform=fine,
                  dst_crs="EPSG:4326", src_alpha=4, dst_alpha=4, resampling=Resampling.bilinear)  # fmt: skip
    lonlat = tmp_path / "lonlat.tif"
    with rasterio.open(lonlat, "w", driver="GTiff", height=turned.shape[1], width=turned.shape[2], count=4,
                       dtype="uint8", crs=CRS.from_epsg(4326), transform=fine, photometric="RGB",
                       alpha="YES") as file:  # fmt: skip
        file.write(turned)
    tiles = Tiles(0, SIDE, 0, SIDE)
    there, valid, _ = seen(view(path), tiles)
    back, valid_back, _ = seen(view(lonlat), tiles)
    assert valid.all()
    assert valid_back[8:-8, 8:-8].all()
    difference = np.abs(there.astype(int) - back.astype(int))[:, 8:-8, 8:-8]
    moved = np.abs(there.astype(int) - np.roll(there, 2, axis=2).astype(int))[:, 8:-8, 8:-8]
    assert difference.mean() < 0.5 * moved.mean()  # smoothed, and not moved


def test_a_damaged_file_block_costs_the_tiles_that_need_it(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    damage_last_block(path)
    _, valid, unread = seen(view(path), Tiles(0, SIDE, 0, SIDE))
    assert unread == [(3, 3)]
    assert valid[: 3 * TILE_PX].all()


def test_values_without_a_stretch_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", height=60, width=60, count=1, dtype="uint16", crs="EPSG:32631",
                       transform=Affine(0.5, 0, LEFT, 0, -0.5, TOP)) as file:  # fmt: skip
        file.write(np.full((1, 60, 60), 1500, np.uint16))
    with pytest.raises(SourceRefused, match="no stretch"):
        view(path)
    pixels, valid, _ = seen(view(path, stretch=Stretch((0.0,), (3000.0,))), Tiles(0, 1, 0, 1))
    assert valid.all()
    assert (pixels == 128).all()


def test_a_crs_that_is_none():
    with pytest.raises(UsageError, match="is no CRS"):
        crs_wkt("EPSG:1")
