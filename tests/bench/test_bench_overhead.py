from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bench_overhead


def test_bench_overhead_runs(capsys, monkeypatch):
    monkeypatch.setattr(bench_overhead, "BATCH", 2)
    monkeypatch.setattr(bench_overhead, "TILE_S", 0.05)
    monkeypatch.setattr(bench_overhead, "ceiling", lambda workers, n_parts: {"per_s": 1.0, "per_cpu_s": 1.0})
    figures = bench_overhead.main([], rows=2, cols=4, n_quick=5, n_begin=100)
    cost = figures["overhead"]
    assert cost["tiles"] == 8
    assert cost["loop_s"] >= 8 * 0.05
    assert cost["elapsed_s"] >= cost["working_s"] >= 8 * 0.05
    assert [begun["parts"] for begun in figures["begin"]] == [100, 100]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures


def test_what_is_handed_out_is_recorded():
    rates = bench_overhead.ceiling(None, 50)
    assert min(rates.values()) > 0
