"""Who does the parts: threads of this process, processes of this machine, or a Dask cluster. All that knows Dask.

A worker gets its first part only when it has said that it can do them; what to ask it is the caller's business.
Parts are placed by `rsqa.run.execute`, not by the scheduler, whose settings belong to somebody else where it runs
already: how often a part may kill its worker, and which workers can do it at all, is then decided here.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from rsqa.errors import ModelError, RsqaError, UsageError
from rsqa.run import heap
from rsqa.run.execute import STALL_S

R = TypeVar("R")
Note = Callable[[str], None]

SLOTS = 2
"""Parts that one process works on at a time: while one is in the model, the other reads or writes."""
LOOPBACK = "127.0.0.1"
"""Nobody else on the network is to look on, or to send work."""
_SERVED_AT = f"{LOOPBACK}:0"
"""Dask's pages, which it serves whether anybody looks or not. Two runs on one machine must coexist: any port."""
_LOOK_S = 1.0
"""Between two looks at who is there."""
_CONNECT_S = 30.0
"""Until a scheduler that does not answer is not there."""
_ANSWER_S = 120.0
"""The same for one that was there: it may be busy."""
_GRACE_S = 30.0
"""At the start, for a worker that can do parts to come, when those that are there can't."""


class DaskCrew:
    """See `rsqa.run.execute.Crew`."""

    def __init__(self, client: Any, where: str, unfit: Callable[[], str], note: Note) -> None:
        """`unfit` runs on each worker: why it can do no part, empty when it can."""
        from distributed import KilledWorker

        self.losses: tuple[type[BaseException], ...] = (KilledWorker,)
        self._client, self._where, self._unfit, self._note = client, where, unfit, note
        self._threads: dict[str, int] = {}
        """Worker that is there -> its threads."""
        self._fit: dict[str, int] = {}
        """Worker that can do parts -> how many it is given at a time."""
        self._asked: dict[str, Future[str]] = {}
        self._left_out: dict[str, str] = {}
        """Worker -> why it can't."""
        self._executors: dict[str, Executor] = {}
        self._looked = 0.0
        self._began = time.monotonic()
        self._had_fit = False

    def roster(self) -> Mapping[str, int]:
        """See `Crew.roster`. ModelError when all workers that came at the start have said that they can't."""
        if time.monotonic() - self._looked >= (_LOOK_S if self._fit else 0.1):
            self._look()
            self._looked = time.monotonic()
        for worker in [worker for worker, answer in self._asked.items() if answer.done()]:
            self._judge(worker, self._asked.pop(worker))
        self._had_fit = self._had_fit or bool(self._fit)
        hopeless = self._left_out and not (self._had_fit or self._asked)
        if hopeless and time.monotonic() - self._began >= _GRACE_S:
            worker, why = next(iter(self._left_out.items()))
            raise ModelError(f"no worker of {self._where} can do this: {worker}: {why}")
        return self._fit

    def submit(self, task: Callable[[int], R], number: int, worker: str) -> Future[R]:
        """See `Crew.submit`."""
        return self._send(worker, task, number)

    def call(self, function: Callable[[], R]) -> R:
        """Run it on a worker that can do parts, and wait for one if there is none. Raises what it raises."""
        begun = time.monotonic()
        while time.monotonic() - begun < STALL_S:
            worker = next(iter(self.roster()), None)
            if worker is None:
                time.sleep(0.1)
                continue
            answer = self._send(worker, function)
            while worker in self.roster() and not answer.cancelled():
                done, _ = wait([answer], timeout=_LOOK_S)
                if done and not isinstance(answer.exception(), self.losses):
                    return answer.result()
        raise RsqaError(f"no worker of {self._where} answered in {STALL_S:.0f} s; start some and run this again")

    def __len__(self) -> int:
        """Workers that can do parts now."""
        return len(self._fit)

    def close(self) -> None:
        """Forget what is in flight; waiting for a task that hangs would never end."""
        for executor in self._executors.values():
            executor.shutdown(wait=False)

    def _send(self, worker: str, function: Callable[..., R], *arguments: Any) -> Future[R]:
        if worker not in self._executors:
            self._executors[worker] = self._client.get_executor(pure=False, workers=[worker])
        return self._executors[worker].submit(function, *arguments)

    def _look(self) -> None:
        """See who is there, and ask those who are new."""
        try:
            self._threads = self._client.nthreads(callback_timeout=_ANSWER_S)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise RsqaError(
                f"the scheduler of {self._where} does not answer any more ({error}); start one and run this again"
            ) from error
        for known in (self._fit, self._asked, self._left_out, self._executors):
            for worker in known.keys() - self._threads.keys():
                del known[worker]
        for worker in self._threads.keys() - self._fit.keys() - self._asked.keys() - self._left_out.keys():
            self._asked[worker] = self._send(worker, self._unfit)

    def _judge(self, worker: str, answer: Future[str]) -> None:
        if answer.cancelled() or isinstance(answer.exception(), self.losses):
            return  # asked again if it comes back
        error = answer.exception()
        why = answer.result() if error is None else f"it can't load this rsqa ({type(error).__name__}: {error})"
        if why:
            self._left_out[worker] = why
            self._note(f"worker {worker} is left out: {why}")
        else:
            self._fit[worker] = self._threads[worker] + 1


@contextmanager
def local_crew(
    workers: int | None, device: str, unfit: Callable[[], str], note: Note, show: Note | None
) -> Iterator[DaskCrew]:
    """`workers` None: threads of this process. A number: so many processes of this machine, with a model each.

    `show` is told the address of a dashboard; None: there is none. On CUDA each process has a device of its own;
    UsageError when there are fewer devices than processes.
    """
    import dask
    import distributed  # noqa: F401 before its settings are changed: it brings the others

    _hush()
    devices = _devices(workers, device) if workers else []
    with ExitStack() as closing:
        closing.enter_context(dask.config.set(_settings(workers or 1)))
        with _signals_for_this_thread_alone():
            cluster = closing.enter_context(_processes(workers, devices) if workers else _threads())
            client = closing.enter_context(_client(cluster))
        if show:
            show(client.dashboard_link)
        yield closing.enter_context(_crew(client, "this machine", unfit, note))


@contextmanager
def remote_crew(address: str, unfit: Callable[[], str], note: Note, show: Note | None) -> Iterator[DaskCrew]:
    """The workers of a cluster that runs already; `show` is told the address of its dashboard.

    UsageError when nothing answers at `address`.
    """
    import dask
    import distributed  # noqa: F401 before its settings are changed: it brings the others

    _hush()
    with ExitStack() as closing:
        closing.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{_CONNECT_S:.0f}s"}))
        try:
            client = closing.enter_context(_client(address))
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"--scheduler {address!r} asked, no Dask scheduler answers there ({error})") from error
        if show:
            show(client.dashboard_link)
        yield closing.enter_context(_crew(client, address, unfit, note))


def _hush() -> None:
    """What Dask says of itself, and what asyncio says of futures that Dask leaves behind, tells users nothing."""
    for name in ("distributed", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _crew(client: Any, where: str, unfit: Callable[[], str], note: Note) -> Iterator[DaskCrew]:
    crew = DaskCrew(client, where, unfit, note)
    try:
        yield crew
    finally:
        crew.close()


def _client(cluster: Any) -> Any:
    from distributed import Client

    make: Any = Client  # untyped
    return make(cluster, set_as_default=False)


def _settings(workers: int) -> dict[str, str | bool]:
    """Dask's configuration for processes of this machine."""
    from dask.system import CPU_COUNT

    threads = str(max(1, CPU_COUNT // workers))  # so that together they have as many as there are processors
    environment = heap.ENVIRONMENT | {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL")}
    return {
        "distributed.admin.tick.limit": "1h",  # a decoding or model thread holding the GIL is no fault here
        "distributed.admin.tick.interval": "1s",  # 20 ms by default: each tick makes the model wait for the interpreter
        "distributed.worker.profile.enabled": False,  # the same, a hundred times a second
        "distributed.comm.timeouts.connect": "60s",
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()},
    }


def _threads() -> Any:
    from distributed import LocalCluster

    make: Any = LocalCluster  # untyped
    # No memory limit: parts are small and a paused worker is a stall.
    return make(
        n_workers=1, processes=False, threads_per_worker=SLOTS, memory_limit=0,
        dashboard_address=_SERVED_AT,
    )  # fmt: skip


def _processes(workers: int, devices: Sequence[str]) -> Any:
    """Like a LocalCluster, but each process sees the CUDA device that is its own."""
    from distributed import Nanny, Scheduler, SpecCluster

    make: Any = SpecCluster  # untyped
    own = {"nthreads": SLOTS, "memory_limit": 0, "host": LOOPBACK, "dashboard": False, "silence_logs": logging.CRITICAL}
    spec = {
        number: {
            "cls": Nanny,
            "options": {**own, "env": {"CUDA_VISIBLE_DEVICES": devices[number]} if devices else {}},
        }
        for number in range(workers)
    }
    scheduler = {"cls": Scheduler, "options": {"host": LOOPBACK, "port": 0, "dashboard_address": _SERVED_AT}}
    return make(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _devices(workers: int, device: str) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is to be for each process; empty where there is nothing to share out."""
    if not device.startswith("cuda") or (device != "cuda" and workers == 1):
        return []
    if device != "cuda":
        raise UsageError(f"--workers {workers} asked on {device} alone; each takes a device of its own: --device cuda")
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    if workers > len(devices):
        raise UsageError(
            f"--workers {workers} asked, {len(devices)} CUDA devices found; "
            f"each worker takes one: --workers {len(devices)}"
        )
    return devices


def check_dashboard() -> None:
    """UsageError where Dask could not show one."""
    if find_spec("bokeh") is None:
        raise UsageError("--dashboard asked, Bokeh is not installed; pip install 'rsqa[dashboard]'")


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
