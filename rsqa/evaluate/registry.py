"""Benchmarks by name, and who reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from rsqa.errors import SourceMissing, UsageError
from rsqa.evaluate.folders import CLASSES, read_folders
from rsqa.evaluate.items import Benchmark
from rsqa.evaluate.rsivqa import read_rsivqa
from rsqa.evaluate.rsvqa import HR, LR, read_rsvqa
from rsqa.evaluate.validation import read_validation
from rsqa.evaluate.vhm import read_vhm
from rsqa.evaluate.vhr10 import read_vhr10
from rsqa.tasks.detect import HowMany


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a benchmark is asked, and of whom."""

    data: Path
    split: str
    files: Sequence[str]
    """Empty: all."""
    boxes: HowMany
    """Of the model's card: it decides how all objects of a kind are asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One benchmark."""

    read: Callable[[Wanted], Benchmark]
    splits: tuple[str, ...] = ()
    """The first one is asked unless another is named; empty: there is only one."""
    by_file: bool = False
    """Whether files can be chosen."""


def _folders(name: str, wanted: Wanted) -> Benchmark:
    return read_folders(name, wanted.data)


BENCHMARKS: dict[str, Entry] = {
    "validation": Entry(lambda wanted: read_validation(wanted.data)),
    "rsvqa-lr": Entry(lambda wanted: read_rsvqa(LR, wanted.data, wanted.split), ("test", "val")),
    "rsvqa-hr": Entry(lambda wanted: read_rsvqa(HR, wanted.data, wanted.split), ("test", "test_phili", "val")),
    "rsivqa": Entry(lambda wanted: read_rsivqa(wanted.data)),
    "vhm": Entry(lambda wanted: read_vhm(wanted.data, wanted.files), by_file=True),
    "vhr10": Entry(lambda wanted: read_vhr10(wanted.data, wanted.boxes)),
    **{name: Entry(partial(_folders, name)) for name in CLASSES},
}


def read_benchmark(
    name: str,
    data: Path,
    split: str | None = None,
    files: Sequence[str] = (),
    boxes: HowMany = "one",
) -> Benchmark:
    """UsageError for a benchmark, a split or files that do not go together; InputError for what lies in `data`."""
    if name not in BENCHMARKS:
        near = get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(BENCHMARKS)}"
        raise UsageError(f"unknown benchmark {name!r}; {hint}")
    entry = BENCHMARKS[name]
    if split is not None and split not in entry.splits:
        raise UsageError(f"benchmark {name!r} has no split {split!r}; choose {' or '.join(entry.splits) or 'none'}")
    if files and not entry.by_file:
        raise UsageError(f"benchmark {name!r} takes no --file; only vhm does")
    if not data.is_dir():
        raise SourceMissing(f"no folder {str(data)!r}; --data names the folder of {name}")
    return entry.read(Wanted(data, split or (entry.splits[0] if entry.splits else ""), files, boxes))
