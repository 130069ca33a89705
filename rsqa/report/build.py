"""From a finished output folder to `report.html` and to a static map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rsqa
from rsqa.raster.quicklook import Quicklook
from rsqa.report.answers import (
    CONFIDENCE_STEPS,
    NO_CONFIDENCE,
    NO_PROBABILITY,
    NO_ROW,
    PROBABILITY_STEPS,
    TABLE_STATUSES,
    Answers,
    Strings,
    class_question,
    gather_answers,
)
from rsqa.report.boxes import Boxes, gather_boxes
from rsqa.report.document import Packed, write_page
from rsqa.report.evidence import gather_evidence
from rsqa.report.layout import Layout, lay_out
from rsqa.report.pictures import encode, take_quicklooks
from rsqa.run.folder import read_plan
from rsqa.run.plan import Plan, PlannedSource
from rsqa.sinks.colours import CHOICES, NONE, OBJECTS, RGB, option_colours
from rsqa.sinks.finished import open_tables
from rsqa.sinks.whole import write_whole_bytes

OPEN_COLOUR = CHOICES[2]
"""Of tiles that answered in words."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a page shows, as values."""

    plan: Plan
    layout: Layout
    answers: list[Answers]
    strings: Strings
    looks: Sequence[Quicklook | None]
    """Of each source."""
    boxes: Boxes | None
    notes: list[str]
    evidence: dict[str, NDArray[np.uint8]]
    """Question id -> see `gather_evidence`; empty where none was kept."""


def gather(folder: Path, most_px: int) -> Report:
    """Read what a report shows; pictures of all sources together have at most `most_px` pixels.

    Raises SourceMissing where nothing is finished, UsageError where there are too many tiles. A source that is gone or
    changed costs its picture only; the notes say so.
    """
    tables, plan = open_tables(folder), read_plan(folder)
    sources = [planned.source for planned in plan.first_pass]
    layout, notes = lay_out(sources), list[str]()
    answers, strings, evidence = list[Answers](), Strings(0), dict[str, NDArray[np.uint8]]()
    grids = [planned.tiled for planned in plan.first_pass]
    if "answers" in tables:
        answers, strings = gather_answers(tables["answers"], grids, plan.row_questions)
        if plan.evidence:
            evidence = gather_evidence(tables["answers"], grids, plan.questions, plan.evidence)
    elif "classes" in tables:
        answers, strings = gather_answers(tables["classes"], grids, [class_question(tables["classes"])])
    boxes = gather_boxes(tables["detections"], layout) if "detections" in tables else None
    if layout.crs is None:
        apart = "lie far apart or have several coordinate systems"
        why = apart if any(source.placed for source in sources) else "have no place on the ground"
        notes.append(f"The sources {why}: they are shown side by side.")
    if strings.n_cut:
        notes.append(
            f"{strings.n_cut:,} long texts are cut to {strings.longest:,} characters; the table has them whole."
        )
    if boxes is not None and boxes.n_left_out:
        notes.append(f"{boxes.n_left_out:,} objects of the lowest scores are left out.")
    looks = take_quicklooks(sources, plan.stretch, most_px, notes.append)
    return Report(plan, layout, answers, strings, looks, boxes, notes, evidence)


def write_report(path: Path, report: Report) -> None:
    """Write the page; OutputError when `path` can't be written."""
    packed, pictures = Packed(), dict[str, bytes]()
    sources, first = [], 0
    for number, (planned, look) in enumerate(zip(report.plan.first_pass, report.looks, strict=True)):
        facts = _source(planned, report.layout, number, first)
        first += facts["rows"] * facts["cols"]
        if look is not None:
            picture, name = encode(look), f"picture-{number}"
            pictures[name] = picture.webp
            facts |= {"picture": name, "step": picture.step}
        sources.append(facts)
    facts = {
        "title": title(report.plan),
        "subtitle": _subtitle(report, first),
        "statuses": TABLE_STATUSES,
        "steps": {
            "confidence": CONFIDENCE_STEPS,
            "noConfidence": NO_CONFIDENCE,
            "probability": PROBABILITY_STEPS,
            "noProbability": NO_PROBABILITY,
            "noRow": NO_ROW,
        },
        "map": {
            "crs": report.layout.crs,
            "origin": report.layout.origin,
            "x_scale": report.layout.x_scale,
            "metres": report.layout.metres,
        },
        "quiet": hex_colour(NONE),
        "blocks": report.plan.evidence,
        "sources": sources,
        "questions": [_question(answers, report.evidence, packed) for answers in report.answers],
        "strings": packed.add_strings(report.strings.all),
        "boxes": None if report.boxes is None else _boxes(report.boxes, packed),
        "notes": report.notes,
        "about": _about(report.plan),
    }
    write_whole_bytes(path, write_page(title(report.plan), facts, packed, pictures))


def _source(planned: PlannedSource, layout: Layout, number: int, first: int) -> dict[str, Any]:
    grid = planned.grid
    return {
        "name": planned.source.name,
        "transform": list(layout.transforms[number])[:6],
        "width": planned.source.width,
        "height": planned.source.height,
        "tile_px": planned.tile_px,
        "rows": grid.n_rows,
        "cols": grid.n_cols,
        "first": first,
        "picture": None,
        "step": 1,
    }


def _question(answers: Answers, evidence: Mapping[str, NDArray[np.uint8]], packed: Packed) -> dict[str, Any]:
    question = answers.question
    arrays: dict[str, NDArray[Any]] = {
        "status": answers.status, "value": answers.value, "confidence": answers.confidence,
    }  # fmt: skip
    if question.closed:
        arrays |= {"top_options": answers.options, "probabilities": answers.probabilities}
    if question.id in evidence:
        arrays["evidence"] = evidence[question.id]
    names = {"text": "words", "reasoning": "reasoning", "error": "error"}  # "text" is the question's own
    arrays |= {names[name]: numbers for name, numbers in answers.texts.items() if numbers.any()}
    colours = option_colours(question) if question.closed else (OPEN_COLOUR,)
    return {
        "id": question.id,
        "text": question.text,
        "kind": question.kind,
        "options": question.options,
        "colours": [hex_colour(colour) for colour in colours],
        "arrays": {name: packed.add(array) for name, array in arrays.items()},
    }


def _boxes(boxes: Boxes, packed: Packed) -> dict[str, Any]:
    colours = [hex_colour(OBJECTS[number % len(OBJECTS)]) for number in range(len(boxes.labels))]
    return {
        "labels": boxes.labels,
        "colours": colours,
        "corners": packed.add(boxes.corners),
        "label": packed.add(boxes.label),
        "score": packed.add(boxes.score),
    }


def hex_colour(colour: RGB) -> str:
    """-> "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def title(plan: Plan) -> str:
    """The first source's name, and how many more there are."""
    first = plan.first_pass[0].source.name
    return first if len(plan.first_pass) == 1 else f"{first} and {len(plan.first_pass) - 1:,} more"


def _subtitle(report: Report, n_tiles: int) -> str:
    sides = sorted({planned.tile_px for planned in report.plan.first_pass})
    side = f"{sides[0]:,} px" if len(sides) == 1 else f"{sides[0]:,} to {sides[-1]:,} px"
    words = [f"{n_tiles:,} tile{'s'[: n_tiles != 1]} of {side}"]
    if n_questions := len(report.answers):
        words.append(f"{n_questions:,} question{'s'[: n_questions != 1]}")
    if report.boxes is not None:
        words.append(f"{len(report.boxes.label) + report.boxes.n_left_out:,} objects")
    return " · ".join([*words, report.plan.model.name])


def _about(plan: Plan) -> list[tuple[str, str]]:
    """Names and values, for those who want to know how it was made."""
    return [
        ("model", plan.model.name),
        ("weights", plan.model.weights_id or "unknown"),
        ("precision", plan.dtype),
        ("plan", plan.plan_id),
        ("rsqa", rsqa.__version__),
    ]
