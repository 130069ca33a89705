from __future__ import annotations

import re

import numpy as np
import pytest

from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import COVERS, LABELS, OBJECTS, Scene, SceneObject
from rsqa.scenes.truth import THEMES, WindowTruth, describe, truth

WORDS = {
    "field": r"field|farm",
    "forest": r"forest|wood|trees",
    "water": r"water|harbour",
    "road": r"road",
    "building": r"building|built",
    "parking lot": r"parking",
    "ship": r"ship|harbour",
    "plane": r"plane|airfield",
    "storage tank": r"tank",
}


def plain_scene(shares=None, objects=()):
    """100 x 100 pixels of grass, of which the given shares are rows of other covers."""
    cover = np.zeros(10_000, np.uint8)
    at = 0
    for name, share in (shares or {}).items():
        cover[at : at + round(share * 10_000)] = COVERS.index(name)
        at += round(share * 10_000)
    return Scene(np.zeros((3, 100, 100), np.uint8), cover.reshape(100, 100), tuple(objects), 0.5, 0, "summer")


def upright(label, row0, col0, row1, col1):
    return SceneObject(label, ((row0, col0), (row1, col0), (row1, col1), (row0, col1)))


@pytest.fixture(scope="module")
def scene():
    return make_scene(12, 900, 900, gsd_m=0.4)


@pytest.fixture(scope="module")
def window_truths(scene):
    rng = np.random.default_rng(5)
    known = []
    for _ in range(40):
        side = int(rng.integers(200, 450))
        row, col = (int(value) for value in rng.integers(0, 900 - side, 2))
        window = (row, col, row + side, col + side)
        known.append((window, truth(scene, window)))
    return known


def test_fractions_are_the_counted_pixels(scene, window_truths):
    for (row0, col0, row1, col1), known in window_truths:
        part = scene.cover[row0:row1, col0:col1]
        assert known.fractions == {name: (part == code).mean() for code, name in enumerate(COVERS)}
        assert sum(known.fractions.values()) == pytest.approx(1)


def test_counts_and_boxes_are_those_of_the_objects(scene, window_truths):
    for (row0, col0, row1, col1), known in window_truths:
        for label in OBJECTS:
            corners = [np.array(thing.corners) for thing in scene.objects if thing.label == label]
            low, high = np.array([row0, col0]), np.array([row1, col1])
            whole = [c for c in corners if (c >= low).all() and (c <= high).all()]
            # The upright box decides, so that an object at a corner of the window is rather cut than absent.
            touched = [c for c in corners if (c.max(axis=0) > low).all() and (c.min(axis=0) < high).all()]
            cut = len(touched) > len(whole)
            assert known.counts[label] == (None if cut else len(whole))
            assert known.present[label] == (True if whole else None if cut else False)
            boxes = sorted(box[1:] for box in known.boxes if box[0] == label)
            expected = sorted((*(c.min(axis=0) - low), *(c.max(axis=0) - low)) for c in whole)
            np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), np.array(expected).reshape(-1, 4))


@pytest.mark.parametrize(
    ("cover", "share", "expected"),
    [
        ("water", 0.0, False), ("water", 0.003, False), ("water", 0.03, None), ("water", 0.08, True),
        ("field", 0.005, False), ("field", 0.02, None), ("field", 0.2, True),
        ("forest", 0.005, False), ("forest", 0.079, None), ("forest", 0.09, True),
        ("road", 0.001, False), ("road", 0.01, None), ("road", 0.02, True),
        ("parking lot", 0.001, False), ("parking lot", 0.01, None), ("parking lot", 0.03, True),
    ],
)  # fmt: skip
def test_little_cover_is_not_asked(cover, share, expected):
    assert truth(plain_scene({cover: share}), (0, 0, 100, 100)).present[cover] is expected


def test_an_object_cut_by_the_border_is_not_counted():
    inside, cut = upright("ship", 10, 10, 30, 20), upright("ship", 40, 40, 70, 60)
    known = truth(plain_scene(objects=[cut]), (0, 0, 50, 50))
    assert (known.present["ship"], known.counts["ship"], known.boxes) == (None, None, ())
    known = truth(plain_scene(objects=[inside, cut]), (5, 5, 50, 50))
    assert (known.present["ship"], known.counts["ship"]) == (True, None)
    assert known.boxes == (("ship", 5, 5, 25, 15),)
    assert truth(plain_scene(objects=[cut]), (0, 0, 40, 40)).counts["ship"] == 0


@pytest.mark.parametrize(("share", "expected"), [(0.05, False), (0.2, None), (0.5, True)])
def test_urban_by_built_ground(share, expected):
    assert truth(plain_scene({"paved": share}), (0, 0, 100, 100)).urban is expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"field": 0.7}, "farmland"), ({"forest": 0.6}, "forest"), ({"water": 0.9}, "water"), ({}, "open land"),
        ({"field": 0.5, "forest": 0.45}, None), ({"field": 0.3, "forest": 0.3}, None),
    ],
)  # fmt: skip
def test_theme_by_cover(shares, expected):
    assert truth(plain_scene(shares), (0, 0, 100, 100)).main == expected


def test_theme_by_works():
    tanks = [upright("storage tank", 10, 20 * n, 20, 20 * n + 10) for n in range(3)]
    planes = [upright("plane", 50, 20 * n, 60, 20 * n + 10) for n in range(2)]
    whole = (0, 0, 100, 100)
    assert truth(plain_scene(objects=tanks), whole).main == "tank farm"
    assert truth(plain_scene(objects=planes), whole).main == "airfield"
    assert truth(plain_scene(objects=[*tanks, *planes]), whole).main is None
    assert truth(plain_scene(objects=planes[:1]), (0, 0, 100, 5)).main is None  # a cut plane could make it one


@pytest.mark.parametrize("window", [(0, 0, 101, 100), (-1, 0, 50, 50), (20, 0, 20, 50)])
def test_a_window_outside_is_refused(window):
    with pytest.raises(ValueError, match="window"):
        truth(plain_scene(), window)


def test_description_names_nothing_that_is_not_there(window_truths):
    rng = np.random.default_rng(0)
    for _, known in window_truths:
        for _ in range(10):
            sentence = describe(known, rng)
            for label, words in WORDS.items():
                if re.search(words, sentence):
                    assert known.present[label] or (label == "building" and known.main == "built-up area"), sentence
            for label in OBJECTS:
                number = known.counts[label]
                if number != 1:
                    assert f"one {label}" not in sentence.replace(f"at least one {label}", ""), sentence


def test_description_of_themes_and_numbers():
    nothing = dict.fromkeys(LABELS, False)
    known = WindowTruth(
        present=nothing | {"ship": True, "water": True},
        counts=dict.fromkeys(OBJECTS, 0) | {"ship": 3},
        fractions=dict.fromkeys(COVERS, 0.0),
        urban=None,
        main="harbour",
        boxes=(),
    )
    assert "a harbour with" in describe(known, np.random.default_rng(0))
    assert "three ships" in describe(known, np.random.default_rng(0))
    assert set(THEMES) >= {"harbour"}
