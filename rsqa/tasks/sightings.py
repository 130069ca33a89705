"""Boxes as single tiles saw them, and which of them are the same thing.

Two boxes of one label and two tiles are the same where they agree on the ground that both tiles can judge: a box that
ends at the edge of its tile's window may go on behind it, so the other one is compared up to that edge only. A piece
thus agrees with the whole, and two pieces with each other. Each box has at most one partner in another tile, the one it
agrees with best.

Pixels of the source, x right, y down. B boxes, P pairs, T tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

IOU = 0.5
"""Intersection over union from which two boxes agree …"""
IOS = 0.8
"""… or intersection over the smaller one: a part that one tile took for the whole."""
REPEATED = 0.9
"""IoU from which two boxes of one tile are one that was said twice; other boxes of one tile are two things."""
SHOWN = 0.7
"""Share of a box from which a tile shows it, so that its silence about it counts."""
EDGE = 0.01
"""Share of the window's side within which a box ends at its edge: models write coarse numbers."""

Pairs = NDArray[np.int64]
"""(P, 2) positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """B boxes, each with what is needed of its tile."""

    tile: NDArray[np.int64]
    """(B, 3) factor of the pass, tile row, tile column."""
    core: NDArray[np.float64]
    """(B, 4) x1, y1, x2, y2, what the tile answers for."""
    window: NDArray[np.float64]
    """(B, 4) what it saw."""
    label: NDArray[np.int64]
    """(B,)."""
    corners: NDArray[np.float64]
    """(B, 4, 2)."""
    score: NDArray[np.float32]
    """(B,)."""
    logprob: NDArray[np.float32]
    """(B,)."""
    owner: NDArray[np.int64]
    """(B,) `key_of` the tile that has the middle in its core and was asked; -1: none."""
    asked: NDArray[np.bool_]
    """(B,) whether the tile's answer about the label is known."""
    shown: NDArray[np.int64]
    """(B,) how many tiles of its pass whose answer is known show it, its own among them."""
    group: NDArray[np.int64]
    """(B,) the same number for all boxes of one thing."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: NDArray[Any] | slice) -> Sightings:
        """Those at positions, or of a mask."""
        return Sightings(*(getattr(self, f.name)[which] for f in fields(self)))

    def and_those(self, others: Sightings) -> Sightings:
        """`others` behind them."""
        return Sightings(*(np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(self)))

    @property
    def tile_key(self) -> NDArray[np.int64]:
        """(B,) `key_of` the own tile."""
        return key_of(self.tile)

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(B, 4) x1, y1, x2, y2."""
        return np.hstack([self.corners.min(axis=1), self.corners.max(axis=1)])

    @property
    def in_window(self) -> NDArray[np.float64]:
        """(B, 4) the bounds within the window: turned boxes may reach out of it."""
        return np.hstack(
            [np.maximum(self.bounds[:, :2], self.window[:, :2]), np.minimum(self.bounds[:, 2:], self.window[:, 2:])]
        )

    def ends_at(self) -> NDArray[np.bool_]:
        """(B, 4) whether the box ends at the left, upper, right, lower edge of its window."""
        near = EDGE * np.tile(self.window[:, 2:] - self.window[:, :2], 2)
        sign = np.array([1, 1, -1, -1])
        return np.asarray((self.bounds - self.window) * sign <= near, np.bool_)

    def cut(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(B,) whether the box ends at an edge of its window behind which the source, (H, W), goes on."""
        height, width = size
        goes_on = np.hstack([self.window[:, :2] > 0, self.window[:, 2:] < (width, height)])
        return np.asarray((self.ends_at() & goes_on).any(axis=1), np.bool_)


def key_of(tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 3) factor, tile row, tile column -> (N,) one number per tile, growing in that order."""
    return np.asarray(tiles @ np.array([1 << 48, 1 << 24, 1]), np.int64)


def inside(points: NDArray[np.float64], rectangles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, 2) in (N, 4), each in its own: the lower ends belong to a rectangle, the upper ones to its neighbours."""
    return np.asarray(((points >= rectangles[:, :2]) & (points < rectangles[:, 2:])).all(axis=1), np.bool_)


def shows(windows: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, 4) windows, (N, 4) boxes -> (N,) whether the one shows enough of the other for an answer about it."""
    both = np.hstack([np.maximum(windows[:, :2], boxes[:, :2]), np.minimum(windows[:, 2:], boxes[:, 2:])])
    return np.asarray(_sides_area(both) >= np.maximum(SHOWN * _sides_area(boxes), np.finfo(np.float64).tiny), np.bool_)


def partners(boxes: Sightings, first_new: int) -> Pairs:
    """Pairs of positions that are the same thing, at least one of each from `first_new` on.

    Boxes before `first_new` were matched among themselves already. The same pairs, whatever the order of the boxes, as
    long as those of one tile keep theirs.
    """
    pairs = _candidates(boxes, first_new)
    one, other = pairs.T
    everywhere = np.array([-np.inf, -np.inf, np.inf, np.inf])
    ends = np.where(boxes.ends_at(), boxes.window, everywhere)
    both = np.hstack([np.maximum(ends[one, :2], ends[other, :2]), np.minimum(ends[one, 2:], ends[other, 2:])])
    areas = _areas_of(boxes, pairs, np.broadcast_to(everywhere, both.shape))
    shared, _, union = areas
    iou = shared / union
    limited = np.flatnonzero(np.isfinite(both).any(axis=1))
    for area, fair in zip(areas, _areas_of(boxes, pairs[limited], both[limited]), strict=True):
        area[limited] = fair
    shared, smaller, union = areas
    same_tile = boxes.tile_key[one] == boxes.tile_key[other]
    repeated = same_tile & (shared >= REPEATED * union)
    agree = np.flatnonzero(~same_tile & (shared > 0) & ((shared >= IOU * union) | (shared >= IOS * smaller)))
    matched = _best(boxes, pairs[agree], shared[agree] / union[agree], iou[agree])
    return np.concatenate([pairs[repeated], matched])


def _candidates(boxes: Sightings, first_new: int) -> Pairs:
    """Pairs of one label whose bounds meet; the first of a pair is of the earlier tile."""
    frames = shapely.box(*boxes.bounds.T)
    new, other = shapely.STRtree(frames).query(frames[first_new:])
    new += first_new
    kept = (other < new) & (boxes.label[new] == boxes.label[other])
    new, other = new[kept], other[kept]
    key = boxes.tile_key
    swap = key[new] < key[other]  # positions within a tile follow each other: there `other` stays the first
    return np.stack([np.where(swap, new, other), np.where(swap, other, new)], axis=1)


def _areas_of(
    boxes: Sightings, pairs: Pairs, limits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(P,) areas within (P, 4) limits: what both cover, the smaller of the two, what either covers."""
    bounds, corners = boxes.bounds[pairs], boxes.corners[pairs]  # (P, 2, 4), (P, 2, 4, 2)
    sides = np.concatenate(
        [np.maximum(bounds[..., :2], limits[:, None, :2]), np.minimum(bounds[..., 2:], limits[:, None, 2:])], axis=2
    )
    areas = _sides_area(sides)
    shared = _sides_area(np.hstack([sides[..., :2].max(axis=1), sides[..., 2:].min(axis=1)]))
    (ax, ay), (bx, by) = np.moveaxis(corners[:, :, 2:] - corners[:, :, :2], (2, 3), (0, 1))  # diagonals
    upright = (abs(ax * by - ay * bx) / 2 > (1 - 1e-9) * _sides_area(bounds)).all(axis=1)
    turned = np.flatnonzero(~upright & (shared > 0))
    pieces = shapely.polygons(corners[turned])  # (turned, 2)
    at_limit = (sides[turned] != bounds[turned]).any(axis=2)
    pieces[at_limit] = shapely.intersection(pieces[at_limit], shapely.box(*sides[turned][at_limit].T))
    areas[turned] = shapely.area(pieces)
    shared[turned] = shapely.area(shapely.intersection(pieces[:, 0], pieces[:, 1]))
    return shared, areas.min(axis=1), areas.sum(axis=1) - shared


def _sides_area(rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4) -> (...); 0 where there is nothing between the sides."""
    sides = (rectangles[..., 2:] - rectangles[..., :2]).clip(min=0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float64)


def _best(boxes: Sightings, pairs: Pairs, agreement: NDArray[np.float64], iou: NDArray[np.float64]) -> Pairs:
    """Of each two tiles the pairs that agree best, no box twice; of equals the one with the higher IoU as a whole."""
    keys = boxes.tile_key[pairs]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], keys[:, 1], keys[:, 0], -iou, -agreement))
    tiles = np.unique(keys, return_inverse=True)[1].reshape(-1, 2)
    wanted = pairs * (2 * len(pairs) + 1) + tiles[:, ::-1]  # (P, 2) a box, and the tile of its partner
    kept = [order[:0]]
    while len(order):
        left = wanted[order]
        first = np.zeros(left.shape, np.bool_)
        for side in (0, 1):
            first[np.unique(left[:, side], return_index=True)[1], side] = True
        best = first.all(axis=1)  # nothing better is left for either of the two
        kept.append(order[best])
        order = order[~(np.isin(left[:, 0], left[best, 0]) | np.isin(left[:, 1], left[best, 1]))]
    return pairs[np.concatenate(kept)]
