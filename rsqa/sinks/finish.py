"""From committed parts to the outputs that people open. All of them are derived: finishing again gives the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsqa.sinks.caption_summary import write_summary
from rsqa.sinks.class_maps import write_polygons, write_rasters
from rsqa.sinks.classes import finish_classes
from rsqa.sinks.counts import Count, read_areas
from rsqa.sinks.detections import Pass, detections_table, finish_detections, found_objects, most_objects
from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.ground import common_crs
from rsqa.sinks.stac import write_item
from rsqa.sinks.summary import AnswersSummary
from rsqa.sinks.table import EVIDENCE_SCHEMA, SCHEMA
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import discard, write_whole_bytes
from rsqa.sinks.zarr import finish_cube
from rsqa.tasks.question import Question
from rsqa.tasks.task import Caption, Classify, Detect, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishInputs:
    """What the outputs need to know of a plan."""

    plan_id: str
    sources: tuple[TiledSource, ...]
    """In the plan's order."""
    questions: tuple[Question, ...]
    """What the rows of a tile are about, in their order."""
    task: Task
    parts: tuple[Path, ...]
    """Committed ones, by number."""
    software: Mapping[str, str]
    """Name -> version of all that made the answers, the model included."""
    lineage: str
    """One sentence: what was done to the imagery, for people."""
    evidence: int = 0
    """Blocks along a side of a tile whose weights in an adapter the parts hold; 0: they don't."""
    passes: Sequence[Pass] = ()
    """Where boxes were asked for, by which tiles: the first pass, of `sources` and `parts`, and perhaps a coarser."""


def finish(out: Path, inputs: FinishInputs, run_facts: Mapping[str, Any]) -> AnswersSummary:
    """Write the tables, rasters, item.json and run.json of a task into `out`.

    The two JSON files vanish first and return last, run.json last of all: while it is there, the rest is whole and
    of one make. `run_facts` (times, host, speed: what differs from run to run) become run.json, with the summary; all
    else is the same bytes for the same parts. Raises OutputError when a part is damaged or `out` can't be written.
    """
    discard(out / "run.json")
    discard(out / "item.json")
    summary = _finish_tables(out, inputs)
    write_item(out / "item.json", inputs.sources, inputs.questions, inputs.plan_id, inputs.software, inputs.lineage)
    run = json.dumps({**run_facts, "plan_id": inputs.plan_id, "summary": asdict(summary)}, indent=2, ensure_ascii=False)
    write_whole_bytes(out / "run.json", (run + "\n").encode())
    return summary


def _finish_tables(out: Path, inputs: FinishInputs) -> AnswersSummary:
    crs_wkts = [source.crs_wkt for source in inputs.sources]
    if isinstance(inputs.task, Classify):
        [question] = inputs.questions
        summary = finish_classes(out / inputs.task.table, inputs.parts, question, inputs.task, crs_wkts, inputs.plan_id)
        _finish_maps(out, inputs, inputs.task, question.options)
        return summary
    schema = EVIDENCE_SCHEMA if inputs.evidence else SCHEMA
    answered = out / "answers.parquet"
    summary = finish_answers(answered, inputs.parts, inputs.questions, crs_wkts, inputs.plan_id, schema)
    objects = None
    if isinstance(inputs.task, Detect):
        summary = _finish_objects(out, inputs, inputs.task, summary)
        objects = out / inputs.task.table
    finish_cube(
        out / "tiles.zarr", inputs.parts, inputs.sources, inputs.questions, inputs.plan_id,
        evidence=inputs.evidence, objects=objects,
    )  # fmt: skip
    if isinstance(inputs.task, Caption):
        _finish_summary(out / "summary.json", inputs, inputs.task)
    return summary


def _finish_objects(out: Path, inputs: FinishInputs, task: Detect, summary: AnswersSummary) -> AnswersSummary:
    """Write the table of objects and, where they are wanted, the counts; -> the summary with how many there are."""
    crs = common_crs(source.crs_wkt for source in inputs.sources)
    count = Count(inputs.questions, task.names, read_areas(task.areas) if task.areas else None)

    def tables() -> Iterator[pa.Table]:
        for found in found_objects(inputs.passes, inputs.questions, task.names):
            count.add(found)
            yield detections_table(found.objects, found.source, found.labels, crs)

    finish_detections(out / task.table, tables(), crs, inputs.plan_id, most_objects(inputs.passes))
    if task.count:
        count.add_unknown(inputs.parts, inputs.sources)
        count.write(out / "counts.parquet", crs, inputs.plan_id)
    else:
        discard(out / "counts.parquet")
    with_objects = [
        replace(question, objects=n) for question, n in zip(summary.questions, count.counts[0].tolist(), strict=True)
    ]
    return replace(summary, questions=tuple(with_objects))


def _finish_summary(path: Path, inputs: FinishInputs, task: Caption) -> None:
    if task.summary:
        write_summary(path, inputs.parts)
    else:
        discard(path)


def _finish_maps(out: Path, inputs: FinishInputs, task: Classify, labels: Sequence[str]) -> None:
    """Write the maps that are asked for and remove those that are not."""
    polygons, rasters = out / "class_polygons.parquet", out / "class_rasters"
    if task.dissolve:
        write_polygons(polygons, inputs.parts, inputs.sources, labels, task.abstain, inputs.plan_id)
    else:
        discard(polygons)
    if task.cog:
        write_rasters(rasters, inputs.parts, inputs.sources, labels, task.abstain)
    else:
        discard(rasters)
