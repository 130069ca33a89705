"""Boxes in a model's words, and how well two boxes agree. Total functions: no text makes them raise.

Each family of models writes boxes its own way, and its card says which; nothing here guesses from the text.

- tinyrs: `[[x1,y1,x2,y2],…]`, whole numbers 0..1000 (arXiv 2505.12099, its published evaluation code).
- qwen2vl: `(x1,y1),(x2,y2)`, 0..1000, between `<|box_start|>` and `<|box_end|>`, which decoding may have removed.
- geochat: `{<x1><y1><x2><y2>|<angle>}`, 0..100, the box turned about its middle by whole degrees (arXiv 2311.15826).
  Its published evaluation turns x towards y, so clockwise in the picture; its demo draws the other way round.

In all of them x runs right, y down, and numbers are shares of the picture's width and height. B boxes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2), shares of width and height, x1 < x2 and y1 < y2."""

BoxFormat = Literal["tinyrs", "qwen2vl", "geochat"]
BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)

SCALE = 1000
GEOCHAT_SCALE = 100

_INT = r"(-?\d{1,9})"
# Each takes the closing bracket along where there is one: without it the last number may be cut short.
_BRACKETS = re.compile(r"\[([^\[\]]*\]?)")
_FOUR = re.compile(r"\s*" + r"[,\s]+".join([_INT] * 4) + r"\s*\]")
_PARENTHESES = re.compile(r"\(([^()]*\)?)(?:\s*,\s*\(([^()]*\)?))?")
_TWO = re.compile(rf"\s*{_INT}\s*,\s*{_INT}\s*\)")
_BRACES = re.compile(r"\{([^{}]*\}?)")
_TURNED = re.compile(r"\s*" + r"\s*".join([f"<{_INT}>"] * 4) + rf"\s*(?:\|\s*<{_INT}>\s*)?\}}")


@dataclass(frozen=True, slots=True)
class SaidBoxes:
    """What a text says of where things are."""

    boxes: tuple[Box, ...] = ()
    """Well-formed ones in the order of the text, upright, cut at the picture's edge."""
    turns: tuple[float, ...] = ()
    """By how many degrees each is turned about its middle, clockwise in the picture."""
    malformed: int = 0
    """Boxes that were begun and are none: wrong count of numbers, no width or no height."""


def read_boxes(text: str, box_format: BoxFormat) -> SaidBoxes:
    """Every box of a text in that format; one in another format is malformed or not seen at all."""
    boxes: list[Box] = []
    turns: list[float] = []
    malformed = 0
    scale = GEOCHAT_SCALE if box_format == "geochat" else SCALE
    for numbers in _READERS[box_format](text):
        x1, y1, x2, y2 = (min(max(v, 0), scale) / scale for v in numbers[:4]) if numbers else (0.0,) * 4
        if x1 < x2 and y1 < y2:
            boxes.append((x1, y1, x2, y2))
            turns.append(float(numbers[4] % 360))
        else:
            malformed += 1
    return SaidBoxes(tuple(boxes), tuple(turns), malformed)


def _tinyrs(text: str) -> Iterator[tuple[int, ...]]:
    """-> x1, y1, x2, y2, angle of each box that was begun; nothing where it is none."""
    for (inner,) in _inner(_BRACKETS, text):
        yield _ints(_FOUR.fullmatch(inner), 5)


def _qwen2vl(text: str) -> Iterator[tuple[int, ...]]:
    for pair in _inner(_PARENTHESES, text):
        corners = [_ints(_TWO.fullmatch(inner), 2) for inner in pair]
        yield (*corners[0], *corners[1], 0) if all(corners) else ()


def _geochat(text: str) -> Iterator[tuple[int, ...]]:
    for (inner,) in _inner(_BRACES, text):
        yield _ints(_TURNED.fullmatch(inner), 5)


_READERS: Mapping[BoxFormat, Callable[[str], Iterator[tuple[int, ...]]]] = {
    "tinyrs": _tinyrs, "qwen2vl": _qwen2vl, "geochat": _geochat,
}  # fmt: skip


def _inner(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, ...]]:
    """What stands in the brackets that hold a number: others are an empty list, or words."""
    for match in pattern.finditer(text):
        groups = match.groups(default="")
        if any(c.isdigit() for c in groups[0]):
            yield groups


def _ints(match: re.Match[str] | None, n: int) -> tuple[int, ...]:
    """-> the n numbers, those that may be left out 0; none without a match."""
    if match is None:
        return ()
    found = tuple(int(number or 0) for number in match.groups())
    return found + (0,) * (n - len(found))


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Every well-formed box of a text in TinyRS's format, also that of training data; single brackets count."""
    return read_boxes(text, "tinyrs").boxes


def format_boxes(boxes: Sequence[Box], step: int = 1) -> str:
    """-> `[[x1,y1,x2,y2],…]`, rounded to `step` thousandths; `[]` for none."""
    rounded = ([round(v * SCALE / step) * step for v in box] for box in boxes)
    return "[" + ",".join("[" + ",".join(map(str, box)) + "]" for box in rounded) + "]"


def corners(said: SaidBoxes, aspect: float = 1.0) -> NDArray[np.float64]:
    """(B, 4, 2) x, y in shares: upper left, lower left, lower right, upper right corner of each box before its turn.

    `aspect`: height / width of the picture; a turn keeps angles in pixels. Corners of a turned box may lie outside.
    """
    x1, y1, x2, y2 = np.array(said.boxes, np.float64).reshape(-1, 4).T
    upright = np.stack([np.stack([x1, x1, x2, x2], axis=1), np.stack([y1, y2, y2, y1], axis=1)], axis=2)
    turned = np.flatnonzero(said.turns)
    angle = np.radians(np.array(said.turns, np.float64)[turned])[:, None]
    middle = upright[turned].mean(axis=1, keepdims=True)
    dx, dy = np.moveaxis((upright[turned] - middle) * (1, aspect), 2, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    upright[turned] = middle + np.stack([cos * dx - sin * dy, (sin * dx + cos * dy) / aspect], axis=2)
    return upright


def pixel_corners(said: SaidBoxes, shown: Box, size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes in a chip -> (B, 4, 2) x, y in pixels of the source, in the order of `corners`.

    `shown`: (left, top, right, bottom) of what the chip shows, pixels of the source; `size`: (H, W) of the source.
    Upright boxes are cut where the source ends and the padding of the chip begins; those only in the padding are left
    out.
    """
    left, top, right, bottom = shown
    side = np.array([right - left, bottom - top])
    points = corners(said, float(side[1] / side[0])) * side + (left, top)
    upright = np.equal(said.turns, 0)
    points[upright] = points[upright].clip(0, size[::-1])
    kept = points[(np.ptp(points, axis=1) > 0).all(axis=1)]
    return np.asarray(kept, np.float64)


def upright_boxes(said: SaidBoxes, aspect: float = 1.0) -> tuple[Box, ...]:
    """The smallest upright box around each, cut at the picture's edge; one with nothing inside it is left out."""
    points = corners(said, aspect).clip(0, 1)
    around = np.hstack([points.min(axis=1), points.max(axis=1)]).tolist()
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in around if x1 < x2 and y1 < y2)


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
