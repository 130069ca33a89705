"""The output folder: where things lie, and that one run at a time writes them.

DIR/plan.json, sources.parquet   what fixes the bytes of the parts
DIR/searches.json                what STAC searches found when the plan was made
DIR/parts/00000000.parquet …   the commits and the ledger
DIR/answers.parquet, classes.parquet, detections.parquet, tiles.zarr, item.json, run.json …   derived from the parts
DIR/.rsqa.lock           held while a run writes
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from pyarrow import ArrowException

from rsqa.errors import OutputError, OutputLocked
from rsqa.run.plan import Plan, check_format
from rsqa.run.sources import read_sources, write_sources
from rsqa.sinks.finished import NAMES as TABLES
from rsqa.sinks.whole import discard, write_whole

PLAN = "plan.json"
SOURCES = "sources.parquet"
SEARCHES = "searches.json"
PARTS = "parts"
LOCK = ".rsqa.lock"
SEEN_S = 90.0
"""Until a new file is seen from everywhere: NFS keeps what it knows of a folder for at most a minute by default."""
_PART_NAMES = "[0-9]" * 8 + ".parquet"
DERIVED = (
    "item.json", "run.json", "answers.parquet", "classes.parquet", "class_polygons.parquet", "class_rasters",
    "detections.parquet", "counts.parquet", "summary.json", "tiles.zarr", "performance.parquet",
)  # fmt: skip

WORD = ("run.json", "item.json")
"""While they are there the others are whole: they vanish first, and return last, run.json last of all."""

EXPORTS = (
    "report.html", "cog",
    *(f"{table}.{form}" for table in TABLES for form in ("csv", "fgb", "geojson")),
)  # fmt: skip
"""What `rsqa report` and `rsqa export` write unless they are told where; a GeoPackage is called as the folder."""


def part_name(number: int) -> str:
    """What the part of that number is called in an output."""
    return f"{PARTS}/{number:08d}.parquet"


def is_part(name: str) -> bool:
    """Whether a part could be called so in an output."""
    return fnmatchcase(name, f"{PARTS}/{_PART_NAMES}")


def part_path(out: Path, number: int) -> Path:
    """Where the part of that number lies once it is committed."""
    return out / part_name(number)


def parts_there(out: Path) -> set[str]:
    """Names of the part files, good or bad: one look at the folder instead of one for each of a million parts."""
    try:
        return set(os.listdir(out / PARTS))
    except FileNotFoundError:
        return set()


def begun(out: Path) -> bool:
    """Whether a part of the stored plan is committed."""
    return any((out / PARTS).glob(_PART_NAMES))


def await_parts(out: Path, n_parts: int) -> None:
    """Wait until what workers elsewhere have committed is seen here: NFS shows new files up to a minute late.

    Whoever reads the parts finds out if some never come.
    """
    deadline = time.monotonic() + SEEN_S
    while sum(1 for _ in (out / PARTS).glob(_PART_NAMES)) < n_parts and time.monotonic() < deadline:
        time.sleep(1.0)


@contextmanager
def locked(out: Path) -> Iterator[Path]:
    """Make the folder, hold it and -> it; OutputLocked when another run does, OutputError when it can't be written."""
    with held(out):
        if (out / PARTS).is_symlink():  # what lies there is not ours to remove
            raise OutputError(f"{str(out / PARTS)!r} is a link; remove it, or let --out itself be one")
        try:
            (out / PARTS).mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(out, error) from error
        yield out


@contextmanager
def held(out: Path) -> Iterator[None]:
    """`locked` for any folder of ours.

    The kernel frees the lock with its holder, however that ends; the file itself stays and means nothing.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputLocked(f"another run is writing {str(out)!r}; wait for it or choose another --out") from error
        yield
    finally:
        os.close(lock)


def _unwritable(out: Path, error: OSError) -> OutputError:
    return OutputError(f"can't write to {str(out)!r}: {error.strerror}; choose another folder with --out")


def clear(out: Path) -> None:
    """Remove what a run wrote, what was made of it in the folder, and nothing else that lies there."""
    discard(out / PLAN)  # first: parts without a plan mean nothing, a plan without parts is a fresh run
    for name in (SOURCES, SEARCHES, *DERIVED, *EXPORTS, f"{out.resolve().stem}.gpkg"):
        discard(out / name)
    for path in (out / PARTS).glob(_PART_NAMES):
        path.unlink()


def read_plan(out: Path, called: str = "") -> Plan:
    """The plan that the folder was made for. OutputError when there is none, or none that can be read.

    `called`: what the user knows it by, where that is not the folder's name.
    """
    called = called or str(out)
    try:
        facts = json.loads((out / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"{called!r} holds no {PLAN}; is it the output of `rsqa ask`?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(called, error) from error
    check_format(facts)
    try:
        return Plan.from_json(facts, read_sources(out / SOURCES))
    except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
        raise _unreadable(called, error) from error


def _unreadable(called: str, error: Exception) -> OutputError:
    reason = " ".join(str(error).split())
    return OutputError(f"the plan in {called!r} can't be read ({reason}); start anew with --overwrite")


def write_plan(out: Path, plan: Plan) -> None:
    """Store the plan; parts that are there from now on belong to it."""
    text = json.dumps(plan.to_json(), indent=1, ensure_ascii=False)
    write_whole(out / SOURCES, lambda temporary: write_sources(temporary, plan.sources))
    write_whole(out / PLAN, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
