from __future__ import annotations

import numpy as np
import pytest

from rsqa.train.digits import NEAR, nearly
from rsqa.train.packing import IGNORE, Chain

DIGITS = tuple(range(100, 110))
OTHER = 7


def chain(text: str) -> Chain:
    labels = tuple(DIGITS[int(c)] if c.isdigit() else IGNORE if c == "?" else OTHER for c in text)
    return Chain(labels, labels, "box")


def places_that_change(text: str) -> set[int]:
    rng, given = np.random.default_rng(0), chain(text)
    made = [nearly(given, DIGITS, rng) for _ in range(60)]
    assert all(one.ids == given.ids for one in made)
    return {i for one in made for i, (a, b) in enumerate(zip(one.labels, given.labels, strict=True)) if a != b}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("[[120,70,1000,340]]", {3, 15}),  # of 70 nothing but hundredths is written, 1000 is the edge
        ("[[0,0,990,10]]", {7}),
        ("[]", set()),
        ("120", {1}),
        ("??121 12 100", {10}),  # 121 is no multiple of a hundredth
        ("4520", set()),
    ],
)
def test_only_hundredths_change(text, changed):
    assert places_that_change(text) == changed


def test_labels_fall_as_often_as_told():
    rng, given = np.random.default_rng(0), chain("270")
    drawn = [nearly(given, DIGITS, rng).labels[1] - DIGITS[0] for _ in range(4000)]
    assert np.abs(np.bincount(drawn, minlength=10) / 4000 - NEAR[7]).max() < 0.03


def test_the_true_digit_stays_the_likeliest_and_the_middle_is_best_unseen():
    assert (NEAR.argmax(axis=1) == np.arange(10)).all()
    assert NEAR.mean(axis=0).argmax() in (4, 5)
