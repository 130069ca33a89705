"""What the commands differ in: what they ask, what a row is about, and what is made of the rows. All else is one line.

A part holds one row per tile and row question, whatever the task: it is committed, resumed and retried in the same way.
What a task makes of committed parts can be changed afterwards: that is no part of the plan's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rsqa.errors import UsageError
from rsqa.tasks.detect import HowMany, box_questions
from rsqa.tasks.labels import as_one
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import Question

MOST_TOP = 16
"""Labels whose probabilities a part holds for each tile."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Questions, each with its own answer."""

    verb: ClassVar[str] = "ask"
    table: ClassVar[str] = "answers.parquet"
    chips: ClassVar[bool] = False
    """Whether folders, pictures that are no TIFF and what has no place on the ground are taken, small ones whole."""


@dataclass(frozen=True, slots=True)
class Classify:
    """One label of a list; all questions are wordings of the same one."""

    verb: ClassVar[str] = "classify"
    table: ClassVar[str] = "classes.parquet"
    chips: ClassVar[bool] = True

    top_k: int = 5
    """Labels whose probabilities the table shows."""
    abstain: float = 0.0
    """Least confidence for a label to be given."""
    dissolve: bool = False
    """Whether tiles of one label that touch become polygons."""
    cog: bool = False
    """Whether mosaics become rasters of labels."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= MOST_TOP:
            raise UsageError(f"--top-k {self.top_k} asked; choose 1 to {MOST_TOP}")
        if not 0 <= self.abstain <= 1:
            raise UsageError(f"--abstain {self.abstain} asked; it is a probability from 0 to 1")


@dataclass(frozen=True, slots=True)
class Caption:
    """One description."""

    verb: ClassVar[str] = "caption"
    table: ClassVar[str] = "answers.parquet"
    chips: ClassVar[bool] = True

    summary: bool = False
    """Whether the most frequent descriptions and words are counted."""


@dataclass(frozen=True, slots=True)
class Detect:
    """Where things are: first whether one is there, then boxes; those of all tiles become objects."""

    verb: ClassVar[str] = "detect"
    table: ClassVar[str] = "detections.parquet"
    chips: ClassVar[bool] = False

    objects: tuple[str, ...] = ()
    """Names of things of which there may be many."""
    phrases: tuple[str, ...] = ()
    """Words that refer to one thing."""
    threshold: float = 0.5
    """Confidence that a thing is there from which it is located."""
    count: bool = False
    """Whether objects are counted, over all sources and in areas."""
    areas: str = ""
    """File of polygons to count in, absolute; empty: none."""

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError("nothing to look for; give --object NAME or --phrase WORDS")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--threshold {self.threshold} asked; it is a probability from 0 to 1")

    @property
    def names(self) -> tuple[str, ...]:
        """What is looked for, a name for each row of a tile."""
        return self.objects + self.phrases


Task = Ask | Classify | Caption | Detect
_TASKS: Mapping[str, type[Task]] = {task.verb: task for task in (Ask, Classify, Caption, Detect)}


def task_to_json(task: Task) -> dict[str, Any]:
    """Plain values; the verb is one of them."""
    return {"verb": task.verb, **asdict(task)}


def task_from_json(values: Mapping[str, Any]) -> Task:
    """The inverse of `task_to_json`; KeyError or TypeError for what is none."""
    settings: dict[str, Any] = {name: _frozen(value) for name, value in values.items() if name != "verb"}
    return _TASKS[values["verb"]](**settings)


def _frozen(value: Any) -> Any:
    """Tuples, which JSON has none of."""
    return tuple(value) if isinstance(value, list) else value


def row_questions(task: Task, asked: tuple[Question, ...]) -> tuple[Question, ...]:
    """What the rows of a tile are about, where the model was asked `asked`."""
    match task:
        case Classify():
            return (as_one(asked),)
        case Detect():
            return tuple(question for question in asked if question.kind == "box")
        case _:
            return asked


def questions_for(task: Task, asked: tuple[Question, ...], style: PromptStyle, boxes: HowMany) -> tuple[Question, ...]:
    """What to ask a model of this style that writes so many boxes."""
    match task:
        case Caption():
            return (Question("caption", style.caption, "open"),)
        case Detect():
            return box_questions(task.objects, task.phrases, task.threshold, boxes)
        case _:
            return asked
