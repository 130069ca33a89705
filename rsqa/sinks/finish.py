"""From committed parts to the outputs that people open. All of them are derived: finishing again gives the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.stac import write_item
from rsqa.sinks.summary import AnswersSummary
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import discard, write_whole_bytes
from rsqa.sinks.zarr import finish_cube
from rsqa.tasks.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishInputs:
    """What the outputs need to know of a plan."""

    plan_id: str
    sources: tuple[TiledSource, ...]
    """In the plan's order."""
    questions: tuple[Question, ...]
    """In the order of the rows of a tile."""
    parts: tuple[Path, ...]
    """Committed ones, by number."""
    software: Mapping[str, str]
    """Name -> version of all that made the answers, the model included."""
    lineage: str
    """One sentence: what was done to the imagery, for people."""


def finish(out: Path, inputs: FinishInputs, run_facts: Mapping[str, Any]) -> AnswersSummary:
    """Write answers.parquet, tiles.zarr, item.json and run.json into `out`.

    The two JSON files vanish first and return last, run.json last of all: while it is there, the rest is whole and
    of one make. `run_facts` (times, host, speed: what differs from run to run) become run.json, with the summary; all
    else is the same bytes for the same parts. Raises OutputError when a part is damaged or `out` can't be written.
    """
    discard(out / "run.json")
    discard(out / "item.json")
    crs_wkts = [source.crs_wkt for source in inputs.sources]
    summary = finish_answers(out / "answers.parquet", inputs.parts, inputs.questions, crs_wkts, inputs.plan_id)
    finish_cube(out / "tiles.zarr", inputs.parts, inputs.sources, inputs.questions, inputs.plan_id)
    write_item(out / "item.json", inputs.sources, inputs.questions, inputs.plan_id, inputs.software, inputs.lineage)
    run = json.dumps({**run_facts, "plan_id": inputs.plan_id, "summary": asdict(summary)}, indent=2, ensure_ascii=False)
    write_whole_bytes(out / "run.json", (run + "\n").encode())
    return summary
