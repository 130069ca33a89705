"""`rsqa monitor` as cron runs it: a process without a terminal, an environment or a word to say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import pytest

import rsqa

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))

from painted_scenes import watch_text, when, write_scene

from rsqa.monitor.changes import read_changes

ROOT = str(Path(rsqa.__file__).parents[1])


def monitor(folder: Path, *arguments: str, before=(), **environment) -> subprocess.CompletedProcess[str]:
    """With `env -i`, from another folder than the file's."""
    command = [*before, sys.executable, "-m", "rsqa", "monitor", *arguments]
    env = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=env, cwd=folder.parent, capture_output=True, text=True, timeout=280, check=False)


def watched(folder: Path, **sections) -> str:
    (folder / "incoming").mkdir(parents=True)
    for name, marked in (("a", [(0, 0)]), ("b", [(1, 1)])):
        write_scene(folder / "incoming" / f"{name}.tif", marked, night=ord(name) - ord("a"))
    (folder / "WATCH.toml").write_text(watch_text(**{"change": "confirmations = 1"} | sections))
    return str(folder / "WATCH.toml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "port.monitor").rglob("*.parquet")}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder after a pass that nothing disturbed."""
    folder = tmp_path_factory.mktemp("done") / "watched"
    run = monitor(folder, "run", watched(folder, tell='log = "m.log"'), "--exit-code")
    assert (run.returncode, run.stdout, run.stderr) == (11, "", "")
    return folder


def test_a_pass_says_nothing_and_its_log_everything(done):
    table, _ = read_changes(done / "port.monitor/changes.parquet")
    assert sorted(table["tile_id"].to_pylist()) == ["0/0", "1/1"]
    lines = [json.loads(line) for line in (done / "m.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["observed", "observed", "changed"]
    assert all(line["ts"].endswith("Z") and line["level"] == "info" for line in lines)
    assert lines[0]["tiles"] == 16


def test_the_other_commands(done):
    watch = str(done / "WATCH.toml")
    assert "2 acquisitions" in monitor(done, "status", watch).stdout
    told = json.loads(monitor(done, "status", watch, "--json").stdout)
    assert (told["observed"], told["changes"], told["runs"][0]["exit_code"]) == (2, 2, 11)
    assert "2026-01-02 10:30  mark      yes" in monitor(done, "history", watch, "--tile", "1/1").stdout
    assert monitor(done, "replay", watch, "--confirmations", "2").stdout == "0 changes\n"
    assert monitor(done, "replay", watch).stdout.endswith("2 changes\n")
    checked = monitor(done, "check", watch)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "28 x 28 in units of EPSG:32631" in checked.stdout


def test_a_watch_that_is_wrong_is_one_line(tmp_path):
    path = watched(tmp_path / "w", change="confirmations = 1\nmin_detla = 1")
    run = monitor(tmp_path / "w", "run", path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    assert "did you mean 'min_delta'?" in run.stderr
    assert not (tmp_path / "w/port.monitor").exists()


def kill_at(folder: Path, watch: str, name: str, number: int) -> bool:
    inject = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={name}:signal=SIGKILL:when={number}"]
    run = monitor(folder, "run", watch, before=[shutil.which("strace"), *inject[1:]])
    assert run.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), run.stderr
    return run.returncode != 0


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def resumed(folder: Path, watch: str, done: Path) -> None:
    run = monitor(folder, "run", watch)
    assert (run.returncode, run.stderr) == (0, "")
    assert files(folder) == files(done)
    left = [path.name for path in (folder / "port.monitor").rglob(".*") if path.name != ".rsqa.lock"]
    assert left == []
    assert list((folder / "port.monitor/work").iterdir()) == []


@needs_strace
@pytest.mark.parametrize(("name", "number"), [("fsync", 4), ("fsync", 12), ("rename", 35)])
def test_kill_9_at_a_commit(done, tmp_path, name, number):
    """The last is that of the change that is told."""
    watch = watched(tmp_path / "w")
    assert kill_at(tmp_path / "w", watch, name, number)
    resumed(tmp_path / "w", watch, done)


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["rename", "fsync", "unlink"])
def test_kill_9_at_every_commit(done, tmp_path, name):
    number = 1
    while True:
        folder = tmp_path / f"{name}{number}"
        watch = watched(folder)
        if not kill_at(folder, watch, name, number):
            break
        resumed(folder, watch, done)
        number += 1
    assert number > {"rename": 15, "fsync": 40, "unlink": 1}[name]


def test_two_at_once_and_a_signal(done, tmp_path):
    """The second one leaves at once; the first one, told to stop, leaves what is whole, and the next one goes on."""
    folder = tmp_path / "w"
    watch = watched(folder)
    text = (folder / "WATCH.toml").read_text().replace("ColourEngine", "EchoEngine")
    (folder / "WATCH.toml").write_text(text)
    env = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "RSQA_FAKE_DELAY_S": "1", "RSQA_FAKE_LOG": str(tmp_path / "log")}
    command = [sys.executable, "-m", "rsqa", "monitor", "run", watch]
    first = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "log").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    second = monitor(folder, "run", watch)
    assert (second.returncode, second.stdout, second.stderr) == (75, "", "")
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    assert first.communicate() == ("", "")
    whole = ds.dataset(list(map(str, (folder / "port.monitor").rglob("*Z.*.parquet")))).count_rows()
    assert whole in (0, 16)  # no half a scene, and none begun after the signal; on a slow machine the first was done
    run = monitor(folder, "run", watch)
    assert (run.returncode, run.stderr) == (0, "")
    table = ds.dataset(folder / "port.monitor/observations").to_table(columns=["acquired"])
    assert sorted(set(table["acquired"].to_pylist())) == [when(0), when(1)]
    assert len(table) == 32


def test_cron_every_minute_on_a_pass_that_takes_three(tmp_path):
    """The first pass waits within its first batch until its log is read; those that start meanwhile leave at once."""
    folder, log = tmp_path / "w", tmp_path / "log"
    watch = watched(folder)
    text = (folder / "WATCH.toml").read_text().replace("ColourEngine", "EchoEngine")
    (folder / "WATCH.toml").write_text(text)
    os.mkfifo(log)
    env = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "RSQA_FAKE_LOG": str(log)}
    command = [sys.executable, "-m", "rsqa", "monitor", "run", watch]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, env=env, **said)
    while not list((folder / "port.monitor").glob("work/*/scene.tif")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    write_scene(folder / "incoming/c.tif", [(2, 2)], night=2)
    others = [subprocess.Popen(command, env=env, **said) for _ in range(2)]
    assert [(other.communicate(timeout=200), other.returncode) for other in others] == [(("", ""), 75)] * 2
    reader = os.open(log, os.O_RDWR)  # from now on it waits for nobody
    assert (first.communicate(timeout=200), first.returncode) == (("", ""), 0)
    os.close(reader)
    (folder / "WATCH.toml").write_text(text.replace("EchoEngine", "ColourEngine"))
    last = monitor(folder, "run", watch)
    assert (last.returncode, last.stderr) == (0, "")
    table = ds.dataset(folder / "port.monitor/observations").to_table(columns=["acquired"])
    assert sorted(table["acquired"].to_pylist()) == sorted([when(0), when(1), when(2)] * 16)
