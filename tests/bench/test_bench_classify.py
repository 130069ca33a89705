from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_classify import compare, show


def test_bench_classify_runs_and_both_sides_agree(capsys, monkeypatch):
    monkeypatch.delenv("RSQA_TEST_DATA", raising=False)
    result = compare(5, 1, "rsqa.testing:EchoEngine")
    show(result)
    assert result["agree"] == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")
