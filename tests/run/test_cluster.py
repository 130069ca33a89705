"""Who does the parts: threads, processes, a cluster that runs already; and what they must have."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from rsqa.errors import ModelError, UsageError
from rsqa.run import cluster
from rsqa.run.cluster import check_dashboard, local_crew, remote_crew
from rsqa.run.execute import Stop, run_tasks
from rsqa.run.heap import ENVIRONMENT

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def fit() -> str:
    return ""


def unlucky() -> str:
    return "no luck"


def where(number: int) -> tuple[int, dict[str, str | None]]:
    time.sleep(0.05)
    return os.getpid(), {name: os.environ.get(name) for name in (*ENVIRONMENT, *THREADS)}


def test_threads_of_this_process_carry_the_tasks():
    with local_crew(None, "cpu", fit, print, None) as crew:
        done = dict(run_tasks(where, range(8), crew, Stop()))
        assert list(crew.roster().values()) == [3]
    assert sorted(done) == list(range(8))
    assert {pid for pid, _ in done.values()} == {os.getpid()}


def test_processes_of_this_machine_carry_the_tasks_and_share_the_processors():
    from dask.system import CPU_COUNT

    with local_crew(2, "cpu", fit, print, None) as crew:
        done = dict(run_tasks(where, range(12), crew, Stop()))
        assert crew.call(os.getpid) != os.getpid()
        assert len(crew) in (1, 2)
    assert sorted(done) == list(range(12))
    assert os.getpid() not in {pid for pid, _ in done.values()}
    for _, environment in done.values():
        assert environment == ENVIRONMENT | dict.fromkeys(THREADS, str(max(1, CPU_COUNT // 2)))


@pytest.mark.parametrize(
    ("seen", "found", "device", "workers", "expected"),
    [
        ("", 4, "cuda", 2, ["0", "1", "2", "3"]),
        ("3,1", 9, "cuda", 2, ["3", "1"]),
        ("", 2, "cuda:1", 1, []),
        ("", 0, "cpu", 8, []),
    ],
)
def test_each_process_has_a_device_of_its_own(monkeypatch, seen, found, device, workers, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    monkeypatch.setattr("torch.cuda.device_count", lambda: found)
    assert cluster._devices(workers, device) == expected


@pytest.mark.parametrize(("device", "match"), [("cuda", "1 CUDA devices found"), ("cuda:0", "on cuda:0 alone")])
def test_more_processes_than_devices_are_refused(monkeypatch, device, match):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(UsageError, match=match):
        cluster._devices(2, device)


def test_without_a_fit_worker_the_reason_is_the_error(monkeypatch):
    monkeypatch.setattr(cluster, "_GRACE_S", 0.0)
    notes = []
    with (
        local_crew(None, "cpu", unlucky, notes.append, None) as crew,
        pytest.raises(ModelError, match="no luck"),
    ):
        crew.call(fit)
    assert len(notes) == 1
    assert "is left out" in notes[0]


def test_a_worker_that_cannot_even_load_the_check_is_left_out(monkeypatch):
    monkeypatch.setattr(cluster, "_GRACE_S", 0.0)
    with (
        local_crew(None, "cpu", partial(int, "x"), print, None) as crew,
        pytest.raises(ModelError, match="can't load this rsqa"),
    ):
        crew.call(fit)


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 1.0)
    with (
        pytest.raises(UsageError, match="no Dask scheduler answers there"),
        remote_crew("tcp://127.0.0.1:9", fit, print, None),
    ):
        pass


def test_a_dashboard_without_bokeh_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"rsqa\[dashboard\]"):
        check_dashboard()
