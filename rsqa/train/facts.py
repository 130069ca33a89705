"""What is known of a picture, and what becomes of it when the picture is cropped, turned or mirrored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rsqa.tasks.boxes import Box

PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
"""Thirds of a picture in reading order."""
LEAST_SEEN = 0.6
"""Share of a box that a crop must hold for the thing to count as in it; below `MOST_HIDDEN` it is outside."""
MOST_HIDDEN = 0.1


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one picture (or window); what is not named is unknown, not absent."""

    present: frozenset[str] = frozenset()
    """Keys of words.NOUNS."""
    absent: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Noun -> how many, at least one."""
    boxes: tuple[tuple[str, Box], ...] = ()
    """(noun, where) of single things."""
    boxed: frozenset[str] = frozenset()
    """Nouns of which `boxes` holds every one."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Kind of ground (of words.GROUND) -> share of the picture that it covers."""
    name: str = ""
    """Class name, empty when there is none."""
    family: tuple[str, ...] = ()
    """All class names of the data set that `name` comes from."""
    urban: bool | None = None
    main: str = ""
    """Largest land cover, in words."""
    main_options: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    """Questions and answers that people wrote for this picture and that hold under crop and flip."""
    asked_upright: tuple[tuple[str, str], ...] = ()
    """Those that hold only for the whole, unturned picture."""

    def turned(self, quarter_turns: int, mirrored: bool) -> Facts:
        """Of the picture turned counter-clockwise, then mirrored left to right."""
        return replace(self, boxes=tuple((noun, turned(box, quarter_turns, mirrored)) for noun, box in self.boxes))

    def of(self, noun: str) -> list[Box]:
        """Where the things of one kind are, from left to right."""
        return sorted(box for name, box in self.boxes if name == noun)


def turned(box: Box, quarter_turns: int, mirrored: bool) -> Box:
    """A box in a picture that is turned counter-clockwise (as torch.rot90 does), then mirrored left to right."""
    x1, y1, x2, y2 = box
    for _ in range(quarter_turns % 4):
        x1, y1, x2, y2 = y1, 1 - x2, y2, 1 - x1
    return (1 - x2, y1, 1 - x1, y2) if mirrored else (x1, y1, x2, y2)


def cropped(boxes: Sequence[tuple[str, Box]], crop: Box) -> tuple[tuple[tuple[str, Box], ...], frozenset[str]]:
    """Boxes in shares of a picture -> those in a crop of it, cut at its edge, and the nouns of which one is cut off.

    A noun of which the crop shows too little to be sure is named in the second.
    """
    left, top, right, bottom = crop
    kept: list[tuple[str, Box]] = []
    unsure: set[str] = set()
    for noun, (x1, y1, x2, y2) in boxes:
        inside = (max(x1, left), max(y1, top), min(x2, right), min(y2, bottom))
        seen = max(inside[2] - inside[0], 0) * max(inside[3] - inside[1], 0) / ((x2 - x1) * (y2 - y1))
        if seen >= LEAST_SEEN:
            wide, high = right - left, bottom - top
            x = ((inside[0] - left) / wide, (inside[2] - left) / wide)
            y = ((inside[1] - top) / high, (inside[3] - top) / high)
            kept.append((noun, (x[0], y[0], x[1], y[1])))
        elif seen > MOST_HIDDEN:
            unsure.add(noun)
    return tuple(kept), frozenset(unsure)


def place_of(box: Box) -> str:
    """The third of the picture, across and down, that holds the middle of a box."""
    col, row = (min(int((box[axis] + box[axis + 2]) / 2 * 3), 2) for axis in (0, 1))
    return PLACES[3 * row + col]
