"""What a monitor knows, for people: how it fares, and what a tile answered over time. Nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from rsqa.errors import InputError, UsageError
from rsqa.monitor.changes import CHANGES, read_changes
from rsqa.monitor.dataset import OBSERVATIONS, ledger
from rsqa.monitor.scenes import discover
from rsqa.monitor.state import PassFacts, read_state
from rsqa.monitor.watch import Watch

MOST_GAPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a monitor fares."""

    observed: int
    """Acquisitions in the dataset."""
    files: int
    """Of the dataset."""
    first: datetime | None
    last: datetime | None
    gaps: tuple[tuple[datetime, float], ...]
    """The longest ones between two acquisitions: when each began, and days; longest first."""
    changes: int
    pending: int
    """Acquisitions that the last pass left to be observed."""
    new_files: int
    """That were never opened, or have changed since."""
    failures: tuple[tuple[str, str, int, str], ...]
    """(file or acquisition, reason, tries, "given up" or when it is tried again)."""
    runs: tuple[PassFacts, ...]
    """Latest first."""


def status(watch: Watch) -> Status:
    """Look at the dataset, the memory and the folders; InputError when a folder is not there."""
    stored, state = ledger(watch.out), read_state(watch.out)
    moments = sorted({observation.acquired for file in stored for observation in file.observations})
    gaps = [(earlier, (later - earlier).total_seconds() / 86_400) for earlier, later in pairwise(moments)]
    gaps.sort(key=lambda gap: -gap[1])
    table, _ = read_changes(watch.out / CHANGES)
    failures = []
    for key, (_, failure) in sorted(state.failures.items()):
        again = datetime.fromtimestamp(failure.last + failure.waits_s(), UTC).isoformat(timespec="minutes")
        then = "given up" if failure.given_up(watch.limits.tries) else again
        failures.append((key, failure.reason, failure.tries, then))
    return Status(
        observed=len(moments), files=len(stored), first=moments[0] if moments else None,
        last=moments[-1] if moments else None, gaps=tuple(gaps[:MOST_GAPS]), changes=table.num_rows,
        pending=state.runs[-1].pending if state.runs else 0,
        new_files=sum(state.scene(found) is None for found in discover(watch, time.time())), failures=tuple(failures),
        runs=tuple(reversed(state.runs)),
    )  # fmt: skip


def open_dataset(out: Path) -> ds.Dataset:
    """The dataset as one table. InputError when nothing was observed yet."""
    files = [str(file.path) for file in ledger(out)]
    if not files:
        raise InputError(f"nothing was observed yet in {str(out)!r}; rsqa monitor run does it")
    return ds.dataset(files, format="parquet")


def history(watch: Watch, tile: str, question: str | None) -> Sequence[dict[str, Any]]:
    """Rows about a tile, of one question or all, in order of time. UsageError when there is no such row."""
    data = open_dataset(watch.out)
    wanted = ds.field("tile_id") == tile
    if question is not None:
        wanted &= ds.field("question_id") == question
    columns = ["acquired", "question_id", "value", "confidence", "status", "valid_frac", "source", "processing_id"]
    table: pa.Table = data.to_table(columns=columns, filter=wanted)
    if not table.num_rows:
        asked = f" and question {question!r}" if question else ""
        raise UsageError(f"nothing is known of tile {tile!r}{asked}; tiles are named row/col, see {OBSERVATIONS}/")
    rows: list[dict[str, Any]] = table.sort_by([("acquired", "ascending"), ("question_id", "ascending")]).to_pylist()
    return rows
