"""Rasters whose pixels hold their own row and column, so that every expected chip is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import settings
from rasterio.transform import from_origin

settings.register_profile("raster", deadline=None, max_examples=50)
settings.load_profile("raster")

UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 1, 1)}
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


def places(height: int, width: int) -> np.ndarray:
    """(3, H, W) uint8: each pixel tells its row and column, up to 4095."""
    rows, cols = np.indices((height, width))
    return np.stack([rows % 256, cols % 256, rows // 256 * 16 + cols // 256]).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path):
    """write(pixels (C, H, W), name=..., **profile) -> path of a GeoTIFF, by default in UTM with 1 m pixels."""

    def write_raster(pixels: np.ndarray, name: str = "a.tif", **profile: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = pixels.shape
        options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
        with rasterio.open(path, "w", **options | UTM | profile) as dataset:
            dataset.write(pixels)
        return str(path)

    return write_raster
