"""Things over time: the same rule as for answers, whatever their boxes do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rsqa.monitor.change import Tracks
from rsqa.monitor.follow import GONE, THERE, Follower, Sighting, same_things

DAY = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(60)]
HERE, ELSEWHERE = (0, 0), (0, 1)


def square(x=0.0, y=0.0, side=10.0):
    return shapely.box(x, y, x + side, y + side)


def told(nights, confirmations=2, places=(HERE,)):
    """`nights`: per day the squares that were found, None: nothing is known; -> (what, polygon, day)."""
    follower = Follower(confirmations, 0.3)
    changes = []
    for day, found in zip(DAY, nights, strict=False):
        if found is not None:
            changes += follower.observe(places, [Sighting(HERE, 0.9, polygon) for polygon in found], day)
    return [(change.what, change.polygon, DAY.index(change.confirmed)) for change in changes]


A, B, FAR_OFF = square(), square(14), square(500)
SHIFTED = square(2)


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ([[A]] * 4, []),  # it was there from the start
        ([[], [], [A], [A]], [("appeared", A, 3)]),
        ([[A], [A], [], []], [("vanished", A, 3)]),
        ([[A], [A], [], [A]], []),  # missed once
        ([[], [], [A], [], [A], []], []),  # a mistake, twice
        ([[], [], [A], None, [A]], [("appeared", A, 4)]),
        ([[A], [A], None, None, None], []),
        ([[A], [A], [SHIFTED], [SHIFTED]], []),  # boxes are not exact
        ([[A], [A], [B], [B]], [("moved", B, 3)]),
        ([[A], [A], [FAR_OFF], [FAR_OFF]], [("appeared", FAR_OFF, 3), ("vanished", A, 3)]),
        ([[A, B]] * 3 + [[B]] * 2, [("vanished", A, 4)]),
        ([[A]] * 2 + [[A, B]] * 2, [("appeared", B, 3)]),
        ([[], [A], [A]], []),  # asked only once without it: nobody knows what was before
    ],
)
def test_what_becomes_of_things(nights, expected):
    assert told(nights) == expected


def test_a_thing_that_creeps_is_one_that_moved():
    nights = [[square(x)] for x in range(12) for _ in range(2)]
    assert {what for what, _, _ in told(nights)} == {"moved"}


def test_where_it_was_and_how_sure():
    follower = Follower(2, 0.3)
    changes = []
    for day, (polygon, score) in zip(DAY, [(A, 0.7), (A, 0.9), (B, 0.6), (B, 0.8)], strict=False):
        changes += follower.observe([HERE], [Sighting(HERE, score, polygon)], day)
    [change] = changes
    assert (change.what, change.polygon, change.moved_from) == ("moved", B, A)
    assert change.p_before == pytest.approx(0.8)
    assert change.p_after == pytest.approx(0.7)
    assert (change.last_before, change.first_after, change.confirmed) == (DAY[1], DAY[2], DAY[3])


def test_what_is_unknown_elsewhere_changes_nothing_here():
    assert told([[], [], [A], [A]], places=(ELSEWHERE,)) == []


@given(st.lists(st.sampled_from(["seen", "missed", "unknown"]), max_size=40), st.integers(1, 4))
def test_a_thing_that_stays_in_its_place_is_a_question_of_its_tile(nights, confirmations):
    tracks = Tracks(2, confirmations, 0.3)
    tracks.grow(1)
    expected = []
    for day, night in zip(DAY, nights, strict=False):
        if night != "unknown":
            score = np.float32(0.9 if night == "seen" else 0.0)
            changes = tracks.observe(np.array([0]), np.array([[score, 1 - score]], np.float32), day)
            expected += [(c.after, c.p_before, c.p_after, c.last_before, c.first_after, c.confirmed) for c in changes]
    follower, found = Follower(confirmations, 0.3), []
    for day, night in zip(DAY, nights, strict=False):
        if night != "unknown":
            changes = follower.observe([HERE], [Sighting(HERE, 0.9, A)] if night == "seen" else [], day)
            option = {"appeared": THERE, "vanished": GONE}
            found += [
                (option[c.what], c.p_before, c.p_after, c.last_before, c.first_after, c.confirmed) for c in changes
            ]
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 12)), max_size=8), st.data())
def test_each_box_is_one_thing(places, data):
    """Shuffled boxes find themselves, if no two overlap much."""
    boxes = [square(x, y, side) for x, y, side in places]
    kept = [b for i, b in enumerate(boxes) if all(b.intersection(o).area / b.union(o).area < 0.5 for o in boxes[:i])]
    order = data.draw(st.permutations(range(len(kept))))
    pairs = same_things(np.array([kept[i] for i in order], object), np.array(kept, object))
    assert sorted(pairs) == list(enumerate(order))


def test_mistakes_are_forgotten():
    follower = Follower(3, 0.3)
    for n, day in enumerate(DAY):
        follower.observe([HERE], [Sighting(HERE, 0.9, square(100 * n))], day)
    assert len(follower.things) <= 4
