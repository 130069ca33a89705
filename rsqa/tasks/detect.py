"""How things are looked for: is there one, and where it is, or where all are.

Objects are looked for in two steps: the probability of "is there …?" is the score of all boxes that are then written,
and below a threshold none are. N tiles, L things.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from rsqa.errors import QuestionError
from rsqa.tasks.boxes import BoxFormat, SaidBoxes, read_boxes
from rsqa.tasks.lines import clean
from rsqa.tasks.parse import Answers, met
from rsqa.tasks.question import YES_NO, Condition, Question
from rsqa.tasks.question_file import ids_of

HowMany = Literal["one", "many"]
"""Boxes that a model writes to a question, as its card says."""
ALL = "every {}"
"""As tinyrs-nano was taught most often; see `rsqa.train.words.ASK_EVERY`."""
NOWHERE = "[]"
"""What a model writes that sees none, in every format."""
MOST_THINGS = 1_000

_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


def is_there(label: str) -> str:
    """`airplane` -> `Is there an airplane?`"""
    return f"Is there {'an' if label[0] in 'aeiouAEIOU' else 'a'} {label}?"


def the_only(label: str) -> str:
    """`airplane` -> `the airplane`: words that refer to one object."""
    return f"the {label}"


def all_of(label: str, boxes: HowMany) -> str:
    """`airplane` -> `every airplane`; a model that writes one box is asked for one object."""
    return ALL.format(label) if boxes == "many" else the_only(label)


def gather_things(objects: Sequence[str], phrases: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """--object and --phrase as people write them -> clean ones, objects without their article.

    QuestionError where nothing is named, a name says nothing, or two are the same.
    """
    named = [
        *((f"--object {n}", _bare(clean(text, f"--object {n}", "object"))) for n, text in enumerate(objects, 1)),
        *((f"--phrase {n}", clean(text, f"--phrase {n}", "phrase")) for n, text in enumerate(phrases, 1)),
    ]
    if not named:
        raise QuestionError("nothing to look for; give --object NAME or --phrase WORDS")
    if len(named) > MOST_THINGS:
        raise QuestionError(f"{len(named):,} things to look for, the most is {MOST_THINGS:,}; look in several runs")
    seen: dict[str, str] = {}
    for where, words in named:
        if not any(c.isalnum() for c in words):
            raise QuestionError(f"{where} names nothing; write what to look for, as --object ship")
        if (other := seen.setdefault(words.casefold(), where)) != where:
            raise QuestionError(f"{where}: {words!r} is looked for by {other}; keep one")
    names = tuple(words for _, words in named)
    return names[: len(objects)], names[len(objects) :]


def _bare(words: str) -> str:
    """`the ship` -> `ship`."""
    return _ARTICLE.sub("", words)


def box_questions(
    objects: Sequence[str], phrases: Sequence[str], threshold: float, boxes: HowMany
) -> tuple[Question, ...]:
    """-> for each thing whether it is there, and where, which is asked from `threshold` on; 2 L questions.

    A phrase refers to one object and is put to the model as it is.
    """
    there = [is_there(_bare(name)) for name in (*objects, *phrases)]
    texts = [*(all_of(name, boxes) for name in objects), *phrases]
    ids = ids_of([*objects, *phrases, *there])
    pairs = (
        (Question(own, first, "yesno", YES_NO), Question(id_, text, "box", only_if=Condition(own, threshold)))
        for id_, own, first, text in zip(ids, ids[len(texts) :], there, texts, strict=False)
    )
    return tuple(question for pair in pairs for question in pair)


def located(where: Question, there: Answers, words: Answers, box_format: BoxFormat, boxes: HowMany) -> Answers:
    """The answers to both questions about a thing as one: confidence that it is there, boxes, value their number.

    `words`: to the question for boxes, of which only those count that were asked for. Words without a box are no
    answer, unless they are an empty list. Of a model that writes one box, more than one are not taken seriously.
    """
    assert where.only_if is not None
    assert there.probabilities is not None
    n_tiles, looked = len(there.status), met(where.only_if, there)
    assert words.text is not None  # boxes are written
    text = np.full(n_tiles, None, object)
    text[looked] = words.text[looked]
    said = np.empty(n_tiles, object)
    said[:] = [_counted(read_boxes(one or "", box_format), boxes) for one in text]
    n_boxes = np.array([len(one.boxes) for one in said], np.int64)
    status, error, logprob = there.status.copy(), there.error.copy(), np.full(n_tiles, np.nan, np.float32)
    status[looked], error[looked] = words.status[looked], words.error[looked]
    status[looked & (status == "ok") & (n_boxes == 0) & (words.value != NOWHERE)] = "unparsed"
    if words.token_logprob is not None:
        logprob[looked] = words.token_logprob[looked]
    value = n_boxes.astype(str).astype(object)
    value[status != "ok"] = None
    return replace(
        there,
        status=status,
        value=value,
        confidence=np.where(there.status == "ok", there.probabilities[:, 0], np.float32(np.nan)),
        error=error,
        probabilities=None,
        text=text,
        token_logprob=logprob,
        boxes=said,
    )


def _counted(said: SaidBoxes, boxes: HowMany) -> SaidBoxes:
    """The boxes that count."""
    return said if boxes == "many" else replace(said, boxes=said.boxes[:1], turns=said.turns[:1])
