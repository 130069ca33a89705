"""Things over time: which box of a night is which thing, and whether one appeared, vanished or moved.

A box that overlaps that of a thing is the thing. Whether a thing is there is then a question with two answers, put to
the same rule as every other (`rsqa.monitor.change`): its score where it was found, for certain not where its tile was
asked and no box overlaps. Before it was first found its tile was asked without it so many times: they count too, and a
thing that was there from the start is no change.

A thing that vanished and one of its kind that appeared close by, confirmed by the same observation, are one that moved.
N boxes, T things ever followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from rsqa.monitor.change import Change, Tracks

Place = tuple[int, int]
"""(row, col) of a tile of the grid."""

THERE, GONE = 0, 1
IOU = 0.5
"""Intersection over union from which a box shows a thing."""
FAR = 3.0
"""So many times its diagonal a thing may have moved; further away it is taken for another one."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A box of one observation."""

    place: Place
    """The tile that holds its middle."""
    score: float
    polygon: shapely.Polygon


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """What became of a thing."""

    what: Literal["appeared", "vanished", "moved"]
    place: Place
    polygon: shapely.Polygon
    """Where it is, or was last."""
    moved_from: shapely.Polygon | None
    p_before: float
    """That it is there; of a thing that vanished that it is not."""
    p_after: float
    last_before: datetime
    first_after: datetime
    confirmed: datetime


@dataclass(slots=True, eq=False)
class _Thing:
    """Where a thing was when it was first found: boxes are compared with that, or it could creep away unnoticed."""

    place: Place
    polygon: shapely.Polygon


@dataclass(slots=True, eq=False)
class Follower:
    """One kind of thing over time, as the observations are shown in order of time."""

    confirmations: int
    min_delta: float
    tracks: Tracks = field(init=False)
    """Of each thing, by its number."""
    things: dict[int, _Thing] = field(default_factory=dict)
    """Those that are there, or may be."""
    asked: dict[Place, tuple[int, datetime]] = field(default_factory=dict)
    """How often a tile was asked, and when last."""
    n_things: int = 0
    """Numbers that were given."""

    def __post_init__(self) -> None:
        self.tracks = Tracks(2, self.confirmations, self.min_delta)

    def observe(self, places: Sequence[Place], found: Sequence[Sighting], when: datetime) -> list[ObjectChange]:
        """Show one moment: the tiles about which something is known, and what was found in them; -> what changed."""
        numbers = list(self.things)
        old = np.array([self.things[number].polygon for number in numbers], object)
        pairs = same_things(np.array([sighting.polygon for sighting in found], object), old)
        seen = {numbers[thing]: found[box].score for box, thing in pairs}
        matched = {box for box, _ in pairs}
        known = set(places)
        seen |= {self._begin(s): s.score for box, s in enumerate(found) if box not in matched}
        shown = np.array([n for n, thing in self.things.items() if thing.place in known], np.int64)
        there = np.array([seen.get(number, 0.0) for number in shown.tolist()], np.float32)
        changes = self.tracks.observe(shown, np.stack([there, 1 - there], axis=1), when)
        told = self._told(changes)
        for number in shown[self.tracks.value[shown] == GONE].tolist():
            if number not in seen:  # all that is known of it is what `asked` tells of its tile
                del self.things[number]
        for place in known:
            self.asked[place] = self.asked.get(place, (0, when))[0] + 1, when
        return told

    def _begin(self, sighting: Sighting) -> int:
        """Follow a new thing, which its tile was asked without until now; -> its number."""
        number, self.n_things = self.n_things, self.n_things + 1
        self.tracks.grow(self.n_things)
        self.things[number] = _Thing(sighting.place, sighting.polygon)
        times, last = self.asked.get(sighting.place, (0, None))
        for _ in range(min(times, self.confirmations)):
            assert last is not None
            self.tracks.observe(np.array([number]), np.array([[0, 1]], np.float32), last)
        return number

    def _told(self, changes: Sequence[Change]) -> list[ObjectChange]:
        came = [change for change in changes if change.after == THERE]
        went = [change for change in changes if change.after == GONE]
        moves = self._moves(went, came)
        told = [self._change("moved", came[b], went[a]) for a, b in moves]
        told += [self._change("appeared", change) for i, change in enumerate(came) if i not in {b for _, b in moves}]
        told += [self._change("vanished", change) for i, change in enumerate(went) if i not in {a for a, _ in moves}]
        return told

    def _moves(self, went: Sequence[Change], came: Sequence[Change]) -> list[tuple[int, int]]:
        """Pairs of positions, the closest ones first, none twice."""
        near = []
        for a, gone in enumerate(went):
            for b, new in enumerate(came):
                before, after = self.things[gone.tile].polygon, self.things[new.tile].polygon
                apart = shapely.distance(before.centroid, after.centroid)
                if apart <= FAR * max(_diagonal(before), _diagonal(after)):
                    near.append((apart, a, b))
        return _no_one_twice([(a, b) for _, a, b in sorted(near)])

    def _change(
        self, what: Literal["appeared", "vanished", "moved"], change: Change, before: Change | None = None
    ) -> ObjectChange:
        thing, first = self.things[change.tile], before or change
        return ObjectChange(
            what=what, place=thing.place, polygon=thing.polygon,
            moved_from=None if before is None else self.things[before.tile].polygon,
            p_before=change.p_before if before is None else 1 - before.p_before, p_after=change.p_after,
            last_before=first.last_before, first_after=change.first_after, confirmed=change.confirmed,
        )  # fmt: skip


def same_things(boxes: NDArray[np.object_], things: NDArray[np.object_]) -> list[tuple[int, int]]:
    """(N,) and (T,) polygons -> pairs of positions that overlap enough, the best ones first, none twice."""
    box, thing = shapely.STRtree(things).query(boxes, predicate="intersects")
    shared = shapely.area(shapely.intersection(boxes[box], things[thing]))
    overlap = shared / (shapely.area(boxes[box]) + shapely.area(things[thing]) - shared)
    order = np.lexsort((thing, box, -overlap))
    return _no_one_twice([(int(box[i]), int(thing[i])) for i in order if overlap[i] >= IOU])


def _no_one_twice(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: dict[int, int] = {}
    others: set[int] = set()
    for one, other in pairs:
        if one not in kept and other not in others:
            kept[one] = other
            others.add(other)
    return list(kept.items())


def _diagonal(polygon: shapely.Polygon) -> float:
    return float(shapely.length(shapely.linestrings(shapely.get_coordinates(polygon)[[0, 2]])))
