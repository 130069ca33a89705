from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_detect import measure, show


def test_bench_detect_runs(capsys):
    result = measure(1, 0, 160, 80, "tinyrs-nano", side_px=320)
    assert result["procedural"]["tiles"] == 16
    show(result)
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
