"""Boxes in a model's words, and how well two boxes agree. Total functions: no text makes them raise.

TinyRS writes `[[x1,y1,x2,y2]]`: whole numbers 0..1000 of width and height, x first (arXiv 2505.12099, its published
evaluation code). A box here is (x1, y1, x2, y2) in shares of the picture, 0..1, y down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2), shares of width and height, x1 < x2 and y1 < y2."""

SCALE = 1000
_FOUR = re.compile(r"\[\s*" + r"[,\s]+".join([r"(-?\d{1,9})"] * 4) + r"\s*\]")


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Every well-formed box in order; single brackets count, too. What reaches over the edge is cut there."""
    found = []
    for match in _FOUR.finditer(text):
        x1, y1, x2, y2 = (min(max(int(v), 0), SCALE) / SCALE for v in match.groups())
        if x1 < x2 and y1 < y2:
            found.append((x1, y1, x2, y2))
    return tuple(found)


def format_boxes(boxes: Sequence[Box], step: int = 1) -> str:
    """-> `[[x1,y1,x2,y2],…]`, rounded to `step` thousandths; `[]` for none."""
    rounded = ([round(v * SCALE / step) * step for v in box] for box in boxes)
    return "[" + ",".join("[" + ",".join(map(str, box)) + "]" for box in rounded) + "]"


def iou(one: Box, other: Box) -> float:
    """Intersection over union, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
