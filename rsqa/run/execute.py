"""Who does the parts: one loop over Dask. The only module that knows Dask.

A *task* is a plain function of a part number. The loop keeps a bounded number in flight, hands results over as they
come and forgets them, and stops handing out work when asked to.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from rsqa.errors import RsqaError
from rsqa.run import heap
from rsqa.signals import first_signal

R = TypeVar("R")

SLOTS = 2
"""Parts that one process works on at a time: while one is in the model, the other reads or writes."""
STALL_S = 1800.0
"""Nothing finished for so long: something hangs."""


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


@dataclass(frozen=True, slots=True)
class Crashed:
    """A task that raised instead of returning; its part is not committed."""

    error: BaseException


def run_tasks(
    task: Callable[[int], R], numbers: Iterable[int], executor: Executor, in_flight: int, stop: Stop
) -> Iterator[tuple[int, R | Crashed]]:
    """Yield (number, result) in the order of completion, at most `in_flight` at a time.

    After `stop` what is in flight is waited for. It is never cancelled: Dask can't tell a task that runs from one that
    waits, and drops both. Raises RsqaError when nothing finishes for `STALL_S` seconds.
    """
    todo = iter(numbers)
    pending: dict[Future[R], int] = {}
    last = time.monotonic()
    while True:
        while len(pending) < in_flight and not stop and (number := next(todo, None)) is not None:
            pending[executor.submit(task, number)] = number
        if not pending:
            return
        done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
        if done:
            last = time.monotonic()
        elif time.monotonic() - last > STALL_S:
            faulthandler.dump_traceback(file=sys.stderr)
            raise RsqaError(f"no part finished for {STALL_S:.0f} s; stopped, run the same command to go on")
        for future in done:
            number = pending.pop(future)
            error = future.exception()
            yield number, (Crashed(error) if error is not None else future.result())


@contextmanager
def dask_executor(workers: int | None) -> Iterator[tuple[Executor, int]]:
    """-> an executor on a Dask cluster, and how many tasks to keep in flight.

    `workers` None: threads of this process. A number: so many processes, one model each, on this machine.
    """
    import dask
    from distributed import Client

    make: Any = Client  # untyped
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {
        "distributed.admin.tick.limit": "1h",  # a decoding or model thread holding the GIL is no fault here
        "distributed.admin.tick.interval": "1s",  # 20 ms by default: each tick makes the model wait for the interpreter
        "distributed.worker.profile.enabled": False,  # the same, a hundred times a second
        "distributed.comm.timeouts.connect": "60s",
        "distributed.scheduler.no-workers-timeout": "120s",  # null by default: a run without workers would hang
    }
    threads = str(max(1, (os.cpu_count() or 1) // (workers or 1)))  # Dask's own choice for a process is one
    environment = heap.ENVIRONMENT | {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL")}
    settings |= {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()}
    size = {"n_workers": 1, "processes": False} if workers is None else {"n_workers": workers, "processes": True}
    with ExitStack() as closing:
        closing.enter_context(dask.config.set(settings))
        # Port 0: two runs on one machine must coexist; the loopback: nobody else on the network is to look on.
        # No memory limit: parts are small and a paused worker is a stall.
        with _signals_for_this_thread_alone():
            client = make(
                threads_per_worker=SLOTS, memory_limit=0, dashboard_address="127.0.0.1:0", set_as_default=False, **size
            )
        closing.enter_context(client)
        executor = client.get_executor(pure=False)
        closing.callback(executor.shutdown, wait=False)  # waiting for a task that hangs would never end
        yield executor, (SLOTS + 1) * (workers or 1)


@contextmanager
def _signals_for_this_thread_alone() -> Iterator[None]:
    """Threads and processes that begin meanwhile never see SIGINT and SIGTERM; this thread sees them afterwards.

    A terminal and systemd signal every process of a run: workers must go on until the driver has their parts.
    """
    resource_tracker.ensure_running()  # unblocks both when it starts: it must not do so in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
