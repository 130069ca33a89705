from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.tasks.boxes import format_boxes, iou, parse_boxes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[100,200,300,400]]", ((0.1, 0.2, 0.3, 0.4),)),
        ("The plane is at [[100, 200, 300, 400]].\n", ((0.1, 0.2, 0.3, 0.4),)),
        ("[100 200 300 400]", ((0.1, 0.2, 0.3, 0.4),)),
        ("[[0,0,10,10],[20,20,30,30]]", ((0, 0, 0.01, 0.01), (0.02, 0.02, 0.03, 0.03))),
        ("[[0,0,2000,999999999]]", ((0, 0, 1, 1),)),
        ("[[-5,0,10,10]]", ((0, 0, 0.01, 0.01),)),
        ("[[300,200,100,400]]", ()),
        ("[[100,200,100,400]]", ()),
        ("[[1,2,3]]", ()),
        ("[[1.5,2,3,4]]", ()),
        ("[]", ()),
        ("", ()),
        ("no", ()),
    ],
)
def test_parse_boxes(text, expected):
    assert parse_boxes(text) == expected


@given(st.text())
def test_no_text_makes_it_raise(text):
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in parse_boxes(text))


corner = st.integers(0, 999)


@st.composite
def boxes(draw):
    x1, y1 = draw(corner), draw(corner)
    return (x1 / 1000, y1 / 1000, draw(st.integers(x1 + 1, 1000)) / 1000, draw(st.integers(y1 + 1, 1000)) / 1000)


@given(st.lists(boxes()))
def test_what_is_written_is_read(written):
    assert parse_boxes(format_boxes(written)) == tuple(written)


@given(boxes(), boxes())
def test_iou_counts_cells(one, other):
    def cells(box):
        x1, y1, x2, y2 = (round(v * 40) for v in box)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    def coarse(box):
        return tuple(round(v * 40) / 40 for v in box)

    a, b = cells(one), cells(other)
    if a and b:
        assert iou(coarse(one), coarse(other)) == pytest.approx(len(a & b) / len(a | b))


def test_a_wrong_box_is_worth_less_than_the_right_one():
    truth = (0.1, 0.1, 0.5, 0.5)
    assert iou(truth, truth) == 1
    assert iou((0.6, 0.6, 0.9, 0.9), truth) == 0
    assert iou((0.1, 0.1, 0.3, 0.5), truth) == pytest.approx(0.5)
