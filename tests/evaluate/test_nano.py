from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsqa.engines.base import Replies
from rsqa.engines.cards import CARDS
from rsqa.evaluate import nano
from rsqa.evaluate.items import LABEL_QUESTIONS, Item, ItemSet, balanced, classes, label_presence, scene_presence
from rsqa.evaluate.metrics import Score
from rsqa.evaluate.nano import Report, as_text, ask, by_question, hits, score
from rsqa.evaluate.probe import probe_hits
from rsqa.tasks.question import YES_NO, Question
from rsqa.train.data import Picture
from rsqa.train.facts import Facts


class Seer:
    """Answers the yes/no question "Is it above N?" from the chip's mean, open ones with the mean, with certainty."""

    card = replace(CARDS["qwen2-vl-2b"], mass_floor=0.5)

    def prepare(self, questions, tile_shape, batch):
        return SeerSession(questions, tile_shape)


class SeerSession:
    def __init__(self, questions, shape):
        self.questions, self.shape = questions, shape

    def answer(self, chips, valid=None):
        assert chips.shape[2:] == self.shape
        means = chips.reshape(len(chips), -1).mean(axis=1)
        replies = []
        for question in self.questions:
            if not question.closed:
                replies.append(Replies(
                    text=np.array([f" {mean:.0f} " for mean in means], object),
                    token_logprob=np.zeros(len(chips), np.float32), finished=np.ones(len(chips), bool)))  # fmt: skip
                continue
            above = means > float(question.text.split()[-1].rstrip("?"))
            sure, never = np.log(0.9), np.log(0.01)
            yes = np.where(above, sure, never)
            replies.append(Replies(np.stack([yes, np.where(above, never, sure)], axis=1).astype(np.float32)))
        return replies


def chips_of(values):
    """Chips of different sizes, each filled with its value."""
    return tuple(np.full((3, 4 + i % 3, 5), value, np.uint8) for i, value in enumerate(values))


def item_set():
    values = [10, 200, 40, 160, 90, 250]
    asked = [Question(f"q{n}", f"Is it above {n}?", "yesno", YES_NO) for n in (50, 150)]
    words = Question("open", "What is it?", "open")
    items = [
        Item(i, q, "yes" if value > n else "no")
        for i, value in enumerate(values)
        for q, n in zip(asked, (50, 150), strict=True)
    ]
    items += [Item(i, words, str(value)) for i, value in enumerate(values)]
    return ItemSet("planted", chips_of(values), tuple(str(i) for i in range(6)), tuple(items[::-1]))


def test_items_get_their_own_answer_in_their_own_order():
    items = item_set()
    assert hits(items, ask(Seer(), items, items.chips)).all()
    swapped = (items.chips[3], *items.chips[1:3], items.chips[0], *items.chips[4:])
    assert not hits(items, ask(Seer(), items, swapped)).all()


def test_score_stands_beside_blind_and_constant():
    items = item_set()
    got = score(Seer(), items, items, 0.9)
    assert (got.n, got.accuracy, got.met) == (18, 1.0, True)
    assert got.no_image < 0.6
    assert got.constant < 1.0


def test_accuracy_by_question_has_the_best_first(monkeypatch):
    items = item_set()
    assert by_question(items, np.ones(18, bool)) == ()  # six items each: too few
    monkeypatch.setattr(nano, "FEWEST", 6)
    right = np.array([item.question.text == "What is it?" or item.gold == "yes" for item in items.items])
    above = {text: np.mean([i.gold == "yes" for i in items.items if i.question.text == text]) for text in (
        "Is it above 50?", "Is it above 150?")}  # fmt: skip
    assert dict(by_question(items, right)) == {"What is it?": 1.0, **above}
    assert [text for text, _ in by_question(items, right)] == ["What is it?", "Is it above 50?", "Is it above 150?"]
    alone = replace(items, items=tuple(item for item in items.items if not item.question.closed))
    assert by_question(alone, np.ones(6, bool)) == ()


def test_off_list_is_wrong():
    items = item_set()
    engine = Seer()
    engine.card = replace(engine.card, mass_floor=0.95)
    closed = np.array([item.question.closed for item in items.items])
    got = ask(engine, items, items.chips)
    assert not hits(items, got)[closed].any()
    assert hits(items, got)[~closed].all()


def test_labels_are_balanced_per_label():
    rng = np.random.default_rng(0)
    pictures = [Picture(str(i), np.zeros((3, 4, 4), np.uint8), Facts()) for i in range(100)]
    labels = {
        str(i): frozenset(label for k, label in enumerate(LABEL_QUESTIONS) if rng.random() < (k + 1) / 20)
        for i in range(100)
    }
    items = label_presence(pictures, labels).items
    names = {text: label for label, text in LABEL_QUESTIONS.items()}
    for text in LABEL_QUESTIONS.values():
        gold = [item.gold for item in items if item.question.text == text]
        assert gold.count("yes") == gold.count("no") > 0
    assert all((names[item.question.text] in labels[str(item.chip)]) == (item.gold == "yes") for item in items)
    assert len({(item.chip, item.question.text) for item in items}) == len(items)


def test_unknown_is_not_asked():
    items = balanced(
        [True, None, False, None, False], Question("q", "Is it?", "yesno", YES_NO), np.random.default_rng(0)
    )
    assert {item.chip for item in items} <= {0, 2, 4}


def test_classes_offer_the_whole_family():
    pictures = [Picture("a", np.zeros((3, 4, 4), np.uint8), Facts(name="pond", family=("river", "pond")))]
    (item,) = classes("x", pictures).items
    assert (item.question.options, item.gold) == (("river", "pond"), "pond")


def test_scene_items_are_balanced_and_the_probe_sees_only_colour():
    items = scene_presence("held-out", n_scenes=2)
    texts = [item.question.text for item in items.items]
    for text in set(texts):
        gold = [item.gold for item in items.items if item.question.text == text]
        assert gold.count("yes") == gold.count("no")
    yes = tuple(np.full((3, 8, 8), 10, np.uint8) for _ in range(4))
    no = tuple(np.full((3, 8, 8), 240, np.uint8) for _ in range(4))
    question = Question("q", "Is it dark?", "yesno", YES_NO)
    planted = ItemSet("x", yes + no, ("a",) * 8, tuple(Item(i, question, "yes" if i < 4 else "no") for i in range(8)))
    assert probe_hits(planted, planted).all()


def test_table_shows_a_missed_bar():
    missed = Score("UC Merced labels", 10, 0.5, 0.4, 0.6, 0.5, 0.5, 0.7, by_question=(("Is there a ship?", 0.25),))
    text = as_text(Report("m", (missed,), (("yesno", 0.1),)))
    assert "0.70 !" in text
    assert "yesno 0.100" in text
    assert "Is there a ship? 0.25" in text


@pytest.mark.parametrize("label", sorted(LABEL_QUESTIONS))
def test_questions_are_worded_as_people_ask(label):
    assert LABEL_QUESTIONS[label].startswith("Is there ")
