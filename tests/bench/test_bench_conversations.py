from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_conversations import measure


def test_bench_conversations_runs():
    found = measure(300)
    assert (found["records"], found["steps"]) == (300, 3)  # 19 batches of 16, 8 of them a step
