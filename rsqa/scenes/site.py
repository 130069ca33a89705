"""A scene in the making: the canvas, what stands on it so far, and where there is room."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from math import hypot

import numpy as np

from rsqa.scenes.canvas import Canvas, Points, Warp, inside_px, rectangle
from rsqa.scenes.look import Look
from rsqa.scenes.plan import Cell
from rsqa.scenes.scene import COVERS
from rsqa.scenes.solids import Solid, Spot, Tree

FREE = ("grass", "bare", "paved")
"""Ground that may be built on."""
_BUCKET_M = 160
"""Wider than the largest thing, so that neighbours are in the same bucket or the next."""
_ROAD_MARGIN_M = 8
"""What stands in a cell keeps off its outline, where a road may run."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An oriented box inside a cell, pixels."""

    centre: Spot
    angle: float
    length: float
    """Along the angle."""
    width: float

    def at(self, along: float, across: float) -> Spot:
        """(row, col) of a place given as shares, -1 to 1, of the half length and half width."""
        u, v = along * self.length / 2, across * self.width / 2
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return float(self.centre[0] + u * cos - v * sin), float(self.centre[1] + u * sin + v * cos)


@dataclass(slots=True)
class Site:
    """Painters add to it."""

    canvas: Canvas
    look: Look
    rng: np.random.Generator
    warp: Warp
    solids: list[Solid] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    _taken: dict[tuple[int, int], list[Points]] = field(default_factory=lambda: defaultdict(list))
    """Bucket -> (4, 2) boxes of what stands there."""

    def place(self, solid: Solid, ground: tuple[str, ...] = FREE, gap_m: float = 1.5) -> bool:
        """Keep a solid when it stands wholly on the wanted ground and clear of all others."""
        region = self.canvas.region(solid.corners, 2)
        if region is None or not self._is_clear(solid.corners, gap_m / self.look.gsd_m):
            return False
        cover = self.canvas.cover[region[0] : region[2], region[1] : region[3]]
        within = inside_px(solid.corners, region) > -gap_m / self.look.gsd_m
        if not np.isin(cover[within], [COVERS.index(name) for name in ground]).all():
            return False
        self.keep_clear(solid.corners)
        self.solids.append(solid)
        return True

    def plant(self, spot: Spot, radius_m: float) -> None:
        """Keep a tree when it stands on open ground: a crown must hide no road, lot or water."""
        if self.cover_at(*spot) in ("grass", "bare", "field"):
            self.trees.append(Tree(spot, radius_m, float(self.rng.uniform(0.85, 1.2))))

    def cover_at(self, row: float, col: float) -> str | None:
        """What covers a pixel; None beyond the border."""
        height, width = self.canvas.cover.shape
        return COVERS[self.canvas.cover[int(row), int(col)]] if 0 <= row < height and 0 <= col < width else None

    def keep_clear(self, corners: Points) -> None:
        """Let nothing else be placed on a box."""
        self._taken[self._bucket(corners)].append(corners)

    def frame(self, cell: Cell) -> Frame:
        """A box along the longest side of a cell, shrunk until it lies inside and off the roads."""
        corners = self.warp.to_pixels(cell.corners)
        sides = np.roll(corners, -1, axis=0) - corners
        longest = sides[np.argmax(np.hypot(*sides.T))]
        angle = float(np.arctan2(longest[1], longest[0]))
        row, col = (float(value) for value in corners.mean(axis=0))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = corners @ turn
        length, width = turned.max(axis=0) - turned.min(axis=0)
        margin = _ROAD_MARGIN_M / self.look.gsd_m
        for share in np.arange(0.96, 0.4, -0.06):
            box = rectangle((row, col), length * share, width * share, angle)
            if _least_depth(box, corners) > margin:
                break
        return Frame((row, col), angle, float(length * share), float(width * share))

    def inside(self, cell: Cell, spot: Spot) -> bool:
        """Whether a spot lies in a cell and off the roads along it."""
        return _least_depth(np.array([spot]), self.warp.to_pixels(cell.corners)) > _ROAD_MARGIN_M / self.look.gsd_m

    def share_of(self, frame: Frame, covers: tuple[str, ...]) -> float:
        """Share of a frame, as far as it is on the canvas, that is covered so."""
        corners = rectangle(frame.centre, frame.length, frame.width, frame.angle)
        region = self.canvas.region(corners)
        if region is None:
            return 0.0
        cover = self.canvas.cover[region[0] : region[2] : 4, region[1] : region[3] : 4]
        within = inside_px(corners, region)[::4, ::4] > 0
        return float(np.isin(cover[within], [COVERS.index(name) for name in covers]).mean()) if within.any() else 0.0

    def _bucket(self, corners: Points) -> tuple[int, int]:
        row, col = corners.mean(axis=0) // (_BUCKET_M / self.look.gsd_m)
        return int(row), int(col)

    def _is_clear(self, corners: Points, gap: float) -> bool:
        down, right = self._bucket(corners)
        near = product((down - 1, down, down + 1), (right - 1, right, right + 1))
        return not any(_closer_than(corners, other, gap) for bucket in near for other in self._taken.get(bucket, ()))


def _closer_than(one: Points, other: Points, gap: float) -> bool:
    """Whether two (4, 2) boxes overlap or nearly do: no side of either keeps them a gap apart."""
    # Most pairs are far apart, and plain floats say so fastest.
    (r0, c0), _, (r2, c2), _ = one.tolist()
    (s0, d0), _, (s2, d2), _ = other.tolist()
    reach = hypot(r2 - r0, c2 - c0) / 2 + hypot(s2 - s0, d2 - d0) / 2 + gap
    if hypot((r0 + r2 - s0 - s2) / 2, (c0 + c2 - d0 - d2) / 2) > reach:
        return False
    for box in (one, other):
        for way in (box[1] - box[0], box[2] - box[1]):
            axis = way / np.hypot(*way)
            a, b = one @ axis, other @ axis
            if a.min() > b.max() + gap or b.min() > a.max() + gap:
                return False
    return True


def _least_depth(points: Points, corners: Points) -> float:
    """How deep the outermost of some points lies inside a convex outline, pixels; negative is outside."""
    following = np.roll(corners, -1, axis=0)
    turn = np.sign(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]))
    way = following - corners
    normals = np.stack([-way[:, 1], way[:, 0]], axis=1) * turn / np.maximum(np.hypot(*way.T), 1e-6)[:, None]
    return float(((points[:, None, :] - corners[None]) * normals[None]).sum(axis=2).min())
