"""What came out, in a few numbers, counted while the rows go by.

N tiles, Q questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsqa.sinks.table import ABSTAINED, STATUSES, TILE_STATUSES, tile_statuses
from rsqa.tasks.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSummary:
    """What came out for one question, over all tiles."""

    id: str
    text: str
    kind: str
    counts: Mapping[str, int]
    """Answer -> tiles, in the order of the options; answers never given and those to open questions are absent."""
    mean_confidence: Mapping[str, float]
    """Answer -> mean over its tiles; answers without a confidence are absent."""
    statuses: Mapping[str, int]
    """Status -> tiles; together all tiles."""
    objects: int | None = None
    """Things that were found, each once; None where none were looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersSummary:
    """The whole table in a few numbers."""

    n_rows: int
    tiles: Mapping[str, int]
    """ok, nodata, error -> tiles."""
    questions: tuple[QuestionSummary, ...]


@dataclass(slots=True)
class Tally:
    """Counts of the rows seen so far."""

    questions: Sequence[Question]
    tiles: Counter[str] = field(default_factory=Counter)
    cells: dict[tuple[str, str, str | None], NDArray[np.float64]] = field(default_factory=dict)
    """(question id, status, answer) -> rows, sum of their confidences, rows that have one."""

    def count(self, group: pa.Table) -> pa.Table:
        """Count whole tiles and hand them on."""
        codes = tile_statuses(group["status"].to_numpy().reshape(-1, len(self.questions)))
        self.tiles.update(TILE_STATUSES[code] for code in codes.tolist())
        written = pc.is_in(group["kind"], pa.array(["open", "box"]))
        answer = pc.if_else(written, None, group["value"])  # free text has no end of values
        columns = [group["question_id"], group["status"], answer, group["confidence"]]
        rows = pa.table(columns, ["id", "status", "answer", "p"])
        cells = rows.group_by(["id", "status", "answer"], use_threads=False)  # threads would sum in any order
        for cell in cells.aggregate([([], "count_all"), ("p", "sum"), ("p", "count")]).to_pylist():
            key = cell["id"], cell["status"], cell["answer"]
            more = np.array([cell["count_all"], cell["p_sum"] or 0, cell["p_count"]], float)
            self.cells[key] = self.cells.get(key, 0) + more
        return group

    def summary(self) -> AnswersSummary:
        """What was counted, in an order that does not depend on the rows'."""
        n_tiles = self.tiles.total()
        return AnswersSummary(
            n_rows=n_tiles * len(self.questions),
            tiles={status: self.tiles[status] for status in TILE_STATUSES},
            questions=tuple(self._question(question) for question in self.questions),
        )

    def _question(self, question: Question) -> QuestionSummary:
        statuses: Counter[str] = Counter()
        for (id_, status, _), (n, _, _) in self.cells.items():
            if id_ == question.id:
                statuses[status] += int(n)
        cells = {option: self.cells.get((question.id, "ok", option), np.zeros(3)) for option in question.options}
        return QuestionSummary(
            id=question.id,
            text=question.text,
            kind=question.kind,
            counts={option: int(n) for option, (n, _, _) in cells.items() if n},
            mean_confidence={option: float(total / n) for option, (_, total, n) in cells.items() if n},
            statuses={status: statuses[status] for status in (*STATUSES, ABSTAINED) if statuses[status]},
        )
