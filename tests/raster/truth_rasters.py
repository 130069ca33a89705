"""Rasters whose pixels hold their own row and column, so that every expected chip is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from rsqa.raster.describe import open_source
from rsqa.raster.grid import block_grid
from rsqa.raster.read import level_grid, read_block
from rsqa.raster.stretch import fit_stretch

UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 1, 1)}
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


def places(height: int, width: int) -> np.ndarray:
    """(3, H, W) uint8: each pixel tells its row and column, up to 4095."""
    rows, cols = np.indices((height, width))
    return np.stack([rows % 256, cols % 256, rows // 256 * 16 + cols // 256]).astype(np.uint8)


def opened(path, **options):
    """The source, called by its file's name."""
    return open_source(str(path), name=Path(path).name, **options)


def read_all(source, tile_px, *, overlap_px=0, stretch=None, factor=1, max_tiles=None):
    """Every tile of a source: {(row, col): (pixels, valid, valid_frac, error)}, and the grid."""
    grid = level_grid(source, tile_px, factor, overlap_px)
    blocks = block_grid(grid, source.level(factor).layout, bytes_per_px=source.bytes_per_px, max_tiles=max_tiles)
    stretch = stretch or fit_stretch([source])
    found = {}
    for block in blocks:
        chips = read_block(source, grid, block, stretch, factor).chips()
        for i, (row, col) in enumerate(chips.tiles.tolist()):
            valid = np.ones(chips.pixels.shape[2:], bool) if chips.valid is None else chips.valid[i]
            found[row, col] = chips.pixels[i], valid, float(chips.valid_frac[i]), chips.error[i]
    assert len(found) == len(grid)
    return found, grid


def assert_chips_equal(found, grid, truth):
    """truth: (3, H, W) of the whole raster; every chip must be its window, padded with invalid zeros."""
    for (row, col), (pixels, valid, valid_frac, error) in found.items():
        window = grid.tile(row, col).window
        expected = np.zeros_like(pixels)
        expected[:, : window.height, : window.width] = truth[:, *window.slices]
        np.testing.assert_array_equal(pixels, expected)
        assert valid[: window.height, : window.width].all()
        assert valid.sum() == window.height * window.width
        assert (valid_frac, error) == (1.0, None)


def assert_masked(found, grid, truth, valid):
    """truth (3, H, W), valid (H, W) of the whole raster, whose windows need no padding; 0 where invalid."""
    for (row, col), (pixels, chip_valid, valid_frac, error) in found.items():
        tile = grid.tile(row, col)
        np.testing.assert_array_equal(pixels, np.where(valid, truth, 0)[:, *tile.window.slices])
        np.testing.assert_array_equal(chip_valid, valid[tile.window.slices])
        assert valid_frac == pytest.approx(valid[tile.core.slices].mean())
        assert error is None
