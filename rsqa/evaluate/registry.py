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


@dataclass(frozen=True, slots=True)
class Entry:
    """One benchmark."""

    read: Callable[[Path, str, Sequence[str]], Benchmark]
    """(folder, split, files) -> the benchmark."""
    splits: tuple[str, ...] = ()
    """The first one is asked unless another is named; empty: there is only one."""
    by_file: bool = False
    """Whether files can be chosen."""


def _folders(name: str, data: Path, split: str, files: Sequence[str]) -> Benchmark:
    return read_folders(name, data)


BENCHMARKS: dict[str, Entry] = {
    "validation": Entry(lambda data, split, files: read_validation(data)),
    "rsvqa-lr": Entry(lambda data, split, files: read_rsvqa(LR, data, split), ("test", "val")),
    "rsvqa-hr": Entry(lambda data, split, files: read_rsvqa(HR, data, split), ("test", "test_phili", "val")),
    "rsivqa": Entry(lambda data, split, files: read_rsivqa(data)),
    "vhm": Entry(lambda data, split, files: read_vhm(data, files), by_file=True),
    "vhr10": Entry(lambda data, split, files: read_vhr10(data)),
    **{name: Entry(partial(_folders, name)) for name in CLASSES},
}


def read_benchmark(name: str, data: Path, split: str | None = None, files: Sequence[str] = ()) -> Benchmark:
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
    return entry.read(data, split or (entry.splits[0] if entry.splits else ""), files)
