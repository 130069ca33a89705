"""Questions: what is asked of every tile, and which answers are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rsqa.errors import QuestionError

Kind = Literal["yesno", "choice", "count", "label", "open", "box"]
"""label: a choice of a scene class; box: where something is, in words that name it."""

ID_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
YES_NO = ("yes", "no")
COUNTS = (*(str(n) for n in range(101)), "more than 100")


@dataclass(frozen=True, slots=True)
class Condition:
    """Where a question is asked at all: an engine may leave other tiles without an answer."""

    question: str
    """Id of a closed question of the same session, asked before this one."""
    least: float
    """Confidence of its first option, after the card's temperature, from which this one is asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its closed list of answers."""

    id: str
    """Column and group name; matches `[A-Za-z][A-Za-z0-9_-]{0,31}`."""
    text: str
    kind: Kind
    options: tuple[str, ...] = ()
    """Allowed answers in the order of their codes; empty for open questions and boxes."""
    only_if: Condition | None = None
    """None: asked of every tile. Of closed questions always None."""

    def __post_init__(self) -> None:
        if not ID_PATTERN.fullmatch(self.id):
            raise QuestionError(f"question id {self.id!r} must match {ID_PATTERN.pattern}; rename it")
        if self.closed != bool(self.options):
            raise QuestionError(
                f"question {self.id!r} is {self.kind} with {len(self.options)} options; only open and box have none"
            )
        if self.closed and self.only_if:
            raise QuestionError(f"question {self.id!r} is {self.kind} and has a condition; only open and box may have")
        if len(set(self.options)) != len(self.options):
            raise QuestionError(f"question {self.id!r} names an option twice: {', '.join(self.options)}")

    @property
    def closed(self) -> bool:
        """Whether the answer is one of `options`."""
        return self.kind not in ("open", "box")
