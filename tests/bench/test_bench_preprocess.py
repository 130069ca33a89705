from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_preprocess import compare, show


def test_bench_preprocess_runs(capsys):
    show(compare([56, 100], 2, 1))
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
