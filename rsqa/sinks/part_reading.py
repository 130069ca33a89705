"""Reading the parts of a run back: whether one is whole, and its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rsqa.errors import OutputError
from rsqa.sinks.table import BOX_SCHEMA, EVIDENCE_SCHEMA, FORMAT, SCHEMA


def valid_part(path: Path, plan_id: str, number: int, n_rows: int) -> bool:
    """Whether the file is a whole part of this plan, by its footer alone: no page is read."""
    try:
        metadata = pq.read_metadata(path)
        facts = json.loads((metadata.metadata or {}).get(b"rsqa", b"{}"))
        columns = metadata.schema.to_arrow_schema().names
    except (OSError, pa.ArrowException, ValueError):  # missing, cut short, or not ours
        return False
    expected = {"format": FORMAT, "plan_id": plan_id, "part": number, "n_rows": n_rows}
    known = columns in (SCHEMA.names, EVIDENCE_SCHEMA.names, BOX_SCHEMA.names)  # no checksum guards the footer
    return bool(known and metadata.num_rows == n_rows and facts.items() >= expected.items())


def read_parts(paths: Sequence[Path], group_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of parts in order, `group_rows` at a time wherever the parts end; page checksums are verified.

    Raises OutputError when a part is missing or a byte of it is not what was written.
    """
    return regrouped((table for path in paths for table in _read_part(path, columns)), group_rows)


def regrouped(tables: Iterable[pa.Table], group_rows: int) -> Iterator[pa.Table]:
    """The same rows, `group_rows` at a time, wherever the tables end."""
    held: list[pa.Table] = []
    n_held = 0
    for table in tables:
        held.append(table)
        n_held += table.num_rows
        while n_held >= group_rows:
            together = pa.concat_tables(held)
            yield together.slice(0, group_rows).combine_chunks()
            held, n_held = [together.slice(group_rows)], n_held - group_rows
    if n_held:
        yield pa.concat_tables(held).combine_chunks()


def count_rows(paths: Sequence[Path]) -> int:
    """-> rows of all parts together. Raises OutputError when a part is missing or has no footer."""
    n_rows = 0
    for path in paths:
        with _damage(path):
            n_rows += pq.read_metadata(path).num_rows
    return n_rows


def _read_part(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    with _damage(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(columns=columns):
            yield pa.Table.from_batches([batch])


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"part {path} is damaged or missing; delete it and run the same command again") from error
