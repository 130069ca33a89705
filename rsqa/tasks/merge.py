"""From what single tiles saw to objects, each once: a forward sweep over bands of tiles.

`rsqa.tasks.sightings` tells which boxes of several tiles are the same thing; here they become one object, over any
number of tiles.

A box is owned by the tile that has its middle in its core. An object is dropped when the tiles that own its boxes were
asked and none of them said anything like it: at its window's edge a tile judges by half a picture. The score of an
object is the mean over the tiles that show it, so one that shows it and says nothing like it counts as 0.

A second pass with larger tiles, for things larger than a tile, is more tiles in the same bands: its boxes agree with
the pieces that the first pass saw as those of two tiles do. Of its boxes those no larger than the first pass's overlap
are left out by the caller: the first pass sees such things whole.

The result depends neither on where bands begin nor on the order within a band. Only boxes are kept that a tile further
down may share, and what is joined to them.

Pixels of the source, x right, y down. T tiles, B boxes, L labels, N objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rsqa.tasks.sightings import Pairs, Sightings, inside, key_of, partners, shows


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """T tiles of one or several passes."""

    tile: NDArray[np.int64]
    """(T, 3) factor of the pass (1: the finest), tile row, tile column."""
    core: NDArray[np.float64]
    """(T, 4) x1, y1, x2, y2."""
    window: NDArray[np.float64]
    """(T, 4) what the model saw of the source."""
    asked: NDArray[np.bool_]
    """(T, L) whether the tile's answer about a label is known; if not, its silence says nothing."""

    def __len__(self) -> int:
        return len(self.tile)

    def below(self, y: float) -> Tiles:
        """Those whose windows reach below."""
        return Tiles(*(getattr(self, f.name)[self.window[:, 3] > y] for f in fields(self)))

    def and_those(self, others: Tiles) -> Tiles:
        """`others` behind them."""
        return Tiles(*(np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Tiles and what they saw. No window of a later band begins above the highest one of this."""

    tiles: Tiles
    """Each tile once in all bands."""
    tile: NDArray[np.int64]
    """(B,) position of each box's tile."""
    label: NDArray[np.int64]
    """(B,) 0 to L - 1."""
    corners: NDArray[np.float64]
    """(B, 4, 2) as `rsqa.tasks.boxes.corners` orders them; no box is empty."""
    score: NDArray[np.float32]
    """(B,) probability that the thing is there; NaN: none."""
    logprob: NDArray[np.float32]
    """(B,) of the box's words; NaN: none."""

    def only(self, which: NDArray[np.bool_]) -> Band:
        """All tiles, and the boxes of a mask (B,)."""
        boxes = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "tiles"}
        return replace(self, **boxes)

    def sightings(self, first_group: int) -> Sightings:
        """The boxes, each a group of its own, in an order that does not depend on the one in which they came."""
        tile = self.tiles.tile[self.tile]
        keys = (*self.corners.reshape(-1, 8).T, self.logprob, self.score, self.label, *tile.T[::-1])
        order = np.lexsort(keys)
        return Sightings(
            tile=tile[order], core=self.tiles.core[self.tile[order]], window=self.tiles.window[self.tile[order]],
            label=self.label[order], corners=self.corners[order], score=self.score[order], logprob=self.logprob[order],
            owner=np.full(len(order), -1), asked=self.tiles.asked[self.tile[order], self.label[order]],
            shown=np.zeros(len(order), np.int64), group=first_group + np.arange(len(order)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """N objects, from top to bottom."""

    label: NDArray[np.int64]
    """(N,)."""
    corners: NDArray[np.float64]
    """(N, 4, 2) of the best box that shows it whole; where all are pieces, the box around them."""
    score: NDArray[np.float32]
    """(N,) mean over the tiles that show its best box: of each the highest of its boxes, 0 if it has none. NaN: none of
    these boxes has one."""
    logprob: NDArray[np.float32]
    """(N,) of the best box."""
    n_seen: NDArray[np.int64]
    """(N,) how many tiles saw it."""
    seen: NDArray[np.int64]
    """(sum of n_seen, 3) those tiles, that of the best box first."""

    def __len__(self) -> int:
        return len(self.label)


def merge(bands: Iterable[Band], size: tuple[int, int]) -> Iterator[Objects]:
    """Bands from top to bottom -> objects, as soon as they are complete. `size`: (H, W) of the source.

    Raises ValueError for bands that are not in order.
    """
    held: Sightings | None = None
    tiles: Tiles | None = None
    front, n_boxes = -np.inf, 0
    for band in bands:
        if not len(band.tiles):
            continue
        top = float(band.tiles.window[:, 1].min())
        if top < front:
            raise ValueError(f"a band begins at row {top}, above the one before it, which begins at {front}")
        front = top
        new = band.sightings(n_boxes)
        n_boxes += len(new)
        held = new.take(slice(0)) if held is None else held
        tiles = band.tiles if tiles is None else tiles.below(front).and_those(band.tiles)
        done = _complete(held, front)
        if done.any():
            yield _objects(held.take(done), size)
        held = _join(held.take(~done), new, tiles, band.tiles)
    if held is not None and len(held):
        yield _objects(held, size)


def _complete(boxes: Sightings, front: float) -> NDArray[np.bool_]:
    """(B,) whether no tile from `front` on shares ground with any box of the group."""
    groups, group = np.unique(boxes.group, return_inverse=True)
    lowest = np.full(len(groups), -np.inf)
    np.maximum.at(lowest, group, boxes.window[:, 3])
    return np.asarray(lowest <= front, np.bool_)[group]


def _join(held: Sightings, new: Sightings, tiles: Tiles, new_tiles: Tiles) -> Sightings:
    """All boxes, those of the same thing in one group. Boxes above the new tiles meet no new ones any more."""
    above = held.window[:, 3] <= new_tiles.window[:, 1].min()
    waiting = held.take(~above)
    waiting = replace(waiting, shown=waiting.shown + _showing(waiting, new_tiles))
    new = replace(new, shown=_showing(new, tiles))
    near = _with_owners(waiting.and_those(new), tiles)
    pairs = partners(near, len(waiting))
    boxes = held.take(above).and_those(near)
    return replace(boxes, group=_united(boxes.group, near.group[pairs]))


def _with_owners(boxes: Sightings, tiles: Tiles) -> Sightings:
    """The boxes, with the owners that are among the tiles."""
    middles = boxes.corners.mean(axis=1)
    box, tile = shapely.STRtree(shapely.box(*tiles.core.T)).query(shapely.points(middles))
    owns = inside(middles[box], tiles.core[tile]) & (tiles.tile[tile, 0] == boxes.tile[box, 0])
    owns &= tiles.asked[tile, boxes.label[box]]
    owner = boxes.owner.copy()
    owner[box[owns]] = key_of(tiles.tile)[tile[owns]]
    return replace(boxes, owner=owner)


def _showing(boxes: Sightings, tiles: Tiles) -> NDArray[np.int64]:
    """(B,) how many of the tiles are of the box's pass, were asked for its label, and show it."""
    frames = boxes.in_window
    box, tile = shapely.STRtree(shapely.box(*tiles.window.T)).query(shapely.box(*frames.T))
    counts = (tiles.tile[tile, 0] == boxes.tile[box, 0]) & tiles.asked[tile, boxes.label[box]]
    counts &= shows(tiles.window[tile], frames[box])
    return np.bincount(box[counts], minlength=len(boxes))


def _united(group: NDArray[np.int64], pairs: Pairs) -> NDArray[np.int64]:
    """(B,) numbers of groups, (P, 2) of those that are one -> (B,) with the lowest number of each."""
    parent = {name: name for name in np.unique(pairs).tolist()}

    def root(name: int) -> int:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in pairs.tolist():
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    old = np.array(list(parent), np.int64)
    united = group.copy()
    touched = np.flatnonzero(np.isin(group, old))
    roots = np.array([root(name) for name in parent], np.int64)
    united[touched] = roots[np.searchsorted(old, group[touched])]
    return united


def _objects(boxes: Sightings, size: tuple[int, int]) -> Objects:
    """Whole groups -> an object each, unless it is dropped; in order of the lowest window, then of the best box."""
    place, key = np.arange(len(boxes)), boxes.tile_key  # the place tells boxes of one tile apart, always alike
    cut, owned = boxes.cut(size), boxes.owner == key
    order = np.lexsort(
        (place, boxes.tile[:, 2], boxes.tile[:, 1], -boxes.score, ~owned, boxes.tile[:, 0], cut, boxes.group)
    )
    boxes, cut, place = boxes.take(order), cut[order], place[order]
    starts = np.flatnonzero(np.diff(boxes.group, prepend=-1))  # the best box of each object
    n_boxes = np.diff(starts, append=len(boxes))
    number = np.repeat(np.arange(len(starts)), n_boxes)  # (B,) the object of each box
    pieces = (cut[starts] & (n_boxes > 1))[number]
    corners = boxes.corners[starts]
    corners[np.unique(number[pieces])] = _around(boxes.corners[pieces], number[pieces])

    tile, owner = np.unique([boxes.tile_key, boxes.owner], return_inverse=True)[1]
    seen, owned_by = (number * (2 * len(boxes)) + which for which in (tile, owner))
    known = np.logical_or.reduceat((boxes.owner < 0) | np.isin(owned_by, seen), starts)
    lowest = np.maximum.reduceat(boxes.window[:, 3], starts)
    rows = np.lexsort((place[starts], *boxes.tile[starts].T[[0, 2, 1]], lowest))
    rows = rows[known[rows]]
    rank = np.full(len(starts), -1)
    rank[rows] = np.arange(len(rows))
    first = np.sort(np.unique(seen, return_index=True)[1])  # box of each object in each of its tiles
    first = first[rank[number[first]] >= 0]
    first = first[np.argsort(rank[number[first]], kind="stable")]
    return Objects(
        label=boxes.label[starts[rows]],
        corners=corners[rows],
        score=_scores(boxes, starts, number, seen)[rows],
        logprob=boxes.logprob[starts[rows]],
        n_seen=np.bincount(rank[number[first]], minlength=len(rows)),
        seen=boxes.tile[first],
    )


def _scores(
    boxes: Sightings, best: NDArray[np.int64], number: NDArray[np.int64], seen: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(N,) as `Objects` has them. `best`: (N,) positions; `number`, `seen`: (B,) object, and object and tile."""
    _, first, which = np.unique(seen, return_index=True, return_inverse=True)  # each tile of each object
    said = np.full(len(first), np.nan, np.float32)
    np.fmax.at(said, which, boxes.score)
    of = number[first]
    shown = shows(boxes.window[first], boxes.in_window[best][of]) & (boxes.tile[first, 0] == boxes.tile[best, 0][of])
    known = shown & ~np.isnan(said)
    n_said = np.bincount(of[known], minlength=len(best))
    n_silent = boxes.shown[best] - np.bincount(of[shown & boxes.asked[first]], minlength=len(best))
    total = np.bincount(of[known], said[known], len(best))
    means = np.divide(total, n_said + n_silent, where=n_said > 0, out=np.full(len(best), np.nan))
    return np.asarray(means, np.float32)


def _around(corners: NDArray[np.float64], number: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, 4, 2) pieces, (B,) which object they are of, in order -> (N, 4, 2) boxes around, along the largest piece."""
    down, right = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    area = np.hypot(*down.T) * np.hypot(*right.T)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    largest = np.lexsort((-area, number))[starts]
    axes = np.stack([right, down], axis=1)[largest]  # (N, 2, 2) two directions, x and y of each
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    of_piece = np.searchsorted(number[starts], number)
    along = corners @ axes[of_piece].transpose(0, 2, 1)  # (B, 4, 2) how far right and down
    low, high = np.minimum.reduceat(along.min(axis=1), starts), np.maximum.reduceat(along.max(axis=1), starts)
    (left, top), (right_end, bottom) = low.T, high.T
    xs, ys = np.stack([left, left, right_end, right_end], axis=1), np.stack([top, bottom, bottom, top], axis=1)
    frame = np.stack([xs, ys], axis=2)
    return np.asarray(frame @ axes, np.float64)
