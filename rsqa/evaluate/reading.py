"""What the readers of benchmarks share: JSON files, reasons for leaving an item out, questions made once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rsqa.errors import InputError, SourceMissing
from rsqa.tasks.question import COUNTS, Kind, Question

BROKEN = "broken items"
NO_ANSWER = "items without an answer"
ODD_ANSWER = "items whose answer is not understood"


class Skipped:
    """Items that a reader leaves out: reason -> names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Leave an item out."""
        self._names.setdefault(reason, []).append(name)

    @property
    def by_reason(self) -> Mapping[str, tuple[str, ...]]:
        """For `Benchmark.skipped`."""
        return {reason: tuple(names) for reason, names in self._names.items()}


@cache
def question_of(text: str, kind: Kind, options: tuple[str, ...] = ()) -> Question:
    """One object for all items that ask the same."""
    return Question("q", text, kind, options)


def count_gold(number: str) -> str:
    """Digits -> the option of a plain count that is right."""
    return number if int(number) < len(COUNTS) - 1 else COUNTS[-1]


def read_json(path: Path, what: str) -> Any:
    """SourceMissing without the file, InputError when it is no JSON. `what`: what it should be."""
    if not path.is_file():
        raise SourceMissing(f"no {path.name} in {path.parent.name or '.'!r}; --data names the folder that holds {what}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is no JSON ({error}); fetch it again") from error
