from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import Resampling
from truth_rasters import TILED, opened, places

from rsqa.raster.grid import TileGrid, Window
from rsqa.raster.read import choose_level
from rsqa.raster.source import RasterSource, damage, footprint


def test_description_survives_json(write):
    path = write(places(700, 1000).astype(np.float32), nodata=np.nan, **TILED)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
        dataset.update_tags(TIFFTAG_DATETIME="2021:06:05 10:11:12")
    source = opened(path)
    text = json.dumps(source.to_json(), allow_nan=False)
    again = RasterSource.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert {f: getattr(again, f) for f in again.__slots__ if f != "nodata"} == {
        f: getattr(source, f) for f in source.__slots__ if f != "nodata"
    }
    assert np.isnan(again.nodata)
    assert (again.height, again.width, again.dtype, again.overviews) == (700, 1000, "float32", (2, 4))
    assert again.acquired == datetime(2021, 6, 5, 10, 11, 12, tzinfo=UTC)
    assert choose_level(again, 448, 112) == 4


def test_block_facts_and_damage_in_words(write):
    path = write(np.random.default_rng(0).integers(1, 255, (3, 1024, 1024), dtype=np.uint8), **TILED)
    assert damage(opened(path)) is None
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    source = opened(path)
    assert (
        damage(source)
        == f"'a.tif': {source.blocks.past_end} of 16 blocks lie past the end of the file (it is truncated)"
    )


TRANSFORMS = {
    "north up": Affine(1, 0, 5e5, 0, -1, 4.6e6),
    "south up": Affine(1, 0, 5e5, 0, 1, 4.6e6),
    "rotated": Affine(0.8, 0.6, 5e5, 0.6, -0.8, 4.6e6),
    "rotated south up": Affine(0.8, -0.6, 5e5, 0.6, 0.8, 4.6e6),
    "mirrored": Affine(-1, 0, 5e5, 0, -1, 4.6e6),
    "1 x 3 m": Affine(1, 0, 5e5, 0, -3, 4.6e6),
    "degrees over the antimeridian": Affine(0.01, 0, 179.5, 0, -0.01, 10),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_footprints_tile_the_raster_exactly(write, transform):
    crs = "EPSG:4326" if transform.c < 1000 else "EPSG:32633"
    source = opened(write(places(97, 131), transform=transform, crs=crs))
    tiles = list(TileGrid(97, 131, 40))
    rings = footprint(source, [tile.core for tile in tiles])
    assert rings.shape == (len(tiles), 5, 2)
    np.testing.assert_array_equal(rings[:, 0], rings[:, -1])
    polygons = shapely.polygons(rings)
    assert shapely.is_ccw(shapely.linearrings(rings)).all()
    area = abs(transform.a * transform.e - transform.b * transform.d)
    for tile, polygon in zip(tiles, polygons, strict=True):
        assert polygon.area == pytest.approx(tile.core.height * tile.core.width * area, rel=1e-6)
        for row, col in [(tile.core.row, tile.core.col), (tile.core.row_end - 1, tile.core.col_end - 1)]:
            assert polygon.contains(shapely.Point(transform @ (col + 0.5, row + 0.5)))
    assert shapely.union_all(polygons, grid_size=1e-9).area == pytest.approx(97 * 131 * area, rel=1e-6)


def test_footprint_corners_are_pixel_corners(write):
    source = opened(write(places(97, 131)))
    ring = footprint(source, [Window(10, 20, 5, 7)])[0]
    assert ring.tolist() == [
        [500020, 4599990],
        [500020, 4599985],
        [500027, 4599985],
        [500027, 4599990],
        [500020, 4599990],
    ]
    assert footprint(source, []).shape == (0, 5, 2)
