from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_merge import measure, show


def test_bench_merge_runs(capsys):
    result = measure(1000, 3000)
    assert result["boxes"] > result["things"] == result["objects"]
    show(result)
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
