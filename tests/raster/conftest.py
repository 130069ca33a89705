from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from truth_rasters import UTM


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
