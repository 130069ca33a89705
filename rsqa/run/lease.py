"""Who writes an output in an object store, where no kernel frees a lock with its holder.

The lock is a file that its holder renews. It is taken over when its holder is a process of this machine that is no
more, or was silent for long. Should two runs write at once after all, as after a machine slept: parts and tables of one
plan are the same bytes, whoever writes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from secrets import token_hex

from rsqa.errors import OutputError, OutputLocked
from rsqa.sinks.objects import ObjectStore
from rsqa.sinks.whole import lives

LOCK = ".rsqa.lock"
RENEW_S = 60.0
SILENT_S = 600.0
"""Ten renewals failed: the holder is no more, or can't write either."""
SETTLE_S = 2.0
"""Two runs that take over at the same time see after that which of them has the lock."""
_PROCESS = token_hex(8)
"""Process numbers begin anew in each container."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What the lock says."""

    host: str
    pid: int
    process: str
    run: str
    since: str
    renewed: float
    """Seconds since 1970, by the clock of the holder."""

    @property
    def gone(self) -> bool:
        """Whether nobody will renew it any more."""
        if self.process == _PROCESS:
            return False
        if self.host == socket.gethostname() and (self.pid == os.getpid() or not lives(self.pid)):
            return True
        return time.time() - self.renewed > SILENT_S


@contextmanager
def leased(store: ObjectStore) -> Iterator[Callable[[], None]]:
    """Hold the store's lock; -> a check that raises OutputLocked when another run has taken it over.

    Raises OutputLocked when another run holds it.
    """
    began = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Holder(socket.gethostname(), os.getpid(), _PROCESS, token_hex(8), began, time.time())

    def check() -> None:
        holder = _holder(store)
        if holder is None or holder.run != mine.run:
            raise _held(store, holder)

    _take(store, mine, check)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, mine, check, over), daemon=True)
    renewing.start()
    try:
        yield check
    finally:
        over.set()
        renewing.join()
        with contextlib.suppress(OutputError, OutputLocked):  # must not hide why the run ended
            check()
            store.delete([LOCK])


def _take(store: ObjectStore, mine: Holder, check: Callable[[], None]) -> None:
    if store.create(LOCK, _packed(mine)):
        return
    holder = _holder(store)
    if holder is not None and holder.run == mine.run:
        return  # written by a try whose answer was lost
    if holder is not None and not holder.gone:
        raise _held(store, holder)
    store.delete([LOCK])
    if not store.create(LOCK, _packed(mine)):
        raise _held(store, _holder(store))
    time.sleep(SETTLE_S)
    check()


def _renew(store: ObjectStore, mine: Holder, check: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(RENEW_S):
        try:
            check()
            store.put(LOCK, _packed(replace(mine, renewed=time.time())))
        except OutputLocked:
            return
        except OutputError:
            continue  # the run itself will find out, if it lasts


def _packed(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _holder(store: ObjectStore) -> Holder | None:
    """None where there is no lock, or none that can be read."""
    content = store.get(LOCK)
    try:
        return None if content is None else Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _held(store: ObjectStore, holder: Holder | None) -> OutputLocked:
    who = "another run" if holder is None else f"process {holder.pid} on {holder.host} since {holder.since}"
    return OutputLocked(
        f"another run is writing {store.url!r} ({who}); wait for it or choose another --out; "
        f"if it is no more, remove {store.url}/{LOCK}, or wait {SILENT_S / 60:.0f} minutes"
    )
