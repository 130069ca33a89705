"""SIGINT and SIGTERM as a wish to end soon, with what is done kept."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_signal(tell: Callable[[int], None]) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM is told; a second one leaves at once.

    Signals belong to the main thread: called from another, the caller's own handling stays.
    """
    heard = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            os._exit(128 + signum)
        heard = True
        tell(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
