from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_plan import compare, show, total_read


def test_bench_plan_runs(capsys):
    """All but time is near the truth on any machine."""
    found = compare(300, ["one tiny file"], "--model", "rsqa.testing:EchoEngine", "--device", "cpu")
    case = found["one tiny file"]
    assert case["told"]["tiles"] == 4
    for figure in ("memory_bytes", "output_bytes", "read_bytes"):
        if case["told"][figure] is not None and case["came"][figure] is not None:
            assert 1 / 3 < case["told"][figure] / case["came"][figure] < 3
    show("again", case)
    assert "memory_bytes" in capsys.readouterr().out
    json.dumps(found)


def test_reads_that_were_interrupted_count_for_the_thread_that_began_them():
    lines = """\
7  read(5</d/a.tif>, "..", 100) = 64
8  pread64(6</d/a.tif>,  <unfinished ...>
7  read(9</else/a.tif>, "..", 100) = 1000
7  read(9</else/a.tif>,  <unfinished ...>
8  <... pread64 resumed>"..", 100, 0) = 36
7  <... read resumed>"..", 100) = 2000
8  read(6</d/a.tif>, "..", 100) = -1 EINTR (Interrupted system call)
""".splitlines()
    assert total_read(lines, "/d") == total_read(lines, "/d/a.tif") == 100
    assert total_read(lines, "/d/a") == 0
