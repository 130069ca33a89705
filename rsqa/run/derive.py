"""From the committed parts of a plan to the outputs that people open."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import rsqa
from rsqa.run.folder import part_path
from rsqa.run.plan import Parts, Plan
from rsqa.run.trace import Trace
from rsqa.sinks.detections import Pass
from rsqa.sinks.finish import FinishInputs, finish
from rsqa.sinks.summary import AnswersSummary, QuestionSummary
from rsqa.sinks.whole import write_whole
from rsqa.tasks.task import Ask, Caption, Classify, Detect

LIBRARIES = ("torch", "transformers", "rasterio", "numpy", "pyarrow", "zarr")
"""Those whose version can change a byte of the outputs."""


def derive(out: Path, plan: Plan, parts: Parts, trace: Trace, facts: Mapping[str, Any]) -> AnswersSummary:
    """Write the tables, the cube and the item; all parts must be committed.

    `trace` becomes performance.parquet; `facts` are what this run was like, for run.json.
    """
    software = {"rsqa": rsqa.__version__, **{name: version(name) for name in LIBRARIES}}
    if len(trace):
        write_whole(
            out / "performance.parquet", lambda temporary: pq.write_table(trace.table(), temporary, compression="zstd")
        )
    passes = [_pass(out, plan, parts, *ends) for ends in pairwise(_pass_begins(plan))]
    inputs = FinishInputs(
        plan_id=plan.plan_id,
        sources=passes[0].sources,
        questions=plan.row_questions,
        task=plan.task,
        parts=passes[0].parts,
        software={**software, plan.model.name: plan.model.weights_id or "unknown"},
        evidence=plan.evidence,
        lineage=f"{_done_by(plan)} the vision-language model {plan.model.name}",
        passes=passes,
    )
    about = {"software": software, "host": platform.node(), "failed_sources": plan.failed}
    return finish(out, inputs, {**about, **facts})


def _pass_begins(plan: Plan) -> list[int]:
    """The first source of each pass, and the number of sources."""
    n_first, n_all = len(plan.first_pass), len(plan.sources)
    return [0, n_all] if n_first == n_all else [0, n_first, n_all]


def _pass(out: Path, plan: Plan, parts: Parts, first: int, end: int) -> Pass:
    """Sources `first` to `end` - 1."""
    numbers = range(parts.begin(first), parts.begin(end))
    return Pass(
        sources=tuple(planned.tiled for planned in plan.sources[first:end]),
        parts=tuple(part_path(out, number) for number in numbers),
        blocks=((source - first, n_tiles) for source, n_tiles in parts.tiles_of_blocks(numbers)),
    )


def _done_by(plan: Plan) -> str:
    match plan.task:
        case Classify():
            return f"tiles given one of {len(plan.questions[0].options)} labels by"
        case Caption():
            return "tiles described by"
        case Detect():
            return f"objects of {len(plan.task.names)} kinds looked for in tiles by"
        case Ask():
            return f"{len(plan.questions)} questions asked of tiles by"


def whole_summary(out: Path, plan: Plan) -> AnswersSummary | None:
    """The summary of an earlier run of the plan whose outputs are whole: run.json is written last; None without one."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        told, plan_id = run["summary"], run["plan_id"]
        questions = tuple(QuestionSummary(**question) for question in told["questions"])
        summary = AnswersSummary(n_rows=told["n_rows"], tiles=dict(told["tiles"]), questions=questions)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return summary if plan_id == plan.plan_id else None
