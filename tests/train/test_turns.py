from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rsqa.tasks import schemes
from rsqa.tasks.boxes import parse_boxes
from rsqa.tasks.detect import all_of
from rsqa.tasks.prompts import suffix_text
from rsqa.tasks.question import YES_NO
from rsqa.train import turns as making
from rsqa.train import words
from rsqa.train.facts import Facts, place_of
from rsqa.train.nano import NANO_STYLE
from rsqa.train.turns import PresenceRates, TurnShares, class_of_list, distractors, presence, turns_of, with_article

POOL = tuple(dict.fromkeys((*schemes.UCM_NAMES.values(), *schemes.AID_NAMES.values())))


def test_presence_is_balanced_for_a_rare_and_a_frequent_noun():
    pictures = [Facts(present=frozenset({"trees"}), absent=frozenset({"ship"}))] * 90
    pictures += [Facts(present=frozenset({"ship"}), absent=frozenset({"trees"}))] * 10
    rates = PresenceRates.balanced(pictures)
    rng = np.random.default_rng(0)
    answers: Counter[tuple[bool, str]] = Counter()
    for facts in pictures * 60:
        for turn in turns_of(facts, rates, POOL, True, rng):
            if turn.kind == "presence":
                about_ships = any(word in turn.question.text.lower() for word in ("ship", "boat", "vessel"))
                answers[about_ships, turn.answer] += 1
    for about_ships in (True, False):
        yes, no = answers[about_ships, "yes"], answers[about_ships, "no"]
        assert yes > 200
        assert yes / (yes + no) == pytest.approx(0.5, abs=0.06)


def test_wording_does_not_tell_the_answer():
    yes = [presence(np.random.default_rng(i), "river", True, Facts()) for i in range(50)]
    no = [presence(np.random.default_rng(i), "river", False, Facts()) for i in range(50)]
    assert [suffix_text(turn.question, NANO_STYLE) for turn in yes] == [
        suffix_text(turn.question, NANO_STYLE) for turn in no
    ]
    assert {turn.answer for turn in yes + no} == set(YES_NO)
    assert len({suffix_text(turn.question, NANO_STYLE) for turn in yes}) > 20


def test_no_wrong_option_is_offered():
    """The right name appears once and no name that may also be right beside it."""
    family = tuple(schemes.AID_NAMES.values())
    facts = Facts(name="port", family=family)
    for seed in range(100):
        turn = class_of_list(np.random.default_rng(seed), facts, POOL)
        assert turn.answer == "port"
        assert "port" in suffix_text(turn.question, NANO_STYLE)
        assert "harbor" not in suffix_text(turn.question, NANO_STYLE)
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
    rates = PresenceRates({})
    seen = {upright: 0 for upright in (True, False)}
    for upright in seen:
        for seed in range(50):
            turns = turns_of(facts, rates, POOL, upright, np.random.default_rng(seed))
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


SHIPS = (("ship", (0.05, 0.1, 0.25, 0.2)), ("ship", (0.4, 0.4, 0.9, 0.6)), ("airplane", (0.7, 0.7, 0.8, 0.9)))
SEEN = Facts(boxes=SHIPS, boxed=frozenset({"ship", "airplane", "tanks"}))


def test_words_that_refer_mean_exactly_one_thing():
    phrases = set()
    for seed in range(200):
        phrase, box = making.referred(np.random.default_rng(seed), SEEN)
        phrases.add(phrase)
        kind = "airplane" if any(word in phrase for word in ("plane", "aircraft")) else "ship"
        meant = SEEN.of(kind)
        if "largest" in phrase:
            meant = [max(meant, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))]
        elif " the " in phrase:
            meant = [b for b in meant if phrase.endswith(f" the {place_of(b)}")]
        assert meant == [box], phrase
    assert len(phrases) > 10


def test_boxes_are_written_as_they_are_read():
    for seed in range(50):
        turn = making.box(np.random.default_rng(seed), SEEN)
        (read,) = parse_boxes(turn.answer)
        assert any(np.allclose(read, box, atol=0.0051) for _, box in SHIPS)
        every = making.every_box(np.random.default_rng(seed), SEEN)
        assert every.answer == "[]" or len(parse_boxes(every.answer)) == every.answer.count("[") - 1


def test_detection_asks_as_training_does():
    asked = {making.every_box(np.random.default_rng(seed), SEEN).question.text for seed in range(100)}
    assert {all_of("ship", "many"), all_of("airplane", "many")} <= asked


def test_what_is_not_there_is_counted_too():
    """Of SEEN's nouns tanks are not there; a noun of which not every thing is known is never asked for."""
    facts = replace(SEEN, counts={"ship": 2, "airplane": 1}, absent=frozenset({"cars"}))
    turns = [making.count(np.random.default_rng(seed), facts) for seed in range(300)]
    zeros = [turn for turn in turns if turn.answer == "0"]
    assert all("tank" in turn.question.text and turn.trace.endswith(" none. together 0.") for turn in zeros)
    assert 60 < len(zeros) < 140
    assert not any("tank" in turn.question.text for turn in turns if turn.answer != "0")
    alone = [making.count(np.random.default_rng(seed), replace(facts, counts={})) for seed in range(300)]
    assert 10 < sum(turn is not None for turn in alone) < 60
    assert making.count(np.random.default_rng(0), Facts(absent=frozenset({"cars"}))) is None


def test_shares_of_zero_ask_nothing():
    nothing = TurnShares(**dict.fromkeys(TurnShares.__slots__, 0.0))
    facts = Facts(
        present=frozenset({"ship"}), name="port", family=("port", "forest"), captions=("a port.",), urban=True
    )
    rates = PresenceRates({("ship", True): 1.0})
    assert turns_of(facts, rates, POOL, True, np.random.default_rng(0), nothing) == []
