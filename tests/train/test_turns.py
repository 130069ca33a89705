from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rsqa.tasks.question import YES_NO
from rsqa.train import words
from rsqa.train.sft import NANO_STYLE
from rsqa.train.turns import Asker, Facts, PresenceRates, distractors, turns_of, with_article

POOL = tuple(dict.fromkeys((*words.UCM_NAMES.values(), *words.AID_NAMES.values())))


def test_presence_is_balanced_for_a_rare_and_a_frequent_noun():
    pictures = [Facts(present=frozenset({"trees"}), absent=frozenset({"ship"}))] * 90
    pictures += [Facts(present=frozenset({"ship"}), absent=frozenset({"trees"}))] * 10
    rates = PresenceRates.balanced(pictures)
    asker, rng = Asker(NANO_STYLE), np.random.default_rng(0)
    answers: Counter[tuple[bool, str]] = Counter()
    for facts in pictures * 60:
        for turn in turns_of(facts, rates, POOL, asker, True, rng):
            if turn.kind == "presence":
                about_ships = any(word in turn.suffix.lower() for word in ("ship", "boat", "vessel"))
                answers[about_ships, turn.answer] += 1
    for about_ships in (True, False):
        yes, no = answers[about_ships, "yes"], answers[about_ships, "no"]
        assert yes > 200
        assert yes / (yes + no) == pytest.approx(0.5, abs=0.06)


def test_wording_does_not_tell_the_answer():
    asker = Asker(NANO_STYLE)
    yes = [asker.presence(np.random.default_rng(i), "river", True) for i in range(50)]
    no = [asker.presence(np.random.default_rng(i), "river", False) for i in range(50)]
    assert [turn.suffix for turn in yes] == [turn.suffix for turn in no]
    assert {turn.answer for turn in yes + no} == set(YES_NO)
    assert len({turn.suffix for turn in yes}) > 20


def test_no_wrong_option_is_offered():
    """The right name appears once and no name that may also be right beside it."""
    family = tuple(words.AID_NAMES.values())
    facts = Facts(name="port", family=family)
    asker = Asker(NANO_STYLE)
    for seed in range(100):
        turn = asker.class_of_list(np.random.default_rng(seed), facts, POOL)
        assert turn.answer == "port"
        assert "port" in turn.suffix
        assert "harbor" not in turn.suffix
    assert "port" not in distractors("port", family, POOL)


def test_every_class_has_facts_and_every_fact_a_noun():
    for name in POOL:
        implied = words.IMPLIED[name]
        assert implied.present
        assert implied.present <= words.NOUNS.keys()
        assert implied.absent <= words.NOUNS.keys()
        assert not implied.present & implied.absent


def test_location_is_asked_of_upright_pictures_only():
    facts = Facts(asked_upright=(("What is the location of the car?", "left"),))
    rates, asker = PresenceRates({}), Asker(NANO_STYLE)
    seen = {upright: 0 for upright in (True, False)}
    for upright in seen:
        for seed in range(50):
            turns = turns_of(facts, rates, POOL, asker, upright, np.random.default_rng(seed))
            seen[upright] += sum(turn.answer == "left" for turn in turns)
    assert seen[True] > 5
    assert seen[False] == 0


@pytest.mark.parametrize(
    ("text", "digits"),
    [("nine", "9"), ("twenty-eight", "28"), ("Thirty", "30"), ("12", "12"), ("several", None), ("about fifty", None),
     ("i cannot see it", None), ("one two", None), ("", None), ("zero", "0")],
)  # fmt: skip
def test_number_words(text, digits):
    assert words.number_in_digits(text) == digits


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("airport", "an airport"),
        ("farmland", "farmland"),
        ("dense residential", "a dense residential area"),
        ("pond", "a pond"),
    ],
)
def test_articles(name, said):
    assert with_article(name) == said
