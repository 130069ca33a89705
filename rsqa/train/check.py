"""The first pass over training data on its own: what would a training leave out, and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rsqa.train.conversations import index_conversations
from rsqa.train.grpo_records import index_gold
from rsqa.train.records import scan
from rsqa.train.tally import Tally


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file of training data holds."""

    form: str
    """conversations or grpo."""
    n_read: int
    n_usable: int
    n_moved: int
    """Usable conversations whose picture is put before the words that stood before its tag."""
    left_out: Tally


def check(file: Path, folder: Path) -> Checked:
    """Read a file of conversations or GRPO records and the headers of its pictures. Raises InputError."""
    if is_gold(file):
        gold = index_gold(file, folder)
        return Checked("grpo", gold.n_read, len(gold), 0, gold.left_out)
    found = index_conversations(file, folder)
    return Checked("conversations", found.n_read, len(found), found.n_moved, found.left_out)


def is_gold(file: Path) -> bool:
    """Whether a file holds GRPO records: it is Parquet, or its first record has an answer type."""
    if file.suffix == ".parquet":
        return True
    return any(isinstance(raw, dict) and "answer_type" in raw for _, raw in islice(scan(file), 1))
