from __future__ import annotations

import pytest
import torch

from rsqa.train import words
from rsqa.train.data import CLASS_NAMES, IGNORE, hints
from rsqa.train.hints import Hints
from rsqa.train.turns import Facts

DIM = 64


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
    visual[0, 5] = 3 * vectors[ids[f" {name}"]]
    return visual


def test_a_token_that_points_to_a_name_says_its_noun_and_no_other(planted):
    module, vectors, ids = planted
    _, named, _ = module(visual_of(vectors, ids, "river"), vectors)
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
    right = hints([Facts(present=frozenset({"river"}), absent=frozenset({"ship"}), name="river")])
    wrong = hints([Facts(present=frozenset({"ship"}), absent=frozenset({"river"}), name="port")])
    assert module.loss(read, *right).item() < module.loss(read, *wrong).item()


def test_unknown_does_not_count(planted):
    module, vectors, _ = planted
    visual = torch.randn(2, 16, DIM, requires_grad=True)
    nouns, scene = hints([Facts(present=frozenset({"river"}), name="river"), Facts()])
    module.loss(module(visual, vectors), nouns, scene).backward()
    assert visual.grad[0].abs().sum() > 0
    assert visual.grad[1].abs().sum() == 0
    assert scene.tolist() == [CLASS_NAMES.index("river"), IGNORE]
