"""A benchmark and an engine -> a report: ask, score, compare.

N answered items.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rsqa
from rsqa.errors import InputError
from rsqa.evaluate.asking import Answer, Examiner, ask, ask_blind
from rsqa.evaluate.baselines import constant_values, fitted_on, question_values
from rsqa.evaluate.detection import Found, average_precision
from rsqa.evaluate.items import Benchmark, Item, ItemSet, limited
from rsqa.evaluate.metrics import average_interval, calibration_bins, calibration_error
from rsqa.evaluate.probe import probe_values
from rsqa.evaluate.report import Boxes, Calibration, Detection, Line, Provenance, Report
from rsqa.evaluate.scoring import HIT, MEDIUM, SMALL, box_iou, in_shares, published_score, score
from rsqa.tasks.boxes import Box, parse_boxes

FEWEST = 30
"""Items of a question for which its own score is worth telling."""
MOST_QUESTIONS = 40
"""More are not told one by one."""
MEASURES = {"exact": "accuracy", "bucket": "bucket accuracy", "f1": "token F1", "box": "accuracy at IoU 0.5"}
Scores = NDArray[np.float64]
OnProgress = Callable[[str, int, int], None]
"""(what is counted, done, in all)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a benchmark is run."""

    weights: str = ""
    """For the report, as the next two."""
    dtype: str = "float32"
    device: str = "cpu"
    blind: bool = True
    """Also run the model on grey pictures."""
    published: bool = False
    """Also score by the published rule."""
    limit: int | None = None
    """Pictures of a sub-sample."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One item that was put to the model."""

    item: Item
    answer: Answer
    score: float
    """NaN for detections."""


def evaluate(
    examiner: Examiner, benchmark: Benchmark, options: Options, on_progress: OnProgress = lambda *_: None
) -> tuple[Report, list[Prediction]]:
    """InputError when there is nothing to ask or no picture can be opened."""
    tests, notes = benchmark.tests, list(benchmark.notes)
    if not tests.items:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in benchmark.skipped.items()) or "no items"
        raise InputError(f"benchmark {benchmark.name!r} has nothing to ask ({why}); check --data")
    if options.limit is not None:
        tests = limited(tests, options.limit, options.seed)
        in_all = len({item.picture for item in benchmark.tests.items})
        notes.append(f"sub-sample: {len(tests.pictures):,} of {in_all:,} pictures, shuffled with seed {options.seed}")
    asked = ask(examiner, tests, lambda done, n: on_progress("items", done, n))
    blind: Sequence[Answer | None] = [None] * len(tests.items)
    if options.blind:
        blind = ask_blind(examiner, tests.items, asked, lambda done, n: on_progress("questions without image", done, n))
    kept = [i for i, answer in enumerate(asked.answers) if answer is not None]
    items = [tests.items[i] for i in kept]
    answers = [answer for answer in asked.answers if answer is not None]
    columns = _columns(benchmark, ItemSet(tests.pictures, tuple(items)), answers, [blind[i] for i in kept], options)
    groups = [tests.pictures[item.picture].group for item in items]
    report = Report(
        benchmark=benchmark.name, provenance=_provenance(examiner, benchmark, options, asked.pixels_sha256),
        n_items=len(items), n_pictures=len({item.picture for item in items}),
        lines=_lines(benchmark, items, columns, groups, options), boxes=_boxes(items, answers),
        detection=_detection(items, answers), calibration=_calibration(examiner, items, answers, columns["score"]),
        statuses=Counter(answer.status for answer in answers), left_out={**benchmark.skipped, **asked.unread},
        pictures_unread=sum(map(len, asked.unread.values())), notes=tuple(notes),
    )  # fmt: skip
    told = [Prediction(*one) for one in zip(items, answers, columns["score"].tolist(), strict=True)]
    return report, told


def _columns(
    benchmark: Benchmark, tests: ItemSet, answers: Sequence[Answer], blind: Sequence[Answer | None], options: Options
) -> dict[str, Scores]:
    """(N,) scores of the model and of what it is compared with; NaN where there is no comparison."""
    sizes = [answer.size for answer in answers]
    values = {
        "score": [answer.value for answer in answers],
        "constant": constant_values(tests.items, sizes, benchmark.train),
        "question_text": question_values(tests.items, benchmark.train),
        "probe": probe_values(benchmark.probe, tests) if benchmark.probe else [None] * len(answers),
    }
    columns = {name: _scored(tests.items, column, sizes, name == "score") for name, column in values.items()}
    columns["no_image"] = _scored(tests.items, [b.value if b else None for b in blind], sizes, options.blind)
    columns["published"] = np.array([
        published_score(item, answer.text, answer.size) if options.published else np.nan
        for item, answer in zip(tests.items, answers, strict=True)
    ])  # fmt: skip
    return columns


def _scored(
    items: Sequence[Item], values: Sequence[str | None], sizes: Sequence[tuple[int, int]], none_is_wrong: bool
) -> Scores:
    """(N,); no value is a wrong answer, or no comparison."""
    return np.array([
        np.nan if value is None and not none_is_wrong else score(item, value, size)
        for item, value, size in zip(items, values, sizes, strict=True)
    ])  # fmt: skip


def _lines(
    benchmark: Benchmark, items: Sequence[Item], columns: Mapping[str, Scores], groups: Sequence[str], options: Options
) -> tuple[Line, ...]:
    """A line per type, then OA (all items), AA (mean of the types) and AA without numeric types."""
    members: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        if item.measure != "detect":
            for type_ in item.types:
                members.setdefault(type_, []).append(number)
    places = {type_: np.array(numbers) for type_, numbers in members.items()}
    lines = [
        _line(type_, [m], items, columns, groups, fitted_on(type_, benchmark.train), benchmark.bars.get(type_))
        for type_, m in places.items()
    ]
    if len({line.measure for line in lines}) == 1 and len(lines) > 1:
        fitted = "train" if all(line.fitted_on == "train" for line in lines) else "test"
        every = np.unique(np.concatenate(list(places.values())))
        lines.append(_line("OA, all items", [every], items, columns, groups, fitted))
        lines.append(_line("AA, mean of types", list(places.values()), items, columns, groups, fitted))
        plain = [m for type_, m in places.items() if type_ not in benchmark.numeric]
        if 0 < len(plain) < len(places):
            lines.append(_line("AA without numeric types", plain, items, columns, groups, fitted))
    return tuple(lines)


def _line(
    name: str, members: Sequence[NDArray[np.int64]], items: Sequence[Item], columns: Mapping[str, Scores],
    groups: Sequence[str], fitted: str, bar: float | None = None,
) -> Line:  # fmt: skip
    every = np.unique(np.concatenate(list(members)))
    local = [np.searchsorted(every, m) for m in members]
    low, high = average_interval(local, columns["score"][every], [groups[i] for i in every])
    means = {column: _mean([values[m] for m in members]) for column, values in columns.items()}
    question, constant = means["question_text"], means["constant"]
    if fitted == "test" and question is not None and constant is not None:
        # What is left of an even set leans to the answer that was taken out: then words are better ignored.
        question = max(question, constant)
    return Line(
        name=name, measure=MEASURES[items[every[0]].measure], n=len(every), score=means["score"] or 0.0, low=low,
        high=high, constant=constant, question_text=question, fitted_on=fitted,
        no_image=means["no_image"], probe=means["probe"], published=means["published"], bar=bar,
        by_question=_by_question([items[i] for i in every], columns["score"][every]) if len(members) == 1 else (),
    )  # fmt: skip


def _mean(parts: Sequence[Scores]) -> float | None:
    """Mean of the means; None unless each part has a number."""
    present = [part[~np.isnan(part)] for part in parts]
    return float(np.mean([part.mean() for part in present])) if all(map(len, present)) else None


def _by_question(items: Sequence[Item], scores: Scores) -> tuple[tuple[str, float], ...]:
    """Nothing where there is one question, or many, or one of few items."""
    by_text: dict[str, list[float]] = {}
    for item, one in zip(items, scores.tolist(), strict=True):
        by_text.setdefault(item.question.text, []).append(one)
    if not 1 < len(by_text) <= MOST_QUESTIONS or min(map(len, by_text.values())) < FEWEST:
        return ()
    return tuple(sorted(((text, float(np.mean(ones))) for text, ones in by_text.items()), key=lambda pair: -pair[1]))


def _boxes(items: Sequence[Item], answers: Sequence[Answer]) -> tuple[Boxes, ...]:
    by_type: dict[str, list[tuple[float, float]]] = {}
    for item, answer in zip(items, answers, strict=True):
        if item.measure == "box":
            x1, y1, x2, y2 = item.boxes[0]
            pair = box_iou(item, answer.value, answer.size), (x2 - x1) * (y2 - y1)
            by_type.setdefault(item.types[0], []).append(pair)
    return tuple(_boxes_of(name, np.array(pairs)) for name, pairs in by_type.items())


def _boxes_of(name: str, pairs: Scores) -> Boxes:
    """`pairs` (n, 2): IoU, true area in square pixels."""
    ious, areas = pairs.T
    levels = {"small": areas <= SMALL, "medium": (areas > SMALL) & (areas <= MEDIUM), "large": areas > MEDIUM}
    sizes = {
        level: (int(mine.sum()), float((ious[mine] >= HIT).mean()) if mine.any() else None)
        for level, mine in levels.items()
    }
    return Boxes(name, len(ious), float((ious >= HIT).mean()), float((ious >= 0.7).mean()), float(ious.mean()), sizes)


def _detection(items: Sequence[Item], answers: Sequence[Answer]) -> Detection | None:
    """Boxes of a class are scored by the probability that it is there at all; 1 where that was not asked."""
    sure = {
        (item.picture, item.label): _p_yes(answer)
        for item, answer in zip(items, answers, strict=True)
        if item.label and item.question.kind == "yesno"
    }
    found: dict[str, list[Found]] = {}
    truth: dict[str, dict[str, list[Box]]] = {}
    for item, answer in zip(items, answers, strict=True):
        if item.measure == "detect":
            truth.setdefault(item.label, {})[item.picture] = [in_shares(box, answer.size) for box in item.boxes]
            p = sure.get((item.picture, item.label), 1.0)
            boxes = parse_boxes(answer.value or "")
            found.setdefault(item.label, []).extend(Found(item.picture, box, p) for box in boxes)
    if not truth:
        return None
    rows = []
    for label, boxes_by_picture in truth.items():
        n = sum(map(len, boxes_by_picture.values()))
        rows.append((label, n, average_precision(found[label], boxes_by_picture) if n else None))
    known = [ap for _, _, ap in rows if ap is not None]
    return Detection(tuple(rows), float(np.mean(known)) if known else None)


def _p_yes(answer: Answer) -> float:
    """No answer is neither yes nor no."""
    if answer.value is None or np.isnan(answer.confidence):
        return 0.5 if answer.value is None else float(answer.value == "yes")
    return answer.confidence if answer.value == "yes" else 1 - answer.confidence


def _calibration(
    examiner: Examiner, items: Sequence[Item], answers: Sequence[Answer], scores: Scores
) -> tuple[Calibration, ...]:
    """Per kind of question, over the answers that have a confidence."""
    by_kind: dict[str, list[tuple[float, float, float]]] = {}
    for item, answer, right in zip(items, answers, scores.tolist(), strict=True):
        if item.measure == "exact" and not np.isnan(answer.confidence):
            by_kind.setdefault(item.question.kind, []).append((answer.raw_confidence, answer.confidence, right))
    lines = []
    for kind, rows in by_kind.items():
        raw, confidence, right = np.array(rows).T
        lines.append(Calibration(
            kind, len(rows), examiner.engine.card.temperatures.get(kind, 1.0), calibration_error(raw, right),
            calibration_error(confidence, right), calibration_bins(confidence, right),
        ))  # fmt: skip
    return tuple(lines)


def _provenance(examiner: Examiner, benchmark: Benchmark, options: Options, pixels: str) -> Provenance:
    card = examiner.engine.card
    return Provenance(
        model=card.name, weights=options.weights, dtype=options.dtype, device=options.device, rsqa=rsqa.__version__,
        prompt=asdict(card.prompt), decoding="greedy text" if examiner.generate else "scored options",
        seed=options.seed, files={file.name: _sha256(file) for file in benchmark.files}, pixels=pixels,
    )  # fmt: skip


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
