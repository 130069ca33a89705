"""How well the boxes of a class are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsqa.evaluate.scoring import HIT
from rsqa.tasks.boxes import Box, iou


@dataclass(frozen=True, slots=True)
class Found:
    """One box that a model gives."""

    picture: str
    box: Box
    score: float
    """Higher is surer; equal scores keep their order."""


def average_precision(found: Sequence[Found], truth: Mapping[str, Sequence[Box]], least_iou: float = HIT) -> float:
    """Area under precision over recall, interpolated at all points. NaN where there is nothing to find.

    The surest box comes first. It is right when the true box of its picture that it covers best is covered by
    `least_iou` and was not taken by a surer one: a second box for the same thing is wrong.
    """
    n_true = sum(len(boxes) for boxes in truth.values())
    if not n_true:
        return float("nan")
    if not found:
        return 0.0
    right = _right(sorted(found, key=lambda one: -one.score), truth, least_iou)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * right).sum() / n_true)  # recall rises by 1 / n_true at each hit


def _right(found: Sequence[Found], truth: Mapping[str, Sequence[Box]], least_iou: float) -> NDArray[np.bool_]:
    taken: set[tuple[str, int]] = set()
    right = np.zeros(len(found), np.bool_)
    for number, one in enumerate(found):
        overlaps = [iou(one.box, box) for box in truth.get(one.picture, ())]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= least_iou and (one.picture, best) not in taken:
            taken.add((one.picture, best))
            right[number] = True
    return right
