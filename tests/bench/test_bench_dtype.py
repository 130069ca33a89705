from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from bench_dtype import compare


def test_bench_dtype_runs():
    found = compare(np.random.default_rng(0).integers(0, 256, (2, 3, 56, 56), dtype=np.uint8), ("float32", "int8"))
    assert found["answers"] == 12
    assert found["dtypes"]["float32"]["same"] == 1
