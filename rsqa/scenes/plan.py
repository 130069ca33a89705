"""Divides the ground: convex cells between roads, each with a use.

All in plan coordinates, pixels; `canvas.Warp` bends them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rsqa.scenes.canvas import Points

Urbanity = Callable[[Points], float]
"""(2,) plan point -> 0 open country to 1 town."""
Weights = dict[str, float]
"""Use -> how often."""

RURAL_USES = {
    "field": 0.33, "forest": 0.20, "water": 0.08, "open": 0.12, "farm": 0.03, "airfield": 0.11, "harbour": 0.08,
    "tanks": 0.05,
}  # fmt: skip
URBAN_USES = {
    "town": 0.24, "works": 0.09, "parking": 0.14, "harbour": 0.11, "tanks": 0.11, "airfield": 0.13, "open": 0.06,
    "forest": 0.05, "water": 0.02,
}  # fmt: skip
"""How often a cell is used for what, in open country and in town."""
DISTRICT_M = 420
"""Within a piece of this size uses repeat: farmland lies beside farmland."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of ground of one use."""

    corners: Points
    """(N, 2) convex outline."""
    use: str


@dataclass(frozen=True, slots=True)
class Road:
    """A straight road in the plan."""

    ends: Points
    """(2, 2)"""
    width_m: float
    marked: bool


def divide(
    rng: np.random.Generator, height: int, width: int, gsd_m: float, urbanity: Urbanity
) -> tuple[list[Cell], list[Road]]:
    """Cut a square that covers the scene again and again, always across its longer side."""
    reach = np.hypot(height, width) / 2 + 60 / gsd_m
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array([height, width]) / 2
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * reach @ turn + centre
    cells: list[Cell] = []
    roads: list[Road] = []
    waiting: list[tuple[Points, Weights | None]] = [(square, None)]
    while waiting:
        outline, district = waiting.pop()
        if not _near_scene(outline, height, width):
            continue
        middle = outline.mean(axis=0)
        urban = urbanity(middle)
        span_m = _spans(outline, turn) * gsd_m
        if district is None and span_m.max() < DISTRICT_M:
            district = _district(rng, urban)
        target = rng.uniform(80, 160) if urban > 0.5 else rng.uniform(100, 250)
        if district is not None and span_m.max() < target:
            cells.append(Cell(outline, _use(rng, district, float(span_m.min()))))
            continue
        first, second, cut = _cut(rng, outline, turn[int(np.argmax(span_m))])
        waiting += [(first, district), (second, district)]
        met = sum(_meets(end, roads) for end in cut) if roads else 2
        if rng.random() < _road_chance(met, float(span_m.max()), urban):
            width_m = float(
                rng.uniform(8, 16) if span_m.max() > 700 else rng.uniform(6, 9) if urban > 0.5 else rng.uniform(4, 8)
            )
            roads.append(Road(cut, width_m, bool(width_m > 6 and rng.random() < 0.7)))
    return cells, roads


def _near_scene(outline: Points, height: int, width: int) -> bool:
    low, high = outline.min(axis=0), outline.max(axis=0)
    margin = 40
    return bool(low[0] < height + margin and low[1] < width + margin and high[0] > -margin and high[1] > -margin)


def _spans(outline: Points, turn: Points) -> Points:
    along = outline @ turn.T
    spans: Points = along.max(axis=0) - along.min(axis=0)
    return spans


def _cut(rng: np.random.Generator, outline: Points, axis: Points) -> tuple[Points, Points, Points]:
    """Both parts of a convex outline, cut across an axis near its middle, and the (2, 2) cut itself."""
    lean = rng.normal(0, 0.10)
    normal = np.array(
        [axis[0] * np.cos(lean) - axis[1] * np.sin(lean), axis[0] * np.sin(lean) + axis[1] * np.cos(lean)]
    )
    at = outline @ normal
    level = at.min() + rng.uniform(0.36, 0.64) * (at.max() - at.min())
    low: list[Points] = []
    high: list[Points] = []
    cut: list[Points] = []
    for here, there, d0, d1 in zip(
        outline, np.roll(outline, -1, axis=0), at - level, np.roll(at, -1) - level, strict=True
    ):
        (low if d0 <= 0 else high).append(here)
        if (d0 <= 0) != (d1 <= 0):
            crossing = here + (there - here) * (d0 / (d0 - d1))
            low.append(crossing)
            high.append(crossing)
            cut.append(crossing)
    return np.array(low), np.array(high), np.array(cut)


def _road_chance(met: int, span_m: float, urban: float) -> float:
    """How likely a cut becomes a road, by how many of its ends meet one: a road that meets none leads nowhere."""
    if met == 0:
        return 0.0
    if span_m > DISTRICT_M:
        return 0.7 if met == 2 else 0.4
    return (0.75 if met == 2 else 0.35) if urban > 0.5 else (0.25 if met == 2 else 0.10)


def _meets(point: Points, roads: list[Road]) -> bool:
    for road in roads:
        way = road.ends[1] - road.ends[0]
        share = np.clip((point - road.ends[0]) @ way / (way @ way), 0, 1)
        if np.hypot(*(road.ends[0] + share * way - point)) < 1:
            return True
    return False


def _district(rng: np.random.Generator, urban: float) -> Weights:
    """Weights of the uses in a district: each leans its own way."""
    return {
        use: ((1 - urban) * RURAL_USES.get(use, 0.0) + urban * URBAN_USES.get(use, 0.0))
        * float(np.exp(rng.normal(0, 0.9)))
        for use in sorted(RURAL_USES.keys() | URBAN_USES.keys())
    }


def _use(rng: np.random.Generator, district: Weights, span_m: float) -> str:
    """A use by chance; works that need room go to cells that have it."""
    weights = district | {"airfield": 0.0, "harbour": 0.0} if span_m < 70 else district
    total = sum(weights.values())
    return str(rng.choice(list(weights), p=[weight / total for weight in weights.values()]))
