"""The benchmark of the embedded model: validation pictures and fresh procedural scenes, through the inference engine.

Every figure stands beside the best constant answer and the same model on grey pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies
from rsqa.evaluate.items import ItemSet, classes, human_questions, label_presence, scene_presence
from rsqa.evaluate.metrics import Score, calibration_error, constant_accuracy, interval
from rsqa.evaluate.probe import probe_hits
from rsqa.tasks.parse import answers
from rsqa.tasks.question import Question
from rsqa.train.data import read_parquet, ucm_labels

BARS = {"labels": 0.70, "ucm": 0.60, "aid": 0.45, "scenes": 0.90}
FEWEST = 30
"""Items of a question for which its own accuracy is worth telling."""
GREY = 128
BATCH = 64
PROBE_SEED = 500_000
"""Scenes that the colour probe is fitted on: training styles, no training seed."""


@dataclass(frozen=True, slots=True)
class Report:
    """All scores of one model."""

    model: str
    scores: tuple[Score, ...]
    calibration: tuple[tuple[str, float], ...]
    """(question kind, expected calibration error) with the card's temperatures."""


def evaluate(engine: Engine, data: Path) -> Report:
    """Score an engine on the validation part of the pictures in `data` and on scenes of unseen seeds and styles."""
    ucm, aid = (read_parquet(data, name, "validation") for name in ("ucm", "aid"))
    labels = label_presence(ucm, ucm_labels(data))
    known = {"ucm": classes("UC Merced classes (21 options)", ucm), "aid": classes("AID classes (30 options)", aid)}
    fresh = {style: scene_presence(style) for style in ("held-out", "train")}
    probed = probe_hits(scene_presence("train", PROBE_SEED), fresh["held-out"])
    human, human_train = human_questions(data, "validation"), human_questions(data, "train")
    scores = [
        score(engine, labels, labels, BARS["labels"]),
        *(score(engine, items, items, BARS[name]) for name, items in known.items()),
        score(
            engine, fresh["held-out"], fresh["held-out"], BARS["scenes"], f"colour histogram probe {probed.mean():.3f}"
        ),
        score(engine, fresh["train"], fresh["train"], None, "styles trained on, seeds not"),
        *(score(engine, human[kind], human_train[kind], None) for kind in human),
    ]
    kinds = {"yesno": labels, "choice": known["aid"]}
    gaps = tuple((kind, _calibration(engine, items)) for kind, items in kinds.items())
    return Report(engine.card.name, tuple(scores), gaps)


def score(engine: Engine, items: ItemSet, fit: ItemSet, bar: float | None, note: str = "") -> Score:
    """Accuracy on `items`; the constant answers are those of `fit`."""
    right = hits(items, ask(engine, items, items.chips))
    grey = [np.full_like(chip, GREY) for chip in items.chips]
    blind = hits(items, ask(engine, items, grey))
    low, high = interval(right, [items.groups[item.chip] for item in items.items])
    constant = constant_accuracy(
        [i.question.text for i in items.items], [i.gold for i in items.items],
        [i.question.text for i in fit.items], [i.gold for i in fit.items],
    )  # fmt: skip
    return Score(
        items.name, len(right), float(right.mean()), low, high, constant, float(blind.mean()), bar, note,
        by_question(items, right),
    )  # fmt: skip


def by_question(items: ItemSet, right: NDArray[np.bool_]) -> tuple[tuple[str, float], ...]:
    """Accuracy question by question, the best first; nothing where there is one, or one of few items."""
    hit: dict[str, list[bool]] = {}
    for item, one in zip(items.items, right.tolist(), strict=True):
        hit.setdefault(item.question.text, []).append(one)
    if len(hit) == 1 or min(map(len, hit.values())) < FEWEST:
        return ()
    return tuple(sorted(((text, float(np.mean(ones))) for text, ones in hit.items()), key=lambda pair: -pair[1]))


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one item."""

    value: str | None
    """None: the engine gave no answer (off list, cut off)."""
    confidence: float
    logprobs: NDArray[np.float64] | None
    """(K,) of the options; None for open questions."""


def ask(engine: Engine, items: ItemSet, chips: Sequence[NDArray[np.uint8]]) -> list[Answered]:
    """Put each item to the engine, chips of one shape and one question together; -> in the order of the items."""
    answered: list[Answered | None] = [None] * len(items.items)
    jobs: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    per_chip: dict[int, list[int]] = {}
    questions = list(dict.fromkeys(item.question for item in items.items))
    for number, item in enumerate(items.items):
        per_chip.setdefault(item.chip, []).append(number)
    for chip, numbers in per_chip.items():
        wanted = tuple(sorted({questions.index(items.items[number].question) for number in numbers}))
        jobs.setdefault((chips[chip].shape, wanted), []).append(chip)
    for (shape, wanted), members in jobs.items():
        asked = [questions[i] for i in wanted]
        session = engine.prepare(asked, (shape[1], shape[2]), min(BATCH, len(members)))
        replies = session.answer(np.stack([chips[chip] for chip in members]))
        for question, said in zip(asked, replies, strict=True):
            read = _read(engine, question, said)
            for row, chip in enumerate(members):
                for number in per_chip[chip]:
                    if items.items[number].question == question:
                        answered[number] = read[row]
    return [one for one in answered if one is not None]


def _read(engine: Engine, question: Question, said: Replies) -> list[Answered]:
    card = engine.card
    got = answers(
        question, said, mass_floor=card.mass_floor, temperature=card.temperatures.get(question.kind, 1.0),
        reasoning=card.prompt.reasoning,
    )  # fmt: skip
    rows = len(got.status)
    logprobs = said.option_logprob
    texts = got.value if question.closed else got.text
    assert texts is not None  # the engine's contract: open questions come with text
    return [
        Answered(
            None if texts[row] is None else str(texts[row]).strip().lower() if not question.closed else str(texts[row]),
            float(got.confidence[row]),
            None if logprobs is None else logprobs[row].astype(np.float64),
        )
        for row in range(rows)
    ]


def hits(items: ItemSet, answered: Sequence[Answered]) -> NDArray[np.bool_]:
    """(N,) whether each answer is exactly the right one."""
    return np.array([got.value == item.gold for got, item in zip(answered, items.items, strict=True)], dtype=np.bool_)


def _calibration(engine: Engine, items: ItemSet) -> float:
    answered = ask(engine, items, items.chips)
    confidence = np.array([np.nan_to_num(got.confidence) for got in answered])
    return calibration_error(confidence, hits(items, answered))


def as_text(report: Report) -> str:
    """The report as a table of fixed width."""
    lines = [f"{report.model}: validation pictures and fresh scenes; 95 % intervals resampled by picture or scene",
             f"{'':38}{'n':>6}{'accuracy':>10}{'interval':>16}{'constant':>10}{'no image':>10}{'bar':>7}"]  # fmt: skip
    for s in report.scores:
        bar = "" if s.bar is None else f"{s.bar:.2f}{'' if s.met else ' !'}"
        lines.append(
            f"{s.name:38}{s.n:>6}{s.accuracy:>10.3f}{f'{s.low:.3f}-{s.high:.3f}':>16}{s.constant:>10.3f}{s.no_image:>10.3f}{bar:>7}"
            + (f"  {s.note}" if s.note else "")
        )
    for s in report.scores:
        if s.by_question:
            lines.append(f"{s.name}: " + ", ".join(f"{text} {accuracy:.2f}" for text, accuracy in s.by_question))
    lines.append("calibration error: " + ", ".join(f"{kind} {gap:.3f}" for kind, gap in report.calibration))
    return "\n".join(lines)
