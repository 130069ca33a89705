"""`classes.parquet`: one row per tile with its label, made from parts that hold the answers to one question.

N tiles, n of them with probabilities, K labels that a part holds of a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsqa.sinks.geoparquet import Columns, finish_table
from rsqa.sinks.summary import AnswersSummary, Tally
from rsqa.sinks.table import ABSTAINED, SCHEMA, probability_map
from rsqa.tasks.question import Question
from rsqa.tasks.task import Classify

_ANSWER = {"label": "value"}
"""Columns that the answers call otherwise."""
CLASS_SCHEMA = pa.schema(
    [
        pa.field(name, SCHEMA.field(_ANSWER.get(name, name)).type)
        for name in (
            "tile_id", "tile_row", "tile_col", "source", "acquired", "label", "confidence", "probabilities",
            "option_mass", "status", "error", "reasoning", "valid_frac", "geometry", "bbox", "window_bbox",
            "processing_id", "source_crs",
        )
    ]
)  # fmt: skip


def finish_classes(
    path: Path, parts: Sequence[Path], question: Question, task: Classify, crs_wkts: Iterable[str], plan_id: str
) -> AnswersSummary:
    """Gather `parts` in one table of labels, see `finish_table`. A label that is not sure enough is not given."""
    tally = Tally((question,))
    columns = Columns(
        CLASS_SCHEMA,
        lambda group: tally.count(abstaining(group, task.abstain)),
        lambda group: _as_classes(group, task.top_k),
    )
    facts = {"plan_id": plan_id, "labels": question.options, **asdict(task)}
    finish_table(path, parts, columns, 1, crs_wkts, facts)
    return tally.summary()


def abstaining(group: pa.Table, least: float) -> pa.Table:
    """Answers without those whose confidence is below `least`; these have the status "abstained" and no value."""
    unsure = pc.and_(pc.equal(group["status"], "ok"), pc.less(group["confidence"], least)).fill_null(False)
    for name, instead in (("status", ABSTAINED), ("value", None)):
        column = pc.if_else(unsure, pa.scalar(instead, pa.string()), group[name])
        group = group.set_column(group.schema.get_field_index(name), group.schema.field(name), column)
    return group


def _as_classes(group: pa.Table, top_k: int) -> pa.Table:
    columns = {name: group[_ANSWER.get(name, name)] for name in CLASS_SCHEMA.names}
    columns["probabilities"] = _likeliest(group["probabilities"].combine_chunks(), top_k)
    return pa.table(list(columns.values()), schema=CLASS_SCHEMA)


def _likeliest(column: pa.MapArray, top_k: int) -> pa.MapArray:
    """(N,) label → probability, in any order -> the `top_k` likeliest of each row, best first."""
    known = column.is_valid().to_numpy(zero_copy_only=False)
    shown = column.drop_null()
    if not len(shown):
        return column
    k = len(shown[0])  # of all rows: they are answers to one question
    ends = shown.offsets.to_numpy()
    shares = shown.items.to_numpy()[ends[0] : ends[-1]].reshape(-1, k)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top_k]
    places = ends[0] + np.arange(len(shares))[:, None] * k + order
    return probability_map(shown.keys.take(pa.array(places.ravel())), np.take_along_axis(shares, order, axis=1), known)
