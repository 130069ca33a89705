import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from answer_key import PLAN_ID, QUESTIONS, all_tiles, source, write_parts

from rsqa.errors import OutputError
from rsqa.sinks.finish import FinishInputs, finish
from rsqa.sinks.whole import sweep

SOURCE = source()


def inputs(out: Path) -> FinishInputs:
    parts = write_parts(out / "parts", [SOURCE])
    return FinishInputs(
        plan_id=PLAN_ID,
        sources=(SOURCE,),
        questions=QUESTIONS,
        parts=tuple(parts),
        software={"rsqa": "0.1.0"},
        lineage="Tiles were shown to a model.",
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_all_outputs_are_there_and_finishing_again_changes_nothing_but_the_run(tmp_path):
    made = inputs(tmp_path)
    summary = finish(tmp_path, made, {"started": "today", "tiles_per_s": 3.5})
    assert {path.name for path in tmp_path.iterdir()} == {
        "parts", "answers.parquet", "tiles.zarr", "item.json", "run.json"
    }  # fmt: skip
    assert summary.n_rows == pq.read_metadata(tmp_path / "answers.parquet").num_rows == 3 * len(all_tiles(SOURCE))
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["started"], run["tiles_per_s"], run["plan_id"]) == ("today", 3.5, PLAN_ID)
    assert run["summary"]["tiles"] == summary.tiles
    assert set(json.loads((tmp_path / "item.json").read_text())["assets"]) == {"answers", "cube", "run"}

    before = contents(tmp_path)
    finish(tmp_path, made, {"started": "tomorrow"})
    after = contents(tmp_path)
    assert before.pop("run.json") != after.pop("run.json")
    assert before == after


def test_item_and_run_vanish_first_and_return_last(tmp_path, monkeypatch):
    made = inputs(tmp_path)
    finish(tmp_path, made, {})
    steps = []
    real = os.replace

    def replace(old, new):
        names = [Path(path).name for path in (old, new)]
        steps.append(f"+{names[1]}" if names[0].startswith(".") else f"-{names[0]}")
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    finish(tmp_path, made, {})
    assert steps == [
        "-run.json", "-item.json", "+answers.parquet", "-tiles.zarr", "+tiles.zarr", "+item.json", "+run.json"
    ]  # fmt: skip


def test_a_damaged_part_leaves_no_run_and_no_item(tmp_path):
    made = inputs(tmp_path)
    finish(tmp_path, made, {})
    made.parts[1].write_bytes(b"")
    with pytest.raises(OutputError, match=r"00000001\.parquet is damaged or missing"):
        finish(tmp_path, made, {})
    assert not (tmp_path / "run.json").exists()
    assert not (tmp_path / "item.json").exists()


FINISH = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_finish import *
calls = 0
def count(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
out = Path(sys.argv[2])
made = inputs(out)
os.replace = count(os.replace)
finish(out, made, {})
"""


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_on_the_way_and_finished_again_the_files_are_the_same(tmp_path, step):
    here = str(Path(__file__).parent)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        finish(folder, inputs(folder), {})
    n_parts = len(inputs(whole).parts)
    command = [sys.executable, "-c", FINISH, here, str(killed), str(step)]
    surroundings = os.environ | {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}
    assert subprocess.run(command, env=surroundings, check=False).returncode == -signal.SIGKILL
    assert not (killed / "run.json").exists() or step == 1
    assert n_parts > 2
    sweep(killed)
    finish(killed, inputs(killed), {})
    assert contents(killed) == contents(whole)
