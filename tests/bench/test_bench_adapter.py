from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_adapter import run


def test_bench_adapter_runs():
    found = run("nano", "cpu", "float32", 56, 2, 1)
    cost = {way["way"]: way for way in found["ways"]}
    assert cost["base"]["ratio"] == cost["base"]["work"] == 1
    assert 1 < cost["static"]["work"] <= cost["robust"]["work"]
    # Eight prefixes cost more than one, which the longer questions of the others do not outweigh.
    assert cost["robust"]["work"] != cost["paper"]["work"] > 1
