from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.evaluate.detection import Found, average_precision
from rsqa.tasks.boxes import iou

CELLS = [(x / 4, y / 4, x / 4 + 0.2, y / 4 + 0.2) for x in range(3) for y in range(3)]


def by_definition(found, truth):
    """Precision and recall after each box, the area summed over every recall that is reached."""
    n = sum(map(len, truth.values()))
    order = sorted(range(len(found)), key=lambda i: (-found[i].score, i))
    curve, taken, hits = [(0.0, 1.0)], set(), 0
    for rank, i in enumerate(order, 1):
        mine = [(iou(found[i].box, box), -k) for k, box in enumerate(truth.get(found[i].picture, ()))]
        best = max(mine, default=(0, 0))
        key = found[i].picture, best[1]
        if mine and best[0] >= 0.5 and key not in taken:
            taken.add(key)
            hits += 1
        curve.append((hits / n, hits / rank))
    recalls = sorted({r for r, _ in curve})
    return sum((high - low) * max(p for r, p in curve[1:] if r >= high) for low, high in pairwise(recalls))


boxes = st.sampled_from(CELLS)
pictures = st.sampled_from("abc")


@given(
    st.lists(st.builds(Found, pictures, boxes, st.sampled_from([0.1, 0.5, 0.9])), max_size=12),
    st.dictionaries(pictures, st.lists(boxes, max_size=4, unique=True), min_size=1).filter(lambda t: any(t.values())),
)
def test_average_precision_is_the_area_by_definition(found, truth):
    assert average_precision(found, truth) == pytest.approx(by_definition(found, truth))


def test_known_cases():
    truth = {"a": [CELLS[0]], "b": [CELLS[1]]}
    right = [Found("a", CELLS[0], 0.9), Found("b", CELLS[1], 0.8)]
    wrong = Found("a", CELLS[5], 1.0)
    assert average_precision(right, truth) == 1.0
    assert average_precision([wrong, *right], truth) == pytest.approx(2 / 3)  # 1/2 then 2/3: the best from there on
    assert average_precision([*right, replace(right[0], score=0.1)], truth) == 1.0  # found twice, late: no loss
    assert average_precision([right[0], replace(right[0], score=0.85), right[1]], truth) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert average_precision([], truth) == 0.0
    assert math.isnan(average_precision(right, {}))
