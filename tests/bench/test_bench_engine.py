"""Is rsqa still much faster than transformers at its best? Small enough for every test run, by CPU time."""

from __future__ import annotations

import time
from statistics import median

import pytest
import torch

from rsqa.bench.checkpoint import bench_checkpoint
from rsqa.bench.ours import Ours
from rsqa.bench.rivals import batched
from rsqa.bench.work import Case, Setup

FLOOR = 3.0
"""Times the answers per CPU second of batched transformers. Machines differ; less than this is a defect anywhere."""
OURS, THEIRS = Case(224, 16, 8, None), Case(224, 4, 8, None)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cpu_seconds(side):
    start = time.process_time()
    side.run()
    return time.process_time() - start


@pytest.mark.usefixtures("one_thread")
def test_bench_engine(tmp_path):
    setup = Setup(str(bench_checkpoint("nano", tmp_path / "nano")), "cpu", "float32", 1, str(tmp_path))
    ours, theirs = Ours(setup), batched(setup)
    ours.prepare(OURS)
    theirs.prepare(THEIRS)
    assert ours.tokens(4) == theirs.tokens(4)  # wrong is always fast
    turns = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(3)]
    ours_s, theirs_s = (median(column) for column in zip(*turns, strict=True))
    assert (OURS.n_tiles / ours_s) / (THEIRS.n_tiles / theirs_s) > FLOOR
