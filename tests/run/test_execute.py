from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from rsqa.errors import RsqaError
from rsqa.run import execute
from rsqa.run.execute import MOST_LOST, Again, Crashed, Lost, Stop, run_tasks, stop_on_signals


@dataclass
class Pool:
    """A crew of one, in threads."""

    threads: ThreadPoolExecutor
    at_once: int
    losses = ()

    def roster(self):
        return {"here": self.at_once}

    def submit(self, task, number, worker):
        return self.threads.submit(task, number)


class Gone(Exception):
    """A worker was lost."""


@dataclass
class Script:
    """A crew that does at once what it is told to: workers die of parts, or never answer."""

    there: dict[str, int]
    dies_of: set[int] = field(default_factory=set)
    dumb: set[str] = field(default_factory=set)
    """Workers that never answer."""
    vanish: bool = False
    """They leave the roster when they die, instead of raising."""
    given: list[tuple[int, str]] = field(default_factory=list)
    born: int = 0
    losses = (Gone,)

    def roster(self):
        return self.there

    def submit(self, task, number, worker):
        self.given.append((number, worker))
        answer = Future()
        if worker in self.dumb:
            return answer
        if number not in self.dies_of:
            answer.set_result(task(number))
            return answer
        if self.vanish:
            self.born += 1
            self.there = {name: n for name, n in self.there.items() if name != worker} | {f"new{self.born}": 1}
        else:
            answer.set_exception(Gone())
        return answer


def square(number: int) -> int:
    return number * number


def results(*arguments, **options):
    """Without the news of what is begun again."""
    return [(number, result) for number, result in run_tasks(*arguments, **options) if not isinstance(result, Again)]


def test_every_number_once_with_its_result():
    with ThreadPoolExecutor(3) as threads:
        assert sorted(run_tasks(square, range(20), Pool(threads, 4), Stop())) == [(n, n * n) for n in range(20)]


def test_no_more_in_flight_than_the_roster_says():
    lock, now, most = threading.Lock(), 0, 0

    def task(number: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    with ThreadPoolExecutor(16) as threads:
        list(run_tasks(task, range(30), Pool(threads, 3), Stop()))
        assert most == 3
        most = 0
        list(run_tasks(task, range(5), Pool(threads, 3), Stop(), at_once=1))
        assert most == 1


def test_numbers_are_drawn_only_as_fast_as_they_are_done():
    drawn = []

    def numbers():
        for n in range(100):
            drawn.append(n)
            yield n

    with ThreadPoolExecutor(2) as threads:
        done = run_tasks(square, numbers(), Pool(threads, 3), Stop())
        next(done)
        assert len(drawn) <= 4
        list(done)


def test_workers_share_the_parts_evenly():
    crew = Script({"a": 2, "b": 2, "c": 2})
    assert len(results(square, range(60), crew, Stop())) == 60
    assert set(Counter(worker for _, worker in crew.given).values()) == {20}


def test_a_raising_task_is_a_value_and_the_others_go_on():
    def task(number: int) -> int:
        if number == 2:
            raise ValueError("no")
        return number

    with ThreadPoolExecutor(2) as threads:
        done = dict(run_tasks(task, range(5), Pool(threads, 2), Stop()))
    crashed = done.pop(2)
    assert isinstance(crashed, Crashed)
    assert isinstance(crashed.error, ValueError)
    assert done == {n: n for n in (0, 1, 3, 4)}


@pytest.mark.parametrize("vanish", [False, True])
def test_a_part_that_is_lost_with_its_worker_is_begun_again_some_times(vanish):
    crew = Script({"a": 1, "b": 1}, dies_of={3}, vanish=vanish)
    done = dict(results(square, range(6), crew, Stop()))
    assert done.pop(3) == Lost()
    assert done == {n: n * n for n in (0, 1, 2, 4, 5)}
    assert [number for number, _ in crew.given].count(3) == MOST_LOST
    assert sum(isinstance(result, Again) for _, result in run_tasks(square, [3], crew, Stop())) == MOST_LOST - 1


def test_what_a_silent_worker_has_is_sent_to_another_and_counts_once(monkeypatch):
    monkeypatch.setattr(execute, "LATE_S", 0.1)
    crew = Script({"dumb": 2, "b": 2}, dumb={"dumb"})
    done = list(run_tasks(square, range(20), crew, Stop()))
    news = [number for number, result in done if isinstance(result, Again)]
    assert sorted((n, r) for n, r in done if not isinstance(r, Again)) == [(n, n * n) for n in range(20)]
    assert sorted(news) == sorted(number for number, worker in crew.given if worker == "dumb")
    assert len(news) == 2  # its hands stay full: it gets no more


def test_workers_that_come_late_get_parts():
    crew = Script({})

    def come():
        time.sleep(0.2)
        crew.there = {"late": 2}

    threading.Thread(target=come).start()
    assert len(results(square, range(5), crew, Stop())) == 5


def test_nobody_there_is_an_error_in_bounded_time(monkeypatch, capfd):
    monkeypatch.setattr(execute, "STALL_S", 0.2)
    with pytest.raises(RsqaError, match="and there is no worker"):
        results(square, range(5), Script({}), Stop())


def test_stop_waits_for_what_is_in_flight_and_begins_nothing_more():
    stop, begun = Stop(), []

    def task(number: int) -> int:
        begun.append(number)
        time.sleep(0.1)
        return number

    with ThreadPoolExecutor(2) as threads:
        done = []
        for number, _ in run_tasks(task, range(100), Pool(threads, 4), stop):
            done.append(number)
            stop.asked.set()
    assert sorted(done) == sorted(begun)
    assert len(begun) == 4


def test_after_a_stop_what_is_lost_is_not_begun_again():
    crew, stop = Script({"a": 3}, dies_of={1, 2}), Stop()

    def task(number: int) -> int:
        stop.asked.set()
        return number

    assert list(run_tasks(task, range(9), crew, stop)) == [(0, 0)]
    assert [number for number, _ in crew.given] == [0]
    stop.asked.clear()
    assert [number for number, _ in run_tasks(task, range(1, 9), crew, stop)][-1] == 3


def test_deadline_begins_nothing_new():
    stop = Stop(deadline=time.monotonic() - 1)
    assert stop.out_of_time
    assert list(run_tasks(square, range(5), Script({"a": 2}), stop)) == []


def test_a_hanging_task_is_an_error_in_bounded_time(monkeypatch, capfd):
    monkeypatch.setattr(execute, "STALL_S", 0.5)
    with pytest.raises(RsqaError, match="no part finished"):
        results(square, range(2), Script({"a": 1}, dumb={"a"}), Stop())


def test_a_signal_asks_to_stop_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop
        assert stop.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
