"""A cluster that runs already: the same files as without one, whatever becomes of its workers."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

from rsqa.errors import ExitCode, UsageError
from rsqa.run import execute
from rsqa.run.pipeline import ask, plan
from rsqa.run.request import Request
from rsqa.tasks.question import Question
from rsqa.testing import DEADLY

WATER = Question("water", "Is there water?", "yesno", ("yes", "no"))


def request(raster, out, **options):
    return Request(
        sources=(str(raster),), questions=(WATER,), out=out, tile_px=56, batch_size=4, device="cpu",
        model="rsqa.testing:EchoEngine", **options,
    )  # fmt: skip


@pytest.fixture
def scheduler():
    """Address of a cluster of one worker."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", memory_limit=0,
        dashboard_address="127.0.0.1:0",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def test_a_running_cluster_gives_the_same_bytes(raster, tmp_path, scheduler):
    here = ask(request(raster, tmp_path / "here", part_tiles=12))
    shown = []
    there = ask(request(raster, tmp_path / "there", part_tiles=12, scheduler=scheduler), on_dashboard=shown.append)
    assert there.exit_code == here.exit_code == ExitCode.DONE
    assert (there.n_parts, there.parts_again, there.engine_calls) == (here.n_parts, 0, here.engine_calls)
    for path in (*(here.out / "parts").iterdir(), here.out / "answers.parquet"):
        assert (there.out / path.relative_to(here.out)).read_bytes() == path.read_bytes()
    assert len(shown) == 1
    assert shown[0].startswith("http://")


def test_batch_and_parts_are_measured_where_the_model_will_run(raster, tmp_path, scheduler, monkeypatch):
    asked = request(raster, tmp_path / "out", scheduler=scheduler)
    monkeypatch.setattr("rsqa.run.trial.Here.call", lambda self, function: pytest.fail("measured here"))
    report = plan(asked)
    assert report.expected.seconds > 0
    assert report.n_parts >= 1
    assert not asked.place.has("")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"workers": 2}, "--workers and --scheduler"),
        ({"device": "auto"}, "--device cuda or cpu"),
        ({"device": "cuda:1"}, "--device cuda or cpu"),
        ({"cache_features": "seen"}, "--cache-features and --scheduler"),
    ],
)
def test_what_does_not_go_with_a_running_cluster(raster, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        replace(request(raster, tmp_path / "out"), scheduler="tcp://127.0.0.1:1", **options)


@dataclass
class Workers:
    """A scheduler, and workers without anybody who starts them anew."""

    address: str
    environment: dict[str, str]
    alive: list[subprocess.Popen] = field(default_factory=list)

    def join(self) -> None:
        command = ["-m", "distributed.cli.dask_worker", self.address, "--nthreads", "2", "--no-nanny",
                   "--no-dashboard", "--memory-limit", "0"]  # fmt: skip
        self.alive.append(subprocess.Popen([sys.executable, *command], env=self.environment, stderr=subprocess.DEVNULL))

    def kill(self, number: int) -> int:
        """-> its process."""
        worker = self.alive.pop(number)
        worker.kill()
        worker.wait()
        return worker.pid


@contextmanager
def running_cluster(environment: dict[str, str]) -> Iterator[Workers]:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard"]  # fmt: skip
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as scheduler:
        workers = None
        try:
            for line in scheduler.stderr:
                if found := re.search(r"Scheduler at:\s*(tcp://\S+)", line):
                    workers = Workers(found[1], environment)
                    break
            yield workers
        finally:
            for worker in workers.alive if workers else ():
                worker.kill()
                worker.wait()
            scheduler.kill()


@pytest.mark.slow
def test_processes_give_the_bytes_of_threads_with_a_real_model(raster, tmp_path):
    asked = replace(request(raster, tmp_path / "threads", part_tiles=12), model=None, tile_px=224)
    threads = ask(asked)
    processes = ask(replace(asked, out=tmp_path / "processes", workers=2))
    assert threads.exit_code == processes.exit_code == ExitCode.DONE
    for path in (*(threads.out / "parts").iterdir(), threads.out / "answers.parquet"):
        assert (processes.out / path.relative_to(threads.out)).read_bytes() == path.read_bytes()


@contextmanager
def chaos(workers: Workers, out: Path, seed: int) -> Iterator[list[int]]:
    """Up to four workers join, one after another; after every third commit one dies, at work or not. -> who died."""
    rng, over, deaths = random.Random(seed), threading.Event(), []

    def n_committed() -> int:
        return len(list((out / "parts").glob("*.parquet")))

    def rage() -> None:
        while not over.wait(rng.uniform(0.5, 2.0)):
            if len(workers.alive) < 4:
                workers.join()
            elif n_committed() > 3 * len(deaths):
                deaths.append(workers.kill(rng.randrange(4)))

    raging = threading.Thread(target=rage)
    raging.start()
    try:
        yield deaths
    finally:
        over.set()
        raging.join()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2))
def test_the_same_files_from_threads_processes_and_workers_that_join_late(asking, raster, tmp_path, seed, capsys):
    asked = request(raster, tmp_path / "threads", part_tiles=2)
    threads = ask(asked)
    processes = ask(replace(asked, out=tmp_path / "processes", workers=2))
    there = replace(asked, out=tmp_path / "there")
    slow = {**os.environ, "RSQA_FAKE_DELAY_S": "1.0", "OMP_NUM_THREADS": "1"}
    with running_cluster(slow) as workers, chaos(workers, there.out, seed) as deaths:
        report = ask(replace(there, scheduler=workers.address))
    assert threads.exit_code == processes.exit_code == report.exit_code == ExitCode.DONE
    files, *others = (replace(asking, out=done.out).files() for done in (threads, processes, report))
    assert others == [files, files]
    assert deaths
    with capsys.disabled():
        print(f"\n{report.n_parts} parts, {len(deaths)} workers killed, {report.parts_again} parts begun again")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_part_that_kills_its_workers_becomes_errors_and_costs_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "MOST_LOST", 1)  # each death costs the start of a process
    raster = tmp_path / "deadly.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 112, 448), dtype=np.uint8)
    pixels[:, 56:, 112:168] = DEADLY  # tile row 1, column 2
    with rasterio.open(
        raster, "w", driver="GTiff", height=112, width=448, count=3, dtype="uint8", crs="EPSG:32631",
        transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6), tiled=True, blockxsize=112, blockysize=112,
    ) as file:  # fmt: skip
        file.write(pixels)
    options = {"part_tiles": 4, "workers": 2}
    report = ask(replace(request(raster, tmp_path / "deadly", **options), model="rsqa.testing:DeadlyEngine"))
    right = ask(request(raster, tmp_path / "right", part_tiles=4))
    assert report.exit_code == ExitCode.TILES_FAILED
    assert report.parts_given_up == 1
    rows = geopandas.read_parquet(report.out / "answers.parquet").set_index("tile_id").sort_index()
    expected = geopandas.read_parquet(right.out / "answers.parquet").set_index("tile_id").sort_index()
    failed = rows[rows.status == "error"]
    assert set(failed.error) == {"worker_crash"}
    assert sorted(zip(failed.tile_row, failed.tile_col, strict=True)) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    others = rows.index.difference(failed.index)
    assert (rows.loc[others, ["value", "confidence"]] == expected.loc[others, ["value", "confidence"]]).all(axis=None)
