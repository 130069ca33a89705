from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bench_device
from bench_device import Grid, run


def test_bench_device_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_device, "ROUNDS", 1)
    monkeypatch.setattr("rsqa.models.vision.Vision.compiled", lambda tower: tower)  # a C++ compiler and a minute
    grid = Grid((56,), (1, 2), (1, 2), (1, 3), 20, 64)
    found = run("nano", "cpu", "float32", tmp_path / "model", grid)
    assert len(found["answers"]) == 4
    assert all(row["answers_per_s"] > 0 for row in found["answers"])
    assert [row["rows"] for row in found["decode"]] == [1, 3]
