"""How much weight lies on what is asked, with weights that are known."""

from __future__ import annotations

import numpy as np
import pytest

from rsqa.engines.base import Replies
from rsqa.errors import InputError
from rsqa.evaluate.looked import block_of_all, weight_on_things
from rsqa.scenes.scene import OBJECTS
from rsqa.train.facts import Facts
from rsqa.train.pictures import Picture
from rsqa.train.words import SCENE_NOUNS

PLACES = {0: (0.1, 0.1, 0.3, 0.3), 1: (0.6, 0.1, 0.9, 0.4), 2: (0.05, 0.7, 0.2, 0.9), 3: (0.55, 0.55, 0.7, 0.7)}
"""Block -> a box in it."""


def windows(n):
    """In window i lies a thing of each sort, each in another block; the last sort also crosses into others."""
    made = []
    for i in range(n):
        nouns = [SCENE_NOUNS[label] for label in OBJECTS]
        boxes = [(noun, PLACES[(i + q) % 4]) for q, noun in enumerate(nouns[:-1])]
        boxes.append((nouns[-1], (0.4, 0.1, 0.6, 0.3)))
        made.append(Picture(f"w{i}", np.zeros((3, 28, 28), np.uint8), Facts(boxes=tuple(boxes)), whole=True))
    return made


class Looking:
    """Weights that `of` (window, question) -> (blocks,) gives; None: an engine without any."""

    def __init__(self, of):
        self.of = of

    def prepare(self, questions, tile_shape, batch):
        self.n_questions = len(questions)
        return self

    def answer(self, chips, valid=None):
        if self.of is None:
            return [Replies()] * self.n_questions
        return [
            Replies(evidence=np.array([self.of(i, q) for i in range(len(chips))], np.float32))
            for q in range(self.n_questions)
        ]


def test_a_prompt_that_listens_is_told_from_one_that_does_not():
    found = weight_on_things(Looking(lambda i, q: np.eye(4)[(i + q) % 4] * 0.7 + 0.075), windows(8))
    assert (found.n, found.chance) == (8 * 3, 0.25)
    assert (found.asked.weight, found.asked.most) == (pytest.approx(0.775), 1)
    assert found.asked.low == pytest.approx(found.asked.high)
    assert (found.shuffled.weight, found.shuffled.most) == (pytest.approx(0.075), 0)
    deaf = weight_on_things(Looking(lambda i, q: np.eye(4)[i % 4]), windows(8))
    assert deaf.asked.weight == deaf.shuffled.weight == pytest.approx(1 / 3)
    even = weight_on_things(Looking(lambda i, q: np.full(4, 0.25)), windows(8))
    assert even.asked.weight == even.shuffled.weight == even.chance


def test_things_lie_in_one_block_or_do_not_count():
    assert [block_of_all([box], 2) for box in PLACES.values()] == [0, 1, 2, 3]
    assert block_of_all([PLACES[1], (0.7, 0.2, 1.0, 0.45)], 2) == 1
    assert block_of_all([PLACES[0], PLACES[1]], 2) is None
    assert block_of_all([(0.4, 0.1, 0.6, 0.2)], 2) is None
    assert block_of_all([], 2) is None
    assert block_of_all([(0.8, 0.8, 1.0, 1.0)], 4) == 15


def test_what_can_not_be_told_is_said():
    with pytest.raises(InputError, match="weighs no blocks"):
        weight_on_things(Looking(None), windows(2))
    empty = [Picture("w", np.zeros((3, 28, 28), np.uint8), Facts(), whole=True)]
    with pytest.raises(InputError, match="no thing lies in one block"):
        weight_on_things(Looking(lambda i, q: np.full(4, 0.25)), empty)
