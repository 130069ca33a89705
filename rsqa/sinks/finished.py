"""The tables of a finished output folder, as those read them who hand them on: exports and the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rsqa.errors import InputError, SourceMissing
from rsqa.sinks.table import FORMAT

NAMES = ("answers", "classes", "class_polygons", "detections", "counts")
"""Tables that a folder may hold, each `NAME.parquet`: a file, or a folder of files."""


@dataclass(frozen=True, slots=True)
class FinishedTable:
    """One table, not read yet."""

    name: str
    """Of NAMES."""
    data: ds.Dataset
    crs: dict[str, Any] | None
    """PROJJSON; None where the table's rows have no place on the ground."""
    geometry_types: frozenset[str]
    """Polygon, MultiPolygon: those that occur."""


def open_tables(folder: Path) -> dict[str, FinishedTable]:
    """Name -> table, of those that are there and whole; at least one.

    Raises SourceMissing where there is none or the run did not end, InputError where one can't be read.
    """
    present = [name for name in NAMES if (folder / f"{name}.parquet").exists()]
    if not present or not (folder / "run.json").exists():  # run.json is written last
        begun = present or (folder / "parts").is_dir()
        hint = "it is not finished, run the same command again" if begun else "name an output folder of rsqa ask"
        raise SourceMissing(f"no finished answers in {str(folder)!r}; {hint}")
    return {name: _open_table(folder, name) for name in present}


def _open_table(folder: Path, name: str) -> FinishedTable:
    path = folder / f"{name}.parquet"
    try:
        data = ds.dataset(path, format="parquet")
        footers = [pq.read_metadata(file).metadata or {} for file in data.files]
        found = [json.loads(footer.get(b"rsqa", b"{}")).get("format") for footer in footers]
        columns = [json.loads(footer[b"geo"])["columns"]["geometry"] for footer in footers]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"can't read {str(path)!r}: {reason}; rebuild it with rsqa finish {quote(str(folder))}"
        ) from error
    if any(number != FORMAT for number in found):
        raise InputError(
            f"{str(path)!r} has format {found[0]!r}, this rsqa reads {FORMAT}; rebuild it with rsqa finish"
        )
    kinds = frozenset(kind for column in columns for kind in column["geometry_types"])
    return FinishedTable(name, data, columns[0]["crs"], kinds)
