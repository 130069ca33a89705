from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rsqa.scenes.compose import make_scene
from rsqa.scenes.truth import truth
from rsqa.tasks.boxes import parse_boxes
from rsqa.train import words
from rsqa.train.facts import Facts
from rsqa.train.reasoning import by_place, concluded, listing, percent
from rsqa.train.scene_windows import window_facts
from rsqa.train.turns import PresenceRates, turns_of


@pytest.fixture(scope="module")
def facts():
    """Of windows of real scenes, some turned, and of pictures with labels."""
    rng = np.random.default_rng(0)
    known = []
    for seed in range(3):
        scene = make_scene(seed, 700, 700)
        for _ in range(25):
            size = int(rng.integers(192, 480))
            row, col = (int(v) for v in rng.integers(0, 700 - size, 2))
            found = window_facts(truth(scene, (row, col, row + size, col + size)), size, rng)
            known.append(found.turned(int(rng.integers(4)), bool(rng.integers(2))))
    for some in (("airplane", "pavement"), ("trees",), ("sea", "ship", "dock", "water")):
        labels = frozenset(some)
        absent = frozenset(words.UCM_LABELS) - labels
        known.append(Facts(labels, absent, name="port", family=("port", "forest"), captions=("a port.",)))
    return known


def test_no_reason_contradicts_its_answer(facts):
    rates = PresenceRates({(noun, there): 1.0 for noun in words.NOUNS for there in (True, False)})
    read, reasoned = Counter(), Counter()
    for number, known in enumerate(facts * 8):
        for turn in turns_of(known, rates, ("forest",), True, np.random.default_rng(number)):
            reasoned[turn.kind] += bool(turn.trace)
            follows = concluded(turn.trace, turn.kind, turn.about) if turn.trace else None
            if follows is not None and turn.kind in ("presence", "count", "more"):
                assert follows == turn.answer, turn
                read[turn.kind] += 1
            if turn.kind == "boxes" and turn.trace:
                assert concluded(turn.trace, "count") == str(len(parse_boxes(turn.answer)))
    for kind in ("presence", "count", "more"):
        assert read[kind] == reasoned[kind] > 5
    assert reasoned["box"] > 10
    assert reasoned["main"] > 10
    assert reasoned["class"] > 0
    assert reasoned["caption"] > 10


@pytest.mark.parametrize(
    ("trace", "kind", "name", "expected"),
    [
        ("ships: top left 1, center 2. together 3.", "count", "", "3"),
        ("ships: top left 1, center 2. together 4.", "count", "", None),
        ("ships: none. together 0.", "presence", "", "no"),
        ("water: 5 percent of the ground.", "presence", "", "yes"),
        ("water: 0 percent of the ground.", "presence", "", "no"),
        ("ships: 3. buildings: 5. 3 is fewer than 5.", "more", "", "no"),
        ("ships: 3. buildings: 5. 3 is more than 5.", "more", "", None),
        ("the image shows cars, grass and trees.", "presence", "grass", "yes"),
        ("the image shows cars, grass and trees.", "presence", "tree", "no"),
        ("it is so.", "presence", "", None),
    ],
)
def test_what_follows_from_a_reason(trace, kind, name, expected):
    assert concluded(trace, kind, name) == expected


def test_places_count_every_thing_once():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.9, (40, 2))
    boxes = [(x, y, x + 0.1, y + 0.1) for x, y in corners]
    told = by_place(boxes)
    assert sum(int(part.rsplit(" ", 1)[1]) for part in told.split(", ")) == 40
    assert by_place([]) == "none"


def test_words_for_lists_and_shares():
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert [percent(share) for share in (0.0, 0.06, 0.13, 0.44, 1.0)] == [0, 5, 15, 40, 100]
