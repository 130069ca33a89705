"""The specification of what is right, as tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.evaluate.items import Item
from rsqa.evaluate.scoring import AREA_BUCKETS, COUNT_BUCKETS, bucket, published_score, same, score, token_f1
from rsqa.tasks.question import COUNTS, YES_NO, Question

SIZE = (100, 200)
YES = Question("q", "Is it?", "yesno", YES_NO)
WHERE = Question("q", "the ship", "box")
OPEN = Question("q", "What is it?", "open")
LETTERS = Question("q", "A. x B. y", "choice", ("A", "B"))


@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("yes", "yes", True), (" Yes. ", "yes", True), ("YES!", "yes", True), ("no", "yes", False),
        ("yes, it is", "yes", False), ("", "yes", False), ("no", "north", False), ("none", "no", False),
        ("nine", "9", True), ("Twenty-eight", "28", True), ("09", "9", True), ("-9", "9", False), ("9.5", "9", False),
        ("dense  residential", "Dense residential", True), ("residential", "dense residential", False),
        ("between 0 and 10", "between 0 and 10", True), ("between 1 and 10", "between 0 and 10", True),
        ("7", "between 0 and 10", True), ("0", "between 0 and 10", False), ("11", "between 10 and 100", True),
        ("10", "between 10 and 100", False), ("between 11 and 100", "between 10 and 100", True),
        ("1001", "more than 1000", True), ("9" * 5000, "more than 1000", True), ("0", "0", True), ("1", "0", False),
        ("between 0 and 10", "7", False), ("more than 100", "more than 100", True), ("101", "more than 100", False),
        ("0 m2", "0m2", True), ("0", "0m2", False), ("0 m²", "0m2", True),
        ("between 11 m2 and 100 m2", "between 10m2 and 100m2", True), ("55m2", "between 10m2 and 100m2", True),
        ("55", "between 10m2 and 100m2", False), ("between 10 and 100", "between 10m2 and 100m2", False),
        ("more than 1000 m2", "more than 1000m2", True),
    ],
)  # fmt: skip
def test_strict(said, gold, right):
    assert same(said, gold) == right
    assert score(Item("p", OPEN, ("t",), (gold,)), said, SIZE) == right


def test_no_answer_is_wrong():
    assert score(Item("p", YES, ("t",), ("yes",)), None, SIZE) == 0.0
    assert score(Item("p", WHERE, ("t",), measure="box", boxes=((0, 0, 10, 10),)), None, SIZE) == 0.0


@given(st.integers(0, 10**7))
def test_a_number_lies_in_the_bucket_that_names_it(n):
    bounds = [(0, 0), (1, 10), (11, 100), (101, 1000), (1001, math.inf)]
    place = next(i for i, (low, high) in enumerate(bounds) if low <= n <= high)
    assert bucket(str(n)) == bucket(COUNT_BUCKETS[place]) == place
    assert bucket(f"{n} m2", "m2") == bucket(AREA_BUCKETS[place], "m2") == place


@given(st.text(), st.text())
def test_no_text_makes_scoring_raise(said, gold):
    for question, measure in ((OPEN, "exact"), (OPEN, "bucket"), (OPEN, "f1"), (WHERE, "box")):
        item = Item("p", question, ("t",), (gold,), measure, ((1, 1, 9, 9),))
        assert 0 <= score(item, said, SIZE) <= 1
        assert not published_score(item, said, SIZE) > 1
    assert same(said, said)


@pytest.mark.parametrize(
    ("said", "references", "expected"),
    [
        ("a b c d", ["a b c d"], 1.0), ("a b", ["c", "a"], 2 / 3), ("", ["a"], 0.0), ("a a", ["a"], 2 / 3),
        ("There is a Pond.", ["there is a pond"], 1.0), ("x", [], 0.0),
    ],
)  # fmt: skip
def test_captions_share_words_with_the_best_reference(said, references, expected):
    assert token_f1(said, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("item", "said", "strict", "published"),
    [
        # What the published rule gets wrong is right only there.
        (Item("p", YES, ("t",), ("yes",)), "", 0.0, 1.0),
        (Item("p", OPEN, ("t",), ("north",)), "no", 0.0, 1.0),
        (Item("p", YES, ("t",), ("yes",)), "yes, of course", 0.0, 1.0),
        (Item("p", YES, ("t",), ("yes",)), "<reasoning>no</reasoning><answer>Yes.</answer>", 0.0, 1.0),
        (Item("p", YES, ("t",), ("no",)), "yes", 0.0, 0.0),
        (Item("p", OPEN, ("t",), ("airport",)), "air, port", 0.0, 1.0),
        (Item("p", LETTERS, ("t",), ("A",)), "A, surely", 0.0, 0.0),
        (Item("p", LETTERS, ("t",), ("A",)), "A. surely", 0.0, 0.0),  # gold keeps its capital there, the reply loses it
    ],
)
def test_strict_beside_published(item, said, strict, published):
    assert score(item, said, SIZE) == strict
    if item.question is not LETTERS:
        assert published_score(item, said, SIZE) == published


@pytest.mark.parametrize(
    ("said", "strict", "published"),
    [
        ("[[100,200,400,600]]", 1.0, 1.0), ("[100, 200, 400, 600]", 1.0, None), ("I see none", 0.0, None),
        ("[[100,200,400,600]] [[0,0,1,1]]", 1.0, 1.0), ("[[0,0,1,1]] [[100,200,400,600]]", 0.0, 0.0),
        ("[[400,600,100,200]]", 0.0, 0.0), ("[[200,100,600,400]]", 0.0, 0.0),
    ],
)  # fmt: skip
def test_boxes(said, strict, published):
    """A picture of 100 rows and 200 columns; the true box is 0.1 to 0.4 across and 0.2 to 0.6 down."""
    item = Item("p", WHERE, ("t",), measure="box", boxes=((20, 20, 80, 60),))
    assert score(item, said, SIZE) == strict
    told = published_score(item, said, SIZE)
    assert math.isnan(told) if published is None else told == published  # NaN leaves the denominator


def test_options_of_a_count_are_told_apart():
    assert all(same(option, option) for option in COUNTS)
    assert sum(same(one, other) for one in COUNTS for other in COUNTS) == len(COUNTS)
