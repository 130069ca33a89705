"""From the committed parts of a plan to the outputs that people open."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import rsqa
from rsqa.run.folder import part_path
from rsqa.run.plan import Parts, Plan
from rsqa.run.trace import Trace
from rsqa.sinks.finish import FinishInputs, finish
from rsqa.sinks.summary import AnswersSummary, QuestionSummary
from rsqa.sinks.whole import discard, write_whole
from rsqa.tasks.task import Ask, Caption, Classify

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
    inputs = FinishInputs(
        plan_id=plan.plan_id,
        sources=tuple(planned.tiled for planned in plan.sources),
        questions=plan.row_questions,
        task=plan.task,
        parts=tuple(part_path(out, number) for number in range(len(parts))),
        software={**software, plan.model.name: plan.model.weights_id or "unknown"},
        evidence=plan.evidence,
        lineage=f"{_done_by(plan)} the vision-language model {plan.model.name}",
    )
    about = {"software": software, "host": platform.node(), "failed_sources": plan.failed}
    return finish(out, inputs, {**about, **facts})


def _done_by(plan: Plan) -> str:
    match plan.task:
        case Classify():
            return f"tiles given one of {len(plan.questions[0].options)} labels by"
        case Caption():
            return "tiles described by"
        case Ask():
            return f"{len(plan.questions)} questions asked of tiles by"


def withdraw(out: Path) -> None:
    """Take back the word that the outputs are whole, before a part is done again."""
    discard(out / "run.json")
    discard(out / "item.json")


def whole_summary(out: Path, plan: Plan) -> AnswersSummary | None:
    """The summary of an earlier run of the plan whose outputs are whole: run.json is written last; None without one."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        summary = run["summary"]
        questions = tuple(QuestionSummary(**question) for question in summary["questions"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if run["plan_id"] != plan.plan_id or not (out / plan.task.table).exists():
        return None
    return AnswersSummary(n_rows=summary["n_rows"], tiles=summary["tiles"], questions=questions)
