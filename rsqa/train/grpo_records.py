"""Questions with a gold answer for GRPO: JSON lines, or Parquet with the published columns prompt, image, solution.

`solution` is [answer_type, answer, question, image in base64] (arXiv 2505.12099, its published training code).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import ArrowException

from rsqa.errors import InputError, SourceMissing
from rsqa.train.conversations import box_fault
from rsqa.train.picture_files import decode, inside, look
from rsqa.train.records import scan
from rsqa.train.tally import Tally, Unfit

_COLUMNS = ("prompt", "image", "solution")
_GROUPS_HELD = 4
"""Row groups of a Parquet file whose pictures are kept in memory."""


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """One record."""

    question: str
    """The user's words as the model reads them, tags and suffixes inside."""
    answer_type: str
    """0 open, for a judge; 1 compared as a word; 2 a box."""
    answer: str
    image: str
    """Path within the folder of pictures; of a picture inside a Parquet file a name for messages."""


@dataclass(frozen=True, slots=True)
class GoldQuestions:
    """The usable records of a file, in memory: GRPO sets are small."""

    questions: tuple[GoldQuestion, ...]
    sources: tuple[Callable[[], Path | bytes], ...]
    """Per question what gives its picture."""
    n_read: int
    left_out: Tally

    def __len__(self) -> int:
        return len(self.questions)

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """-> (3, H, W). Raises InputError that names the picture when it can't be decoded."""
        return decode(self.sources[number](), self.questions[number].image)


def read_gold(file: Path, folder: Path, skip_bad: bool) -> GoldQuestions:
    """The records of a file for training. Without `skip_bad` one bad record stops the start with InputError."""
    found = index_gold(file, folder)
    if found.left_out.total and not skip_bad:
        raise InputError(found.left_out.refusal(file.name, found.n_read))
    if not len(found):
        raise InputError(f"no usable record in {file.name} of {found.n_read:,}; see rsqa data check {file.name}")
    return found


def index_gold(file: Path, folder: Path) -> GoldQuestions:
    """Read all records and the headers of their pictures. Bad records are left out and counted."""
    left_out = Tally()
    questions, sources = [], []
    n_read = 0
    rows = _parquet_rows(file, folder) if file.suffix == ".parquet" else _json_rows(file, folder)
    for n_read, (found, source) in enumerate(rows, start=1):
        fault = found.why if isinstance(found, Unfit) else _fault(found, source)
        if fault or isinstance(found, Unfit):
            named = "" if isinstance(found, Unfit) else f" ({found.image})"
            left_out.add(fault, f"record {n_read}{named}")
            continue
        questions.append(found)
        sources.append(source)
    return GoldQuestions(tuple(questions), tuple(sources), n_read, left_out)


def _fault(found: GoldQuestion, source: Callable[[], Path | bytes | None]) -> str:
    if not found.question.strip():
        return "empty question"
    if found.answer_type not in ("0", "1", "2"):
        return "answer type is none of 0, 1, 2"
    if found.answer_type != "0" and not found.answer.strip():
        return "empty answer"
    if found.answer_type == "2" and (fault := box_fault(found.answer)):
        return fault
    picture = source()
    return "image path leaves the folder" if picture is None else look(picture).fault


Row = tuple[GoldQuestion | Unfit, Callable[[], Any]]


def _json_rows(file: Path, folder: Path) -> Iterator[Row]:
    for _, raw in scan(file):
        found = _gold_of(raw)
        yield found, partial(inside, folder, "" if isinstance(found, Unfit) else found.image)


def _gold_of(raw: Any) -> GoldQuestion | Unfit:
    if isinstance(raw, Unfit):
        return raw
    if not isinstance(raw, dict):
        return Unfit("record is no object")
    texts = [raw.get(key) for key in ("question", "answer_type", "answer", "image")]
    question, answer_type, answer, image = (str(t) if isinstance(t, str | int) else None for t in texts)
    if question is None or answer_type is None or answer is None or not image:
        return Unfit("record lacks image, question, answer_type or answer")
    return GoldQuestion(question.removeprefix("<image>\n"), answer_type, answer, image)


def _parquet_rows(file: Path, folder: Path) -> Iterator[Row]:
    if not file.is_file():
        raise SourceMissing(f"no file {file.name} of GRPO records; give JSON lines or a Parquet file")
    table = _ParquetColumns(file)
    for group in range(table.n_groups):
        prompts, solutions = table.texts(group)
        for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
            named = f"row {row} of row group {group} of {file.name}"
            yield _gold_of_row(prompt, solution, named), partial(_picture, table, group, row, folder)


class _ParquetColumns:
    """The published columns, a row group at a time. Every method raises InputError when the file is damaged."""

    def __init__(self, file: Path) -> None:
        self._name = file.name
        with self._damage_told():
            self._table = pq.ParquetFile(file)
        if missing := [name for name in _COLUMNS if name not in self._table.schema_arrow.names]:
            raise InputError(f"{file.name} has no column {missing[0]!r}; GRPO records have {', '.join(_COLUMNS)}")
        self.n_groups: int = self._table.num_row_groups
        self.pictures = lru_cache(maxsize=_GROUPS_HELD)(partial(self._column, "image"))
        """Number of a row group -> what its rows hold as pictures."""

    def texts(self, group: int) -> tuple[list[Any], list[Any]]:
        """-> prompts and solutions."""
        return self._column("prompt", group), self._column("solution", group)

    def _column(self, name: str, group: int) -> list[Any]:
        with self._damage_told():
            values: list[Any] = self._table.read_row_group(group, columns=[name]).column(name).to_pylist()
            return values

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (ArrowException, OSError) as error:
            raise InputError(f"{self._name} can't be read as Parquet ({error}); fetch it again") from error


def _picture(table: _ParquetColumns, group: int, row: int, folder: Path) -> Path | bytes | None:
    """Published columns hold {bytes, path}, one of them null."""
    value = table.pictures(group)[row]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return inside(folder, value) if isinstance(value, str) else value or b""


def _gold_of_row(prompt: Any, solution: Any, named: str) -> GoldQuestion | Unfit:
    try:
        said = json.loads(solution) if isinstance(solution, str) else solution
        answer_type, answer = str(said[0]), str(said[1])
        question = _user_text(json.loads(prompt) if isinstance(prompt, str) else prompt)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return Unfit("prompt or solution not as published")
    return GoldQuestion(question, answer_type, answer, named)


def _user_text(messages: Sequence[Any]) -> str:
    """The words of the user among messages whose content is text, or a list of texts and of objects with a text."""
    content = [message["content"] for message in messages if message["role"] == "user"][0]  # noqa: RUF015
    parts = [content] if isinstance(content, str) else content
    texts = [part if isinstance(part, str) else part.get("text") or "" for part in parts]
    return "".join(texts).removeprefix("<image>\n")
