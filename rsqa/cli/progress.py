"""How far a run is: a bar on a terminal, elsewhere a plain line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rsqa.cli.output import log
from rsqa.run.report import Progress

LINE_EVERY_S = 5.0


@contextmanager
def progress_shown(wanted: bool) -> Iterator[Callable[[Progress], None]]:
    """-> what the run calls with its progress."""
    if not wanted:
        yield lambda _: None
    elif on_terminal():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def on_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def describe(progress: Progress) -> str:
    """`1,200 of 4,489 tiles, 85.2 tiles/s, 17.1 Mpx/s, 39 s left, 12 % skipped, bound by the model`."""
    words = [f"{progress.tiles_done:,} of {progress.tiles_total:,} tiles"]
    if progress.tiles_done and progress.working_s > 0:
        rate = progress.tiles_done / progress.working_s
        left_s = (progress.tiles_total - progress.tiles_done) / rate
        words += [f"{rate:.1f} tiles/s", f"{progress.mpx_done / progress.working_s:.1f} Mpx/s", f"{clock(left_s)} left"]
        words.append(f"{progress.tiles_skipped / progress.tiles_done:.0%} skipped")
        words.append("bound by " + ("the model" if progress.bottleneck == "model" else "reading"))
    if progress.tiles_failed:
        words.append(f"{progress.tiles_failed:,} failed")
    return ", ".join(words)


def clock(seconds: float) -> str:
    """`39 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _lines() -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            log.info(describe(progress))

    return show


@contextmanager
def training_shown(wanted: bool) -> Iterator[Callable[[int, int, float, float, float], None]]:
    """-> what a training run calls after each step; nothing but its log lines where stderr is no terminal."""
    if not (wanted and on_terminal()):
        yield lambda *_: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.BarColumn(bar_width=24), rich.TextColumn("{task.description}", markup=False))
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: int, steps: int, loss: float, tokens_per_s: float, left_s: float) -> None:
            words = f"step {done:,} of {steps:,}, loss {loss:.3f}, {tokens_per_s:,.0f} tokens/s, {clock(left_s)} left"
            bar.update(task, completed=done, total=steps, description=words)

        yield show


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich import progress as rich
    from rich.console import Console

    # The bar itself and the words of `describe`, as plain text: nothing here is read as markup.
    columns = (rich.BarColumn(bar_width=24), rich.TextColumn("{task.description}", markup=False))
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.tiles_done, total=progress.tiles_total, description=describe(progress))

        yield show


@contextmanager
def counting_shown(wanted: bool) -> Iterator[Callable[[str, int, int], None]]:
    """-> what is called with what is counted, how many are done, and how many there are."""
    if not wanted:
        yield lambda *_: None
    elif on_terminal():
        with _counting_bar() as show:
            yield show
    else:
        yield _counting_lines()


def count_words(what: str, done: int, total: int, seconds: float) -> str:
    """`1,200 of 10,004 items, 85.2 a second, 103 s left`."""
    words = f"{done:,} of {total:,} {what}"
    return f"{words}, {done / seconds:.1f} a second, {clock((total - done) * seconds / done)} left" if done else words


def _counting_lines() -> Callable[[str, int, int], None]:
    begun: dict[str, float] = {}
    start = last = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        begun.setdefault(what, start if not begun else last)
        if now - last >= LINE_EVERY_S:
            log.info(count_words(what, done, total, now - begun[what]))
            last = now

    return show


@contextmanager
def _counting_bar() -> Iterator[Callable[[str, int, int], None]]:
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.BarColumn(bar_width=24), rich.TextColumn("{task.description}", markup=False))
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        begun: dict[str, float] = {}
        start = time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            since = begun.setdefault(what, start if not begun else now)
            words = count_words(what, done, total, max(now - since, 1e-3))
            bar.update(task, completed=done, total=total, description=words)

        yield show
