from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

sys.path.insert(0, str(Path(__file__).parent))

from bench_scale import compare, show


def test_bench_scale_runs(tmp_path, capsys):
    source = tmp_path / "noise.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 300), dtype=np.uint8)
    with rasterio.open(
        source, "w", driver="GTiff", height=300, width=300, count=3, dtype="uint8", crs="EPSG:32631",
        transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
    ) as file:  # fmt: skip
        file.write(pixels)
    result = compare(source, [900, 1500], 1, "--model", "rsqa.testing:EchoEngine", "--device", "cpu")
    assert result["mosaics"]["1500"]["tiles"] == 16
    assert result["mosaics"]["1500"]["engine_calls"] > 0
    assert result["sparse"]["engine_calls"] == 0
    show(result)
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
