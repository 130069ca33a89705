"""Hands parts to workers and takes back what came of them.

A *task* is a plain function of a part number; a *crew* is whoever does it. The loop gives every worker a few parts at a
time, hands results over as they come and forgets them, sends a part elsewhere when its worker is lost or does not
answer, and stops handing out work when asked to.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from rsqa.errors import RsqaError
from rsqa.signals import first_signal

R = TypeVar("R")

STALL_S = 1800.0
"""Nothing finished for so long: something hangs."""
LATE_S = 600.0
"""A part that is not back after that, and after four times as long as any other took, is sent to another worker too."""
MOST_LOST = 3
"""Workers that may be lost with a part in their hands; then it is a suspect, and no longer done beside others."""


@dataclass(slots=True)
class Stop:
    """Why no further part is begun. Set by a signal, by the clock, or by the loop's owner."""

    deadline: float | None = None
    """`time.monotonic()` after which no part is begun."""
    signum: int | None = None
    asked: threading.Event = field(default_factory=threading.Event)

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def __bool__(self) -> bool:
        return self.asked.is_set() or self.out_of_time


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM let the parts in flight commit; see `rsqa.signals`."""

    def tell(signum: int) -> None:
        stop.signum = signum
        stop.asked.set()

    with first_signal(tell):
        yield


class Crew(Protocol):
    """Workers that do parts. They may come and go."""

    def roster(self) -> Mapping[str, int]:
        """Worker -> parts that it is given at a time. Cheap: asked all the time. RsqaError when there can be none."""

    def submit(self, task: Callable[[int], Any], number: int, worker: str) -> Future[Any]:
        """Let this worker do it. A future that is cancelled, or raises one of `losses`, has lost its worker."""

    @property
    def losses(self) -> tuple[type[BaseException], ...]:
        """What a future raises when its worker is lost."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """A task that raised instead of returning; its part is not committed."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Lost:
    """A part that was not done by any of MOST_LOST workers, all lost: it may be what kills them."""


@dataclass(frozen=True, slots=True)
class Again:
    """The part is begun once more, on another worker: the last one was lost, or does not answer."""


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int
    worker: str
    since: float
    """`time.monotonic()`"""


class _Flight(Generic[R]):
    """The parts that were handed out, and to whom."""

    def __init__(self, task: Callable[[int], R], crew: Crew) -> None:
        self._task, self._crew = task, crew
        self._sent: dict[Future[R], _Sent] = {}
        self._finished: SimpleQueue[Future[R]] = SimpleQueue()
        self._busy: Counter[str] = Counter()
        """Worker -> parts in its hands, also those that another worker has brought back meanwhile."""
        self._longest_s = 0.0
        self._relieved = time.monotonic()
        self.waited_for: Counter[int] = Counter()
        """Part -> workers that have it."""

    def room(self, roster: Mapping[str, int], besides: Iterable[str] = ()) -> str | None:
        """The worker that can take most; None when all have enough."""
        there = roster.keys() - besides
        best = max(there, key=lambda worker: roster[worker] - self._busy[worker], default=None)
        return best if best is not None and self._busy[best] < roster[best] else None

    def send(self, number: int, worker: str) -> None:
        """Hand a part to a worker."""
        future = self._crew.submit(self._task, number, worker)
        self._sent[future] = _Sent(number, worker, time.monotonic())
        self._busy[worker] += 1
        self.waited_for[number] += 1
        future.add_done_callback(self._finished.put)

    def returned(self, wait_s: float) -> Iterator[tuple[int, Future[R] | None]]:
        """What came back, after `wait_s` at most; None: the part is lost with its worker."""
        while (future := self._next(wait_s)) is not None:
            wait_s = 0.0
            if future not in self._sent:
                continue
            sent = self._take(future)
            if sent.number not in self.waited_for:
                continue  # another worker was first
            if not future.cancelled() and not isinstance(future.exception(), self._crew.losses):
                self._longest_s = max(self._longest_s, time.monotonic() - sent.since)
                del self.waited_for[sent.number]
                yield sent.number, future
            elif self._was_last(sent.number):
                yield sent.number, None

    def deserted(self, roster: Mapping[str, int]) -> Iterator[int]:
        """Parts whose workers are gone."""
        if self._busy.keys() <= roster.keys():
            return
        gone = [future for future, sent in self._sent.items() if sent.worker not in roster and not future.done()]
        for future in gone:
            sent = self._take(future)
            future.cancel()
            if sent.number in self.waited_for and self._was_last(sent.number):
                yield sent.number
        for worker in [worker for worker, n_parts in self._busy.items() if not n_parts and worker not in roster]:
            del self._busy[worker]

    def relieve(self, roster: Mapping[str, int]) -> Iterator[int]:
        """Send the parts that should be back to another worker too, where one has room; -> which."""
        now = time.monotonic()
        if now - self._relieved < 1.0:
            return
        self._relieved = now
        holders: defaultdict[int, set[str]] = defaultdict(set)
        fresh = set()
        for sent in self._sent.values():
            holders[sent.number].add(sent.worker)
            if now - sent.since < max(LATE_S, 4 * self._longest_s):
                fresh.add(sent.number)
        for number in (holders.keys() & self.waited_for.keys()) - fresh:
            if other := self.room(roster, holders[number]):
                self.send(number, other)
                yield number

    def _next(self, wait_s: float) -> Future[R] | None:
        try:
            return self._finished.get(timeout=wait_s) if wait_s else self._finished.get_nowait()
        except Empty:
            return None

    def _take(self, future: Future[R]) -> _Sent:
        sent = self._sent.pop(future)
        self._busy[sent.worker] -= 1
        return sent

    def _was_last(self, number: int) -> bool:
        """Count one worker less that has it."""
        self.waited_for[number] -= 1
        if self.waited_for[number]:
            return False
        del self.waited_for[number]
        return True


def run_tasks(
    task: Callable[[int], R], numbers: Iterable[int], crew: Crew, stop: Stop, at_once: int | None = None
) -> Iterator[tuple[int, R | Crashed | Lost | Again]]:
    """Yield (number, result) in the order of completion; `at_once`: no more than so many parts in flight.

    After `stop` what is in flight is waited for, and what is lost then is not begun again. Raises RsqaError when
    nothing finishes for `STALL_S` seconds.
    """
    todo, again, n_lost = iter(numbers), deque[int](), Counter[int]()
    flight, last, drained = _Flight(task, crew), time.monotonic(), False
    while True:
        roster = crew.roster()
        lost = list(flight.deserted(roster))
        while not stop and (at_once is None or len(flight.waited_for) < at_once) and (worker := flight.room(roster)):
            if again:
                yield again[0], Again()
                flight.send(again.popleft(), worker)
            elif (number := next(todo, None)) is not None:
                flight.send(number, worker)
            else:
                drained = True
                break
        if not (flight.waited_for or lost) and (stop or (drained and not again)):
            return
        for number, future in flight.returned(0.2 if flight.waited_for else 0.02):
            last = time.monotonic()
            if future is None:
                lost.append(number)
            else:
                error = future.exception()
                yield number, (Crashed(error) if error is not None else future.result())
        n_lost.update(lost)
        again.extend(number for number in lost if n_lost[number] < MOST_LOST)
        yield from ((number, Lost()) for number in lost if n_lost[number] >= MOST_LOST)
        yield from ((number, Again()) for number in flight.relieve(roster))
        _check_moving(last, roster)


def _check_moving(last: float, roster: Mapping[str, int]) -> None:
    """RsqaError when `last`, the moment when something finished, is too long ago."""
    if time.monotonic() - last > STALL_S:
        faulthandler.dump_traceback(file=sys.stderr)
        nobody = "" if roster else " and there is no worker"
        raise RsqaError(f"no part finished for {STALL_S:.0f} s{nobody}; stopped, run the same command to go on")
