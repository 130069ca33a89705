"""The rule against a plain account of what it should do, tile by tile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.monitor.change import Tracks

DAY = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(40)]
YES, NO = 0, 1


def changes_of(series, confirmations=2, min_delta=0.3, n_options=2):
    """`series`: per day a list of shares of the first option, None unknown, one per tile."""
    tracks = Tracks(n_options, confirmations, min_delta)
    found = []
    for day, row in zip(DAY, series, strict=False):
        known = [i for i, share in enumerate(row) if share is not None]
        shares = np.array([[row[i], 1 - row[i]] for i in known], np.float32).reshape(-1, 2)
        tracks.grow(len(row))
        found += tracks.observe(np.array(known, np.int64), shares, day)
    return found


def one(*shares, **how):
    """What changed on a single tile: (before, after, confirmed on day)."""
    return [(c.before, c.after, DAY.index(c.confirmed)) for c in changes_of([[s] for s in shares], **how)]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.05, 0.05, 0.95, 0.95), [(NO, YES, 3)]),
        ((0.05, 0.05, 0.95, 0.05, 0.05), []),  # one noisy night
        ((0.05, 0.05, 0.95, 0.05, 0.95, 0.95), [(NO, YES, 5)]),
        ((0.05, 0.05, 0.95, None, 0.95), [(NO, YES, 4)]),  # a cloud neither starts nor breaks a row
        ((0.05, 0.05, None, None, None), []),
        ((0.95, 0.05, 0.05, 0.05), []),  # the first night alone is no state
        ((0.45, 0.45, 0.55, 0.55, 0.55), []),  # another answer, hardly another probability
        ((0.45, 0.45, 0.55, 0.55, 0.9, 0.9), [(NO, YES, 5)]),  # it became sure later
        ((0.05, 0.05, 0.95, 0.95, 0.05, 0.05), [(NO, YES, 3), (YES, NO, 5)]),
    ],
)
def test_what_counts_as_a_change(shares, expected):
    assert one(*shares) == expected


def test_a_single_confirmation_believes_each_night():
    assert one(0.05, 0.95, 0.05, confirmations=1) == [(NO, YES, 1), (YES, NO, 2)]


def test_when_it_was_and_how_sure():
    [change] = changes_of([[s] for s in (0.1, 0.2, 0.9, 0.2, 0.8, 0.9)])
    assert (change.last_before, change.first_after, change.confirmed) == (DAY[3], DAY[4], DAY[5])
    assert change.p_before == pytest.approx((0.2 + 0.2) / 2)  # the last two that said no
    assert change.p_after == pytest.approx((0.8 + 0.9) / 2)


def plain(series, confirmations, min_delta):
    """One tile: the same rule, written as lists."""
    state, before, after, found = None, [], [], []
    for day, share in enumerate(series):
        if share is None:
            continue
        shares = (np.float32(share), np.float32(1 - share))
        top = YES if shares[YES] >= shares[NO] else NO
        if top == state:
            before, after = [*before, shares], []
            continue
        if after and after[0][0] != top:
            after = []
        after.append((top, shares))
        if len(after) < confirmations:
            continue
        last = [s for _, s in after[-confirmations:]]
        rise = (
            None
            if state is None
            else np.mean([s[top] for s in last]) - np.mean([s[top] for s in before[-confirmations:]])
        )
        if rise is not None and abs(rise - min_delta) < 1e-6:
            return None  # too close to call
        if state is None or rise >= min_delta:
            if state is not None:
                found.append((state, top, day))
            state, before, after = top, last, []
    return found


share = st.one_of(st.none(), st.floats(0.02, 0.98).map(lambda s: round(s, 3)))


@given(
    st.lists(st.lists(share, min_size=3, max_size=3), max_size=25), st.integers(1, 4), st.sampled_from([0, 0.3, 0.7])
)
def test_the_rule_is_what_it_says(series, confirmations, min_delta):
    found = changes_of(series, confirmations, min_delta)
    for tile in range(3):
        expected = plain([row[tile] for row in series], confirmations, min_delta)
        if expected is not None:
            mine = [(c.before, c.after, DAY.index(c.confirmed)) for c in found if c.tile == tile]
            assert mine == expected
