from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rsqa.errors import RsqaError
from rsqa.run import execute
from rsqa.run.execute import Crashed, Stop, dask_executor, run_tasks, stop_on_signals
from rsqa.run.heap import ENVIRONMENT


def square(number: int) -> int:
    return number * number


def where(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def allocator(number: int) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ENVIRONMENT)


def test_every_number_once_with_its_result():
    with ThreadPoolExecutor(3) as pool:
        assert sorted(run_tasks(square, range(20), pool, 4, Stop())) == [(n, n * n) for n in range(20)]


def test_no_more_in_flight_than_asked():
    lock, now, most = threading.Lock(), 0, 0

    def task(number: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    with ThreadPoolExecutor(16) as pool:
        list(run_tasks(task, range(30), pool, 3, Stop()))
    assert most == 3


def test_numbers_are_drawn_only_as_fast_as_they_are_done():
    drawn = []

    def numbers():
        for n in range(100):
            drawn.append(n)
            yield n

    with ThreadPoolExecutor(2) as pool:
        results = run_tasks(square, numbers(), pool, 3, Stop())
        next(results)
        assert len(drawn) <= 4
        list(results)


def test_a_raising_task_is_a_value_and_the_others_go_on():
    def task(number: int) -> int:
        if number == 2:
            raise ValueError("no")
        return number

    with ThreadPoolExecutor(2) as pool:
        results = dict(run_tasks(task, range(5), pool, 2, Stop()))
    crashed = results.pop(2)
    assert isinstance(crashed, Crashed)
    assert isinstance(crashed.error, ValueError)
    assert results == {n: n for n in (0, 1, 3, 4)}


def test_stop_waits_for_what_is_in_flight_and_begins_nothing_more():
    stop, begun = Stop(), []

    def task(number: int) -> int:
        begun.append(number)
        time.sleep(0.1)
        return number

    with ThreadPoolExecutor(2) as pool:
        results = []
        for number, _ in run_tasks(task, range(100), pool, 4, stop):
            results.append(number)
            stop.asked.set()
    assert sorted(results) == sorted(begun)
    assert len(begun) == 4


def test_deadline_begins_nothing_new():
    stop = Stop(deadline=time.monotonic() - 1)
    assert stop.out_of_time
    with ThreadPoolExecutor(1) as pool:
        assert list(run_tasks(square, range(5), pool, 2, stop)) == []


def test_a_hanging_task_is_an_error_in_bounded_time(monkeypatch, capfd):
    monkeypatch.setattr(execute, "STALL_S", 0.5)
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            with pytest.raises(RsqaError, match="no part finished"):
                list(run_tasks(lambda n: release.wait(30), range(2), pool, 1, Stop()))
        finally:
            release.set()


def test_a_signal_asks_to_stop_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop
        assert stop.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("workers", [None, 2])
def test_dask_carries_the_tasks(workers):
    with dask_executor(workers) as (executor, in_flight):
        results = dict(run_tasks(where, range(8), executor, in_flight, Stop()))
        allocators = list(run_tasks(allocator, range(1), executor, in_flight, Stop()))
    assert sorted(results) == list(range(8))
    pids = set(results.values())
    if workers is None:
        assert pids == {os.getpid()}
        assert dict(allocators) == {0: (None,) * len(ENVIRONMENT)}
    else:
        assert dict(allocators) == {0: tuple(ENVIRONMENT.values())}
        assert os.getpid() not in pids
        assert 1 <= len(pids) <= workers
