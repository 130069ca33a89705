"""Each promise about interruption, with the fault injected from outside."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from rsqa.run.folder import read_plan
from rsqa.run.plan import Parts

N_TILES = 66


def resume_and_compare(asking, uninterrupted, *options):
    """The same command again does only what was left, and everything is as if nothing had happened."""
    plan = asking.out / "plan.json"
    parts = Parts(read_plan(asking.out)) if plan.exists() else None
    left = N_TILES
    if parts is not None:
        names = {path.name for path in (asking.out / "parts").glob("*.parquet")}
        left = sum(parts.n_tiles(n) for n in range(len(parts)) if f"{n:08d}.parquet" not in names)
    before = asking.asked()
    done = asking.run(*options)
    assert done.returncode == 0, done.stderr
    assert asking.asked() - before == left
    assert asking.files() == uninterrupted.files()
    assert not asking.leftovers()
    return left


def test_an_uninterrupted_run_asks_every_tile_once(uninterrupted):
    assert uninterrupted.asked() == N_TILES
    assert uninterrupted.committed() >= 6
    assert not uninterrupted.leftovers()


def test_nothing_new_asks_nothing(asking, uninterrupted):
    assert asking.run().returncode == 0
    assert resume_and_compare(asking, uninterrupted) == 0


@pytest.mark.parametrize("options", [("--workers", "2")], ids=" ".join)
def test_the_same_bytes_from_processes(asking, uninterrupted, options):
    done = asking.run(*options)
    assert done.returncode == 0, done.stderr
    assert asking.files() == uninterrupted.files()


def kill_at_random(asking, seed, *options):
    rng = random.Random(seed)
    running = asking.start(*options, delay_s=0.1)
    deadline = time.monotonic() + rng.uniform(0.3, 4.0)
    while running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_a_random_moment(asking, uninterrupted, seed):
    kill_at_random(asking, seed)
    resume_and_compare(asking, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_kill_9_at_twenty_random_moments(asking, uninterrupted, seed):
    kill_at_random(asking, seed)
    kill_at_random(asking, seed + 1000)  # and once more while it resumes
    resume_and_compare(asking, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 205))
def test_kill_9_of_driver_and_workers(asking, uninterrupted, seed):
    kill_at_random(asking, seed, "--workers", "2")
    resume_and_compare(asking, uninterrupted, "--workers", "2")


def kill_at_call(asking, name, number):
    """Kill the run at its number-th call (in one of its threads) of a system call; -> whether it came that far."""
    before = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={name}:signal=SIGKILL:when={number}"]
    done = asking.run(before=before)
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    return done.returncode != 0


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
@pytest.mark.parametrize(
    ("name", "number"), [("fsync", 1), ("fsync", 3), ("fsync", 4), ("fsync", 9), ("rename", 1), ("rename", 3)]
)
def test_kill_9_at_a_commit(asking, uninterrupted, name, number):
    assert kill_at_call(asking, name, number)
    resume_and_compare(asking, uninterrupted)


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["rename", "fsync", "unlink"])
def test_kill_9_at_every_commit(asking, uninterrupted, name):
    number = 1
    while kill_at_call(asking, name, number):
        resume_and_compare(asking, uninterrupted)
        shutil.rmtree(asking.out)
        number += 1
    assert number > {"rename": 5, "fsync": 20, "unlink": 1}[name]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_what_is_in_flight(asking, uninterrupted, signum):
    running = asking.start(delay_s=0.3)
    while not asking.asked():
        time.sleep(0.01)
    running.send_signal(signum)
    assert running.wait(30) == 128 + signum
    running.communicate()
    committed = asking.committed()
    assert 0 < committed < uninterrupted.committed()
    assert not asking.leftovers()
    assert not (asking.out / "run.json").exists()
    resume_and_compare(asking, uninterrupted)


def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(asking, uninterrupted):
    running = asking.start("--workers", "2", delay_s=0.3)
    while not asking.asked():
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "distributed" not in errors
    parts = Parts(read_plan(asking.out))
    committed = [int(path.stem) for path in (asking.out / "parts").glob("*.parquet")]
    assert asking.asked() == sum(map(parts.n_tiles, committed)) > 0  # nothing that was asked is lost
    resume_and_compare(asking, uninterrupted)


def test_a_time_budget_ends_with_10(asking, uninterrupted):
    assert asking.run("--max-duration", "1s", delay_s=0.5).returncode == 10
    assert asking.committed() < uninterrupted.committed()
    resume_and_compare(asking, uninterrupted)


def test_a_second_run_on_the_same_output_exits_75_at_once(asking, uninterrupted):
    first = asking.start(delay_s=0.3)
    while not asking.asked():
        time.sleep(0.01)
    second = asking.run()
    assert second.returncode == 75
    assert "another run" in second.stderr
    assert first.wait(60) == 0
    first.communicate()
    assert asking.files() == uninterrupted.files()


def test_a_full_disk_is_one_line_and_exit_5_and_keeps_what_is_there(asking, uninterrupted, tmp_path):
    first = [uninterrupted.out / "sources.parquet", *(uninterrupted.out / "parts").iterdir()]
    largest = max(path.stat().st_size for path in first)
    assert (uninterrupted.out / "answers.parquet").stat().st_size > largest + 1000

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG, as a full disk with ENOSPC
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 1000, largest + 1000))

    done = subprocess.run(
        asking.command(),
        env=asking.environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert len(done.stderr.strip().splitlines()) == 1
    assert "File too large" in done.stderr
    assert asking.committed() > 0
    resume_and_compare(asking, uninterrupted)


def test_an_output_that_cannot_be_is_exit_5(asking):
    asking.out.write_text("a file")
    done = asking.run()
    assert done.returncode == 5
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_part_is_done_again(asking, uninterrupted):
    assert asking.run().returncode == 0
    part = asking.out / "parts" / "00000001.parquet"
    part.write_bytes(part.read_bytes()[:-5])
    before = asking.asked()
    assert asking.run().returncode == 0
    assert 0 < asking.asked() - before <= 24
    assert asking.files() == uninterrupted.files()


def test_another_plan_is_refused_with_the_difference(asking):
    assert asking.run().returncode == 0
    done = asking.run("--min-valid", "0.9")
    assert done.returncode == 2
    assert "min_valid: 0.5 there, 0.9 asked" in done.stderr
    assert asking.run("--min-valid", "0.9", "--overwrite").returncode == 0


def test_a_source_that_changed_is_refused_on_resume(asking, tmp_path):
    own = tmp_path / "own.tif"
    shutil.copy(asking.raster, own)
    mine = type(asking)(own, asking.out, asking.log)
    assert mine.run().returncode == 0
    with rasterio.open(own, "r+") as file:
        file.write(np.zeros((3, 330, 600), np.uint8))
    done = mine.run()
    assert done.returncode == 4
    assert "own.tif" in done.stderr


def test_a_source_that_changes_under_the_run_commits_nothing_of_it(asking, tmp_path):
    own = tmp_path / "own.tif"
    shutil.copy(asking.raster, own)
    mine = type(asking)(own, asking.out, asking.log)
    running = mine.start(delay_s=0.4)
    while not mine.asked():
        time.sleep(0.01)
    committed = mine.committed()
    with rasterio.open(own, "r+") as file:
        file.write(np.zeros((3, 330, 600), np.uint8))
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 4, errors
    assert mine.committed() <= committed + 1
    assert not (mine.out / "run.json").exists()


def test_finish_rebuilds_what_is_derived(asking, uninterrupted):
    assert asking.run().returncode == 0
    for name in ("answers.parquet", "item.json", "run.json"):
        (asking.out / name).unlink()
    shutil.rmtree(asking.out / "tiles.zarr")
    rebuild = [*asking.command()[:3], "finish", str(asking.out), "--quiet"]
    assert subprocess.run(rebuild, timeout=60, check=False).returncode == 0
    assert asking.files() == uninterrupted.files()
    assert json.loads((asking.out / "run.json").read_text())["plan_id"]


def test_reading_and_the_model_overlap(asking):
    """The trace of two slots: somebody read or wrote while another was in the model, and the model was never shared."""
    assert asking.run(delay_s=0.05).returncode == 0
    spans = pq.read_table(asking.out / "performance.parquet").to_pylist()
    model = sorted((s["start"], s["end"], s["slot"]) for s in spans if s["stage"] == "model")
    others = [(s["start"], s["end"], s["slot"]) for s in spans if s["stage"] in ("read", "write")]
    assert len({slot for _, _, slot in model}) == 2
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(model))
    assert any(a < end and start < b and slot != other for start, end, slot in others for a, b, other in model)
