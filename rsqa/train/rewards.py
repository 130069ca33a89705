"""What a text is worth: the parser of inference plus a comparison (the terms of TinyRS-R1, arXiv 2505.12099).

Functions of (text, prompt): nothing that is written raises, and what could not be judged is NaN, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from rsqa.errors import ModelError
from rsqa.tasks.boxes import iou, parse_boxes
from rsqa.tasks.parse import parse_choice, split_reasoning
from rsqa.train.prompts import BOX, OPEN, Prompt

Judge = Callable[[Prompt, str], float]
"""(prompt, the student's answer) -> 0..1."""

_FORMAT = re.compile(r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", re.DOTALL)
RIGHT_IOU = 0.5
"""A box counts as right from here."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A text's reward and what it is made of; NaN: there is none, because its judge failed."""

    total: float
    accuracy: float
    """0..1: judged, equal or not, or intersection over union."""
    format: float
    """1: thought and answered in the tags; 0: not."""


def paper_reward(text: str, prompt: Prompt, judge: Judge | None = None) -> Reward:
    """Accuracy + format, compared as published."""
    accuracy, form = _accuracy(text, prompt, equal_as_published, judge), format_reward(text)
    return Reward(accuracy + form, accuracy, form)


def gated_reward(text: str, prompt: Prompt, judge: Judge | None = None) -> Reward:
    """Nothing without the format; with it IoU + 1 from IoU 0.5 on for boxes, 2 accuracy + 0.2 for the others.

    Accuracy is strict. The weights are those that the paper's authors found to work better later.
    """
    form = format_reward(text)
    if not form:
        return Reward(0.0, 0.0, form)
    accuracy = _accuracy(text, prompt, equal_strictly, judge)
    if prompt.answer_type == BOX:
        return Reward(accuracy + float(accuracy >= RIGHT_IOU), accuracy, form)
    return Reward(2.0 * accuracy + 0.2, accuracy, form)


REWARDS: dict[str, Callable[[str, Prompt, Judge | None], Reward]] = {"paper": paper_reward, "gated": gated_reward}
"""By the recipe's key `reward`."""


def format_reward(text: str) -> float:
    """1 when the text begins with `<reasoning>…</reasoning><answer>…</answer>`; anything may follow."""
    return float(_FORMAT.match(text) is not None)


def student_answer(text: str) -> str:
    """What stands in the first closed answer; without one the whole text, as published."""
    answer = split_reasoning(text)[1]
    return text.strip() if answer is None else answer


def equal_as_published(student: str, truth: str) -> bool:
    """Equal in lower case and without full stops."""
    one, other = (text.strip().lower().replace(".", "") for text in (student, truth))
    return one == other


def equal_strictly(student: str, truth: str) -> bool:
    """Equal for the parser of inference: case, spaces, quotes and closing punctuation do not matter."""
    return parse_choice(student, (truth,)) is not None


def box_reward(student: str, truth: str) -> float:
    """Intersection over union of the student's first box and the true one, 0 without a box.

    The published code compares the student's box with itself, so that any box is right; this is what it means to do.
    """
    found = parse_boxes(student)
    return iou(found[0], parse_boxes(truth)[0]) if found else 0.0


def is_right(text: str, prompt: Prompt) -> bool:
    """Whether a text counts as right in an evaluation: answered in the tags, strictly equal or IoU at least 0.5."""
    answer = split_reasoning(text)[1]
    if answer is None:
        return False
    if prompt.answer_type == BOX:
        return box_reward(answer, prompt.answer) >= RIGHT_IOU
    return equal_strictly(answer, prompt.answer)


def load_judge(spec: str) -> Judge:
    """`package.module:function` -> the function. ModelError when there is none."""
    module, _, name = spec.partition(":")
    try:
        judge: Judge = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"judge {spec!r} can't be imported ({error}); give it as package.module:function") from error
    return judge


def _accuracy(text: str, prompt: Prompt, equal: Callable[[str, str], bool], judge: Judge | None) -> float:
    student = student_answer(text)
    if prompt.answer_type == BOX:
        return box_reward(student, prompt.answer)
    if prompt.answer_type == OPEN:
        return _judged(prompt, student, judge)
    return float(equal(student, prompt.answer))


def _judged(prompt: Prompt, student: str, judge: Judge | None) -> float:
    """NaN without a judge, and when it fails: a stranger's code, often behind a network, may raise anything."""
    if judge is None:
        return math.nan
    try:
        score = float(judge(prompt, student))
    except Exception:
        return math.nan
    return score if 0.0 <= score <= 1.0 else math.nan
