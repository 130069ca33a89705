"""What an evaluation found. Values only; `table` and `files` write them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One score with what it must be compared to. Shares 0..1; None: there is none."""

    name: str
    measure: str
    """accuracy, bucket accuracy, token F1 or accuracy at IoU 0.5."""
    n: int
    score: float
    low: float
    """95 % interval, resampled by picture (procedural: by scene)."""
    high: float
    constant: float | None
    """Of always giving the type's most frequent answer."""
    question_text: float | None
    """Of giving the most frequent answer to the same words, whatever the picture."""
    fitted_on: str
    """Split that both were fitted on: `train`, or `test` for want of one; then question_text is fitted on
    other pictures than it is asked about, and never below the constant."""
    no_image: float | None
    """Of the same model when every pixel is mid-grey."""
    probe: float | None
    """Of a linear probe on the colour histogram."""
    published: float | None
    """Of the same answers by the published sub-string rule, its bugs included."""
    bar: float | None = None
    by_question: tuple[tuple[str, float], ...] = ()
    """(question, score), the best first, where a few questions are asked of many pictures."""

    @property
    def met(self) -> bool:
        """Whether the bar is reached; true without one."""
        return self.bar is None or self.score >= self.bar


@dataclass(frozen=True, slots=True)
class Boxes:
    """Grounding of one type, over all its items: no box is a miss."""

    name: str
    n: int
    at_50: float
    at_70: float
    mean_iou: float
    sizes: Mapping[str, tuple[int, float | None]]
    """small (up to 32² px of true area), medium (up to 96²), large -> items, accuracy at IoU 0.5."""


@dataclass(frozen=True, slots=True)
class Detection:
    """Average precision at IoU 0.5."""

    by_class: tuple[tuple[str, int, float | None], ...]
    """(class, true boxes, average precision); None where there is nothing to find."""
    mean: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence can be trusted, for one kind of question."""

    kind: str
    n: int
    temperature: float
    """Of the card."""
    before: float
    """Expected calibration error at temperature 1."""
    after: float
    """With the card's temperature."""
    bins: tuple[tuple[int, float, float], ...]
    """(items, mean confidence, accuracy) of ten parts of equal size, after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What fixes the numbers: compare only reports that agree here."""

    model: str
    weights: str
    """sha256 of the files that decide; empty for an engine without files."""
    dtype: str
    device: str
    rsqa: str
    prompt: Mapping[str, Any]
    """How the model was asked."""
    decoding: str
    """`scored options`, or `greedy text` for everything."""
    seed: int
    files: Mapping[str, str]
    """Files with questions and answers -> sha256."""
    pixels: str
    """sha256 over all pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One model on one benchmark."""

    benchmark: str
    provenance: Provenance
    n_items: int
    n_pictures: int
    lines: tuple[Line, ...]
    boxes: tuple[Boxes, ...]
    detection: Detection | None
    calibration: tuple[Calibration, ...]
    statuses: Mapping[str, int]
    """What became of the items that were put to the model; all but ok are wrong."""
    left_out: Mapping[str, tuple[str, ...]]
    """Reason -> what is in no denominator, as it can be neither right nor wrong."""
    pictures_unread: int
    notes: tuple[str, ...]
