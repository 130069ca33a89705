"""The answers of a finished output as small arrays, one entry a tile: what a page can hold of 50,000 tiles.

T tiles, counted over the sources in the plan's order and row by row within each; M options that are kept of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from rsqa.errors import UsageError
from rsqa.sinks.cube_layout import value_codes
from rsqa.sinks.finished import FinishedTable
from rsqa.sinks.table import STATUSES
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import Question

MOST_CELLS = 5_000_000
"""Tiles times questions of a page; more would take a browser's memory."""

CONFIDENCE_STEPS = 50_000
"""Whole for every hundredth, so that a slider in hundredths cuts exactly where the table does."""
NO_CONFIDENCE = 65_535
PROBABILITY_STEPS = 200
NO_PROBABILITY = 255
SHOWN_OPTIONS = 4
"""The likeliest, of which the probability is kept."""
NO_ROW = 255
"""Status of a tile that has no row."""
TABLE_STATUSES = (*STATUSES, "abstained")
"""Of answers, and of labels that were not sure enough."""

CLASS_TEXT = "Which class is it?"

COLUMNS = (
    "source", "tile_row", "tile_col", "question_id", "value", "label", "status", "confidence", "probabilities",
)  # fmt: skip
"""Of a table of answers or of classes: no table has all of them."""
TEXT_FIELDS = ("text", "reasoning", "error")
MOST_TEXT = 16_000_000
"""Characters of all texts together; where there are more each is cut."""
LEAST_TEXT = 80
"""Characters that each text may keep in any case."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What came of one question on T tiles."""

    question: Question
    value: NDArray[np.unsignedinteger[Any]]
    """(T,) number of the option; the highest of the type: none."""
    status: NDArray[np.uint8]
    """(T,) position in TABLE_STATUSES, or NO_ROW."""
    confidence: NDArray[np.uint16]
    """(T,) in 1 / CONFIDENCE_STEPS, rounded down, or NO_CONFIDENCE."""
    options: NDArray[np.unsignedinteger[Any]]
    """(T, M) numbers of the likeliest options, the likeliest first; the highest of the type: none."""
    probabilities: NDArray[np.uint8]
    """(T, M) in 1 / PROBABILITY_STEPS, or NO_PROBABILITY."""
    texts: dict[str, NDArray[np.uint32]]
    """Of TEXT_FIELDS -> (T,) number of the string; 0 none."""


@dataclass(slots=True)
class Strings:
    """Every text once, cut to a length."""

    longest: int
    """Characters that are kept."""
    all: list[str] = field(default_factory=lambda: [""])
    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})
    n_cut: int = 0

    def add(self, column: pa.Array) -> NDArray[np.uint32]:
        """(N,) texts or null -> (N,) their numbers; 0 null."""
        return np.array([0 if text is None else self._number(text) for text in column.to_pylist()], np.uint32)

    def _number(self, text: str) -> int:
        if len(text) > self.longest:
            text, self.n_cut = text[: self.longest - 1] + "…", self.n_cut + 1
        if text not in self.numbers:
            self.numbers[text] = len(self.all)
            self.all.append(text)
        return self.numbers[text]


def gather_answers(
    table: FinishedTable, sources: Sequence[TiledSource], questions: Sequence[Question]
) -> tuple[list[Answers], Strings]:
    """Read the answers to all questions, a batch in memory at a time; labels are answers to one question.

    UsageError when they are too many for a page.
    """
    names = table.data.schema.names
    n_tiles = [source.n_rows * source.n_cols for source in sources]
    if sum(n_tiles) * len(questions) > MOST_CELLS:
        raise UsageError(
            f"a report holds {MOST_CELLS:,} answers, here are {sum(n_tiles) * len(questions):,}; "
            "write a GeoPackage with rsqa export and open it in QGIS"
        )
    n_texts = sum(table.data.count_rows(filter=ds.field(name).is_valid()) for name in TEXT_FIELDS if name in names)
    strings = Strings(max(LEAST_TEXT, MOST_TEXT // max(1, n_texts)))
    place = _Places(sources, n_tiles)
    answers = [_empty(question, sum(n_tiles)) for question in questions]
    columns = [name for name in (*COLUMNS, *TEXT_FIELDS) if name in names]
    for batch in table.data.to_batches(columns=columns, batch_readahead=2, fragment_readahead=1):
        for question in answers:
            own = batch
            if "question_id" in names:
                own = batch.filter(pc.equal(batch["question_id"], question.question.id))
            if own.num_rows:
                _fill(question, place.tiles(own), own, strings)
    return answers, strings


def class_question(table: FinishedTable) -> Question:
    """What the rows of a table of classes answer: the labels that occur are its options."""
    batches = table.data.to_batches(columns=["label"])
    labels = sorted({label for batch in batches for label in batch["label"].drop_null().unique().to_pylist()})
    return Question("class", CLASS_TEXT, "label", tuple(labels or ("none",)))


class _Places:
    """Where a row's tile is among all tiles."""

    def __init__(self, sources: Sequence[TiledSource], n_tiles: Sequence[int]) -> None:
        self._names = pa.array([source.name for source in sources])
        self._first = np.concatenate([[0], np.cumsum(n_tiles)[:-1]]).astype(np.int64)
        self._n_cols = np.array([source.n_cols for source in sources])

    def tiles(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """-> (N,) numbers of the tiles."""
        source = pc.index_in(batch["source"], self._names).to_numpy(zero_copy_only=False)
        rows, cols = (batch[name].to_numpy() for name in ("tile_row", "tile_col"))
        numbers: NDArray[np.int64] = self._first[source] + rows.astype(np.int64) * self._n_cols[source] + cols
        return numbers


def _empty(question: Question, n_tiles: int) -> Answers:
    dtype, unknown = value_codes(question)
    shown = min(SHOWN_OPTIONS, len(question.options))
    return Answers(
        question,
        value=np.full(n_tiles, unknown, dtype),
        status=np.full(n_tiles, NO_ROW, np.uint8),
        confidence=np.full(n_tiles, NO_CONFIDENCE, np.uint16),
        options=np.full((n_tiles, shown), unknown, dtype),
        probabilities=np.full((n_tiles, shown), NO_PROBABILITY, np.uint8),
        texts={name: np.zeros(n_tiles, np.uint32) for name in TEXT_FIELDS},
    )


def _fill(answers: Answers, tiles: NDArray[np.int64], rows: pa.RecordBatch, strings: Strings) -> None:
    """Put N rows of one question at the numbers of their tiles."""
    answers.status[tiles] = pc.fill_null(pc.index_in(rows["status"], pa.array(TABLE_STATUSES)), NO_ROW).to_numpy()
    for name in set(TEXT_FIELDS) & set(rows.schema.names):
        answers.texts[name][tiles] = strings.add(rows[name])
    if not answers.question.closed:
        return
    options = pa.array(answers.question.options)
    unknown = int(np.iinfo(answers.value.dtype).max)
    given = rows["label" if "label" in rows.schema.names else "value"]
    answers.value[tiles] = pc.fill_null(pc.index_in(given, options), unknown).to_numpy()
    answers.confidence[tiles] = confidence_steps(rows["confidence"].to_numpy(zero_copy_only=False))
    codes, shares = _likeliest(rows["probabilities"], options, unknown, answers.options.shape[1])
    answers.options[tiles], answers.probabilities[tiles] = codes, shares


def confidence_steps(sure: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(N,) confidences, NaN for none -> (N,) as in `Answers.confidence`."""
    # A float32 such as 0.8 lies a little beside the hundredth that the slider names; who reads the table sees 0.8.
    steps = np.floor(np.round(sure.astype(np.float64), 7) * CONFIDENCE_STEPS + 1e-6)
    return np.where(np.isnan(sure), NO_CONFIDENCE, steps).astype(np.uint16)


def _likeliest(
    column: pa.MapArray, options: pa.Array, unknown: int, shown: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) option -> probability -> the `shown` likeliest of each row: (N, shown) codes, (N, shown) steps."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    lengths = np.where(column.is_null().to_numpy(zero_copy_only=False), 0, np.diff(offsets))
    row = np.repeat(np.arange(len(column)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # within its row
    take = pa.array(np.repeat(offsets[:-1], lengths) + place)
    width = max(shown, int(lengths.max(initial=0)))
    codes, shares = np.full((len(column), width), unknown, np.int64), np.full((len(column), width), -1.0)
    codes[row, place] = pc.fill_null(pc.index_in(column.keys.take(take), options), unknown).to_numpy()
    shares[row, place] = column.items.take(take).to_numpy(zero_copy_only=False)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :shown]
    shares = np.take_along_axis(shares, best, axis=1)
    steps = np.where(shares < 0, NO_PROBABILITY, np.rint(shares * PROBABILITY_STEPS))
    return np.take_along_axis(codes, best, axis=1), steps
