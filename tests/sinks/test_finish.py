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
from rsqa.tasks.task import Ask

SOURCE = source()


def inputs(out: Path) -> FinishInputs:
    parts = write_parts(out / "parts", [SOURCE])
    return FinishInputs(
        plan_id=PLAN_ID,
        sources=(SOURCE,),
        questions=QUESTIONS,
        task=Ask(),
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
        old, new = Path(old), Path(new)
        if new.parent == tmp_path:  # the cube's own files are moved into place in their folder
            steps.append(f"+{new.name}" if old.name.startswith(".") else f"-{old.name}")
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
out, left = Path(sys.argv[2]), int(sys.argv[3])
made, real = inputs(out), os.replace
def replace(old, new):
    global left
    if Path(new).parent == out:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    real(old, new)
os.replace = replace
finish(out, made, {})
"""


@pytest.mark.parametrize("step", [2, 5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 3, 4, 6, 7))])
def test_killed_on_the_way_and_finished_again_the_files_are_the_same(tmp_path, step):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        finish(folder, inputs(folder), {})
    command = [sys.executable, "-c", FINISH, str(Path(__file__).parent), str(killed), str(step)]
    surroundings = os.environ | {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}
    assert subprocess.run(command, env=surroundings, check=False).returncode == -signal.SIGKILL
    assert not (killed / "run.json").exists() or step == 1
    sweep(killed)
    finish(killed, inputs(killed), {})
    assert contents(killed) == contents(whole)


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from test_finish import *
from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.zarr import finish_cube
out = Path(sys.argv[2])
parts = inputs(out).parts
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
for write in (
    lambda: finish_answers(out / "answers.parquet", parts, QUESTIONS, [SOURCE.crs_wkt], PLAN_ID),
    lambda: finish_cube(out / "tiles.zarr", parts, [SOURCE], QUESTIONS, PLAN_ID),
):
    try:
        write()
    except OutputError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    said = [f"can't write {tmp_path / name}: File too large; " for name in ("answers.parquet", "tiles.zarr")]
    assert ended.stdout.splitlines() == [f"{line}free some space and run the same command again" for line in said]
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
