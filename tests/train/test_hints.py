from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rsqa.tasks.boxes import format_boxes
from rsqa.train import words
from rsqa.train.data import CLASS_NAMES, CaptionWords, by_token, hints
from rsqa.train.facts import Facts
from rsqa.train.forward import Seen
from rsqa.train.hints import TENS, Hints, _digits, _shared, _stands
from rsqa.train.packing import IGNORE
from rsqa.train.pictures import CELLS_PER_TOKEN

DIM = 64
PLACE = 5
"""The visual token that says something."""
GRID = 4
"""Visual tokens along a side."""
SAID = CaptionWords([("a boat on the river",)] * 20 + [("a field",)] * 40)
UNKNOWN = torch.zeros((GRID * CELLS_PER_TOKEN, GRID * CELLS_PER_TOKEN, len(words.GROUND)), dtype=torch.uint8)


def covered_by(kind):
    """Ground of one kind all over."""
    ground = UNKNOWN.clone()
    ground[..., words.GROUND.index(kind)] = 255
    return ground


def seen(visual, halfway=None):
    return Seen(visual, visual[:0] if halfway is None else halfway)


class WholeWords:
    """A tokenizer with one id for each text it is shown."""

    def __init__(self):
        self.ids = {}

    def __call__(self, text):
        return [self.ids.setdefault(text, len(self.ids))]


@pytest.fixture
def planted():
    """-> hints, word vectors, and the id of each text."""
    tokenizer = WholeWords()
    torch.manual_seed(0)
    module = Hints(DIM, 400, tokenizer, len(SAID))
    return module, torch.randn(400, DIM), tokenizer.ids


def visual_of(vectors, ids, name):
    """One picture of 16 visual tokens, one of which points to a name."""
    visual = 0.1 * torch.randn(1, 16, DIM, generator=torch.Generator().manual_seed(1))
    visual[0, PLACE] = 3 * vectors[ids[f" {name}"]]
    return visual


def test_a_token_that_points_to_a_name_says_its_noun_and_no_other(planted):
    module, vectors, ids = planted
    named = module(seen(visual_of(vectors, ids, "river")), vectors).somewhere
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
    read = module(seen(visual), vectors)
    right = hints([Facts(present=frozenset({"river"}), absent=frozenset({"ship"}), name="river")], [UNKNOWN], SAID)
    wrong = hints([Facts(present=frozenset({"ship"}), absent=frozenset({"river"}), name="port")], [UNKNOWN], SAID)
    assert module.loss(read, right).item() < module.loss(read, wrong).item()


def test_the_right_place_costs_less_than_a_wrong_one(planted):
    """Of 16 scenes with one ship on water, that whose ship lies where the token says it costs least."""
    module, vectors, ids = planted
    torch.nn.init.zeros_(module.ground.weight)  # the map says the same of all places
    read = module(seen(visual_of(vectors, ids, "ship")), vectors)
    costs = []
    for place in range(GRID**2):
        ground = covered_by("water")
        row, col = (CELLS_PER_TOKEN * at for at in divmod(place, GRID))
        ground[row : row + 2, col : col + 2] = covered_by("ship")[:2, :2]
        costs.append(module.loss(read, hints([Facts()], [ground], SAID)).item())
    assert int(np.argmin(costs)) == PLACE


def test_the_ground_of_a_token_is_learned_from_it_alone(planted):
    """A linear reading can be set so that token t says kind t % K in all its cells; then that map costs nothing."""
    module, vectors, _ = planted
    kinds = torch.arange(GRID**2) % len(words.GROUND)
    visual = torch.eye(DIM)[kinds][None]
    with torch.no_grad():
        module.ground.bias.zero_()
        module.ground.weight.zero_()
        weight = module.ground.weight.unflatten(0, (CELLS_PER_TOKEN**2, len(words.GROUND)))
        for kind in range(len(words.GROUND)):
            weight[:, kind, kind] = 50.0
    read = module(seen(visual), vectors).ground
    map_of_kinds = torch.nn.functional.one_hot(kinds.reshape(GRID, GRID), len(words.GROUND))
    ground = map_of_kinds.repeat_interleave(CELLS_PER_TOKEN, 0).repeat_interleave(CELLS_PER_TOKEN, 1)
    told = by_token((255 * ground).to(torch.uint8)[None])
    assert _shared(read, told).item() < 1e-3
    assert _shared(read, told.roll(1, dims=1)).item() > 10


def test_too_little_of_a_kind_is_unknown_and_none_of_it_absent():
    ground = covered_by("grass")
    tank = words.GROUND.index("storage tank")
    ground[0, 0, tank] = 128  # half a cell of sixteen: 3 %
    ground[0, CELLS_PER_TOKEN, tank] = 255  # a whole one: 6 %
    stands = _stands(by_token(ground[None]))[0, :, tank].tolist()
    assert stands[:3] == [-1.0, 1.0, 0.0]
    assert (_stands(by_token(UNKNOWN[None])) == -1).all()


def test_unknown_does_not_count(planted):
    module, vectors, _ = planted
    visual = torch.randn(2, 16, DIM, requires_grad=True)
    known = hints([Facts(present=frozenset({"river"}), name="river"), Facts()], [UNKNOWN, UNKNOWN], SAID)
    module.loss(module(seen(visual), vectors), known).backward()
    assert visual.grad[0].abs().sum() > 0
    assert visual.grad[1].abs().sum() == 0
    assert known.scene.tolist() == [CLASS_NAMES.index("river"), IGNORE]


def test_things_and_their_sides_are_read_from_the_token_that_holds_their_middle(planted):
    """Of 16 places of one ship, that where the token says it costs least; so does its size."""
    module, vectors, _ = planted
    visual = torch.zeros(1, GRID**2, DIM)
    with torch.no_grad():
        module.things.weight.zero_()
        module.things.bias.copy_(torch.tensor([-9.0, 0, 0, 0, 0] * len(words.BOXED)))
        ship = 5 * words.BOXED.index("ship")
        module.things.weight[ship, 0] = 18.0
        module.things.weight[ship + 1 : ship + 5, 0] = torch.tensor([-0.25, -0.5, 0.25, 0.5])
    visual[0, PLACE, 0] = 1.0
    read = module(seen(visual), vectors)

    def cost(row, col, half):
        x, y = (col + 0.5) / GRID, (row + 0.5) / GRID
        box = (x - half / GRID, y - 2 * half / GRID, x + half / GRID, y + 2 * half / GRID)
        facts = Facts(boxes=(("ship", box),), boxed=frozenset(words.BOXED))
        return module.loss(read, hints([facts], [UNKNOWN], SAID)).item()

    places = [cost(*divmod(place, GRID), 0.25) for place in range(GRID**2)]
    assert int(np.argmin(places)) == PLACE
    sizes = [cost(*divmod(PLACE, GRID), half) for half in (0.1, 0.25, 0.4)]
    assert int(np.argmin(sizes)) == 1


def test_words_of_captions_that_tell_pictures_apart():
    assert SAID.words == ("boat", "on", "river", "the")
    assert SAID.targets(("a river",)).tolist() == [0, 0, 1, 0]
    assert SAID.targets(()).tolist() == [-1] * 4


def test_sides_in_digits_are_those_that_are_written(planted):
    """A reading set by hand to the written box costs nothing; other boxes cost more, most where a digit is wrong."""
    module, vectors, _ = planted
    box = (0.31, 0.07, 0.62, 0.4)
    written = [int(v) // 10 for v in re.findall(r"\d+", format_boxes([box], 10))]
    row, col = int((box[1] + box[3]) / 2 * GRID), int((box[0] + box[2]) / 2 * GRID)
    halfway = torch.zeros(1, GRID**2, DIM)
    halfway[0, row * GRID + col, 0] = 1.0
    with torch.no_grad():
        module.digits.bias.zero_()
        module.digits.weight.zero_()
        weight = module.digits.weight.unflatten(0, (len(words.BOXED), 4, TENS + 1))
        for side, hundredths in enumerate(written):
            weight[words.BOXED.index("ship"), side, hundredths // 10, 0] = 50.0
            weight[words.BOXED.index("ship"), side, TENS, 0] = hundredths / 10
    read = module(seen(torch.zeros(1, GRID**2, DIM), halfway), vectors).digits

    def cost(where):
        known = hints([Facts(boxes=(("ship", where),), boxed=frozenset({"ship"}))], [UNKNOWN], SAID)
        return _digits(read, known.boxes, known.things == 1).item()

    assert cost(box) < 1e-5
    assert 0.001 < cost((0.31, 0.07, 0.62, 0.41)) < cost((0.31, 0.07, 0.62, 0.42)) < 1
    assert cost((0.31, 0.07, 0.62, 0.39)) > 5
