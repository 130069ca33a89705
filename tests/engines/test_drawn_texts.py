"""Texts that are drawn by chance, against the probabilities that transformers gives."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracle import Oracle

from rsqa.engines.cards import ModelCard
from rsqa.engines.generation import Writing
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.models.writing import Chance
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import Question
from rsqa.train.prompts import EXACT, Prompt
from rsqa.train.sampling import asked, write

CARD = ModelCard("direct", "Random", PromptStyle(system="Look."), "Apache-2.0")
QUESTIONS = ("Describe the scene.", "What else is there, beside the road?", "Name it.")
SIDES = ((56, 84), (56, 56))
BUDGET = 24


class Setting:
    def __init__(self, folder):
        checkpoint = open_checkpoint(folder)
        self.network = load_network(checkpoint, "cpu", "float32")
        self.words = Words(load_tokenizer(checkpoint), CARD)
        self.oracle = Oracle(folder, CARD)
        rng = np.random.default_rng(5)
        self.asks = [
            asked(
                Prompt(rng.integers(0, 256, (3, *SIDES[n % 2]), dtype=np.uint8), QUESTIONS[n % 3], EXACT, "x"),
                10 + n, self.words, CARD,
            )
            for n in range(5)
        ]  # fmt: skip

    def texts(self, chance, places=range(5), rows=256, budget=BUDGET):
        groups = write(self.network, self.words, [self.asks[place] for place in places], rows, budget, chance)
        return [[row.tokens for row in group] for group in groups]

    def before(self, ask):
        """The chip and its conversation as one row of tokens."""
        chip = ask.prompt.pixels
        question = Question("q", ask.prompt.question, "open")
        return chip, self.oracle.ids(self.oracle.conversation(question, self.oracle.pixels(chip)["image_grid_thw"][0]))

    def logits(self, ask, tokens=()):
        """(1 + tokens, V) of the first token and those behind `tokens`, up to a picture that the text asks for."""
        chip, before = self.before(ask)
        pictures = {self.network.config.image_token_id, self.network.config.video_token_id}
        n = next((n for n, token in enumerate(tokens) if token in pictures), len(tokens))
        self.oracle.network.model.rope_deltas = None
        with torch.no_grad():
            inputs = self.oracle.inputs(chip, [*before, *tokens[:n]])
            return self.oracle.network(**inputs).logits[0, len(before) - 1 :].double()


@pytest.fixture(scope="module")
def setting(random_folder):
    return Setting(random_folder(0))


@dataclass(frozen=True)
class Evenly:
    """Chance that leaves nothing to chance: sample k of n has the number (k + 1/2) / n throughout."""

    samples: int
    temperature: float

    def numbers(self, text, n):
        return np.full(n, (text[-1] + 0.5) / self.samples)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_numbers_that_lie_evenly_give_tokens_their_probability(setting, temperature):
    """n even numbers fall on a stretch of length p in n p places, one more or less; tokens after the first, too."""
    n = 1000
    (texts,) = setting.texts(Evenly(n, temperature), places=[0], rows=n, budget=1)
    found = np.bincount([tokens[0] for tokens in texts], minlength=setting.network.lm_head.out_features)
    expected = n * (setting.logits(setting.asks[0])[0] / temperature).softmax(dim=-1).numpy()
    assert np.abs(found - expected).max() <= 1.01
    assert (found > 0).sum() > 20


def test_what_is_drawn_has_the_distribution_of_the_model(setting):
    """Chi-square of first tokens by a fixed seed; the rare ones count as one."""
    n = 3000
    (texts,) = setting.texts(Chance((1,), n), places=[1], rows=n, budget=1)
    p = setting.logits(setting.asks[1])[0].softmax(dim=-1).numpy()
    found = np.bincount([tokens[0] for tokens in texts], minlength=len(p))
    often = n * p >= 8
    observed = np.append(found[often], found[~often].sum())
    expected = n * np.append(p[often], p[~often].sum())
    freedom = len(expected) - 1
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert freedom > 20
    assert abs(chi_square - freedom) < 3.5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_each_text_has_the_log_probability_that_transformers_gives_it(setting, temperature):
    """Teacher-forced; a random network may draw the token of a picture, which transformers takes for one."""
    groups = write(setting.network, setting.words, setting.asks[:3], 5, BUDGET, Chance((0, 4), 4, temperature))
    compared = 0
    for ask, rows in zip(setting.asks, groups, strict=False):
        for row in rows:
            steps = (setting.logits(ask, row.tokens) / temperature).log_softmax(dim=-1)
            if len(steps) > len(row.tokens):
                expected = steps[torch.arange(len(row.tokens)), torch.tensor(row.tokens)].sum()
                assert row.logprob == pytest.approx(float(expected), abs=2e-4)
                compared += 1
    assert compared >= 8


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("rows", [3, 7, 256])
def test_a_text_does_not_depend_on_what_is_written_beside_it(setting, monkeypatch, rows, on_gpu):
    """Fewer places than texts, looks every eighth token, prompts alone and in another order."""
    chance = Chance((7,), 4)
    expected = [setting.texts(chance, places=[place])[0] for place in range(5)]
    assert len({tuple(tokens) for group in expected for tokens in group}) == 20
    monkeypatch.setattr("rsqa.models.writing.ROOM", 4)
    begin = Writing.__init__

    def begun(self, *arguments, **wanted):
        begin(self, *arguments, **wanted)
        self._on_gpu = on_gpu

    monkeypatch.setattr(Writing, "__init__", begun)
    assert setting.texts(chance, rows=rows) == expected
    assert setting.texts(chance, places=[4, 2, 0], rows=rows) == [expected[4], expected[2], expected[0]]


def test_more_samples_leave_the_first_ones_as_they_are(setting):
    few, many = (setting.texts(Chance((7,), k)) for k in (2, 5))
    assert [group[:2] for group in many] == few
    assert setting.texts(Chance((8,), 2)) != few


def test_an_end_stands_only_at_the_end(setting):
    groups = write(setting.network, setting.words, setting.asks, 64, 400, Chance((3,), 4))
    rows = [row for group in groups for row in group]
    for row in rows:
        assert not setting.words.stops.intersection(row.tokens[:-1])
        assert row.finished == (row.tokens[-1] in setting.words.stops)
    assert any(row.finished for row in rows)


def test_without_chance_the_likeliest_is_written(setting):
    compared = 0
    for ask, (tokens,) in zip(setting.asks, setting.texts(None, rows=2), strict=True):
        likeliest = setting.logits(ask, tokens).argmax(dim=-1).tolist()
        assert tokens[: len(likeliest)] == likeliest[: len(tokens)]
        compared += len(likeliest)
    assert compared > 20


def test_nothing_asked_nothing_written(setting):
    assert setting.texts(Chance((0,), 2), places=[]) == []
