from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_monitor import measure, show


def test_bench_monitor_runs(tmp_path, capsys):
    show(measure(3, 2, tmp_path))
    assert '"scenes": 3' in capsys.readouterr().out.splitlines()[-1]
