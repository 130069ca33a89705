from __future__ import annotations

import numpy as np
import pytest
import torch

from rsqa.train import words
from rsqa.train.data import CLASS_NAMES, IGNORE, hints
from rsqa.train.hints import Hints
from rsqa.train.turns import Facts

DIM = 64
PLACE = 5
"""The visual token that says something."""
UNKNOWN = torch.full((16, len(words.SCENE_NOUNS)), -1, dtype=torch.int8)


class WholeWords:
    """A tokenizer with one id for each text it is shown."""

    def __init__(self):
        self.ids = {}

    def encode(self, text, add_special_tokens):
        return [self.ids.setdefault(text, len(self.ids))]


@pytest.fixture
def planted():
    """-> hints, word vectors, and the id of each text."""
    tokenizer = WholeWords()
    torch.manual_seed(0)
    module = Hints(DIM, 400, tokenizer)
    return module, torch.randn(400, DIM), tokenizer.ids


def visual_of(vectors, ids, name):
    """One picture of 16 visual tokens, one of which points to a name."""
    visual = 0.1 * torch.randn(1, 16, DIM, generator=torch.Generator().manual_seed(1))
    visual[0, PLACE] = 3 * vectors[ids[f" {name}"]]
    return visual


def test_a_token_that_points_to_a_name_says_its_noun_and_no_other(planted):
    module, vectors, ids = planted
    named = module(visual_of(vectors, ids, "river"), vectors)[3]
    nouns = list(words.NOUNS)
    says = {
        nouns[int(module.noun_of[m])]: named[0, m].item() for m in named[0].argsort()
    }  # the strongest name of a noun
    assert max(says, key=lambda noun: says[noun]) == "river"
    assert says["river"] > 3
    assert max(value for noun, value in says.items() if noun != "river") < 2


def test_the_truth_costs_less_than_its_opposite(planted):
    module, vectors, ids = planted
    visual = visual_of(vectors, ids, "river")
    read = module(visual, vectors)
    right = hints([Facts(present=frozenset({"river"}), absent=frozenset({"ship"}), name="river")], [UNKNOWN])
    wrong = hints([Facts(present=frozenset({"ship"}), absent=frozenset({"river"}), name="port")], [UNKNOWN])
    assert module.loss(read, right).item() < module.loss(read, wrong).item()


def test_the_right_cell_costs_less_than_a_wrong_one(planted):
    module, vectors, ids = planted
    read = module(visual_of(vectors, ids, "ship"), vectors)
    costs = []
    for cell in range(16):
        cells = torch.zeros(16, len(words.SCENE_NOUNS), dtype=torch.int8)
        cells[cell, list(words.SCENE_NOUNS).index("ship")] = 1
        costs.append(module.loss(read, hints([Facts()], [cells])).item())
    assert int(np.argmin(costs)) == PLACE


def test_unknown_does_not_count(planted):
    module, vectors, _ = planted
    visual = torch.randn(2, 16, DIM, requires_grad=True)
    known = hints([Facts(present=frozenset({"river"}), name="river"), Facts()], [UNKNOWN, UNKNOWN])
    module.loss(module(visual, vectors), known).backward()
    assert visual.grad[0].abs().sum() > 0
    assert visual.grad[1].abs().sum() == 0
    assert known.scene.tolist() == [CLASS_NAMES.index("river"), IGNORE]
