"""One part, done by hand."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from rsqa.errors import ExitCode
from rsqa.run.folder import part_path, read_plan, write_plan
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.run.work import Done, Failed, do_part, give_up
from rsqa.run.workbench import Job
from rsqa.tasks.question import Question

WATER = Question("water", "Is there water?", "yesno", ("yes", "no"))


@pytest.fixture
def job(raster, tmp_path):
    request = Request(
        sources=(str(raster),), questions=(WATER,), out=tmp_path / "out", tile_px=56, batch_size=4, part_tiles=12,
        device="cpu", model="rsqa.testing:EchoEngine",
    )  # fmt: skip
    report = ask(request)
    return Job(str(report.out), report.plan_id, "cpu", tmp_path.name)


def test_a_part_of_a_plan_that_is_no_longer_there_is_not_committed(job, tmp_path):
    out = tmp_path / "out"
    assert isinstance(do_part(job, 0), Done)
    part_path(out, 1).unlink()
    write_plan(out, replace(read_plan(out), min_valid=0.9))  # as another run with --overwrite does
    failed = do_part(job, 1)
    assert isinstance(failed, Failed)
    assert "changed under the run" in failed.message
    assert not part_path(out, 1).exists()


def test_a_part_that_is_given_up_has_all_its_tiles_as_errors(job, tmp_path):
    part = part_path(tmp_path / "out", 1)
    before = pq.read_table(part)
    done = give_up(job, 1)
    assert isinstance(done, Done)
    assert done.receipt.n_error == done.receipt.n_tiles == before.num_rows
    after = pq.read_table(part)
    assert after.schema == before.schema
    for name in ("tile_id", "geometry", "question_id", "processing_id"):
        assert after[name] == before[name]
    assert set(after["status"].to_pylist()) == {"error"}
    assert set(after["error"].to_pylist()) == {"worker_crash"}
    assert after["value"].null_count == after.num_rows


def test_a_folder_without_a_plan_is_one_line(tmp_path):
    failed = do_part(Job(str(tmp_path), "id", "cpu", "run"), 0)
    assert (failed.exit_code, failed.details) == (ExitCode.OUTPUT, "")
    assert "holds no plan.json" in failed.message
