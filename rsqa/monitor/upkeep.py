"""Keeping a dataset small: many files of a day become one, old days are let go. Each file is whole or absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from rsqa.monitor.dataset import OBSERVATIONS, Stored, drop_replaced, folder_of, ledger, pieces_of, write_file
from rsqa.monitor.scenes import acquisition_id
from rsqa.monitor.watch import Watch, digest
from rsqa.raster.anchored import AnchoredGrid
from rsqa.sinks.whole import discard


def settle(out: Path, grid: AnchoredGrid) -> list[Stored]:
    """The dataset, without what newer observations replace, and without files whose rows another file holds too.

    What a kill left behind goes here; every pass begins with it.
    """
    kept = []
    for files in _days(drop_replaced(ledger(out), grid)):
        sets = [{observation.id for observation in file.observations} for file in files]
        for file, ids in zip(files, sets, strict=True):
            if any(ids < others for others in sets):
                discard(file.path)
            else:
                kept.append(file)
    return kept


def _days(stored: Iterable[Stored]) -> Iterator[list[Stored]]:
    for _, files in groupby(stored, key=lambda file: file.path.parent):
        yield list(files)


def compact(out: Path, grid: AnchoredGrid) -> int:
    """Gather the files of each day in one; -> how many fewer they are. The caller holds the monitor's lock."""
    fewer = 0
    for files in _days(settle(out, grid)):
        if len(files) > 1:
            pieces = sorted((piece for file in files for piece in pieces_of(file)), key=lambda piece: piece[0].id)
            name = f"{acquisition_id(pieces[0][0].acquired)}.{digest([of.id for of, _ in pieces])}.parquet"
            write_file(files[0].path.with_name(name), pieces, grid)
            for file in files:
                discard(file.path)
            fewer += len(files) - 1
    return fewer


def oldest_kept(acquired: Iterable[datetime], days: int, now: datetime) -> datetime | None:
    """Midnight before which nothing is kept; None: everything is.

    Days are counted back from the last acquisition, or from now when that claims to be later: neither a clock nor a
    date that is wrong removes what should stay.
    """
    last = max(acquired, default=None)
    if not days or last is None:
        return None
    return min(last, now).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)


def prune(out: Path, oldest: datetime) -> int:
    """Remove the days before `oldest`; -> how many. The caller holds the monitor's lock."""
    first = folder_of(out, oldest).name
    old = [folder for folder in (out / OBSERVATIONS).glob("acquired_date=*") if folder.name < first]
    for folder in old:
        discard(folder)
    return len(old)


def tidy_dataset(watch: Watch, grid: AnchoredGrid, now: datetime) -> tuple[int, int]:
    """Compact and prune as WATCH.toml says; -> how many files fewer, and how many days went."""
    fewer = compact(watch.out, grid)
    acquired = (observation.acquired for file in ledger(watch.out) for observation in file.observations)
    oldest = oldest_kept(acquired, watch.limits.keep_days, now)
    return fewer, 0 if oldest is None else prune(watch.out, oldest)
