from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsqa.train.facts import PLACES, cropped, place_of, turned

N = 20


def drawn(box):
    """A picture of N x N pixels that is one inside the box."""
    x1, y1, x2, y2 = (round(v * N) for v in box)
    picture = torch.zeros(N, N)
    picture[y1:y2, x1:x2] = 1
    return picture


@st.composite
def boxes(draw):
    x1, y1 = draw(st.integers(0, N - 1)), draw(st.integers(0, N - 1))
    return (x1 / N, y1 / N, draw(st.integers(x1 + 1, N)) / N, draw(st.integers(y1 + 1, N)) / N)


@given(boxes(), st.integers(0, 3), st.booleans())
def test_a_turned_box_holds_the_turned_pixels(box, quarter_turns, mirrored):
    picture = torch.rot90(drawn(box), quarter_turns, (0, 1))
    picture = picture.flip(1) if mirrored else picture
    assert torch.equal(drawn(turned(box, quarter_turns, mirrored)), picture)


@given(boxes(), boxes())
def test_a_crop_keeps_what_it_shows_and_doubts_what_it_cuts(box, crop):
    left, top, right, bottom = (round(v * N) for v in crop)
    seen = drawn(box)[top:bottom, left:right].sum() / drawn(box).sum()
    kept, unsure = cropped([("ship", box)], crop)
    assert bool(kept) == bool(seen > 0.599)
    assert bool(unsure) == bool(0.1001 < seen < 0.599)
    if kept:
        x1, y1, x2, y2 = kept[0][1]
        shown = np.flatnonzero(drawn(box)[top:bottom, left:right].any(dim=0))
        assert (x1 * (right - left), x2 * (right - left)) == pytest.approx((shown[0], shown[-1] + 1))
        assert 0 <= y1 < y2 <= 1


def test_places_read_like_a_page():
    named = [place_of((x - 0.05, y - 0.05, x + 0.05, y + 0.05)) for y in (0.1, 0.5, 0.9) for x in (0.1, 0.5, 0.9)]
    assert tuple(named) == PLACES
    assert place_of((0.9, 0.9, 1.1, 1.1)) == "bottom right"
