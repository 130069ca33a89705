import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import InputError, ModelError
from rsqa.train.prompts import BOX, EXACT, OPEN, Prompt
from rsqa.train.rewards import (
    REWARDS,
    box_reward,
    equal_as_published,
    equal_strictly,
    format_reward,
    gated_reward,
    is_right,
    load_judge,
    paper_reward,
)

PIXELS = np.zeros((3, 28, 28), np.uint8)
RURAL = Prompt(PIXELS, "Rural or urban?", EXACT, "rural")
SHIP = Prompt(PIXELS, "the ship", BOX, "[[100,100,300,300]]")
ASKED = Prompt(PIXELS, "What is special?", OPEN, "")


def reply(answer):
    return f"<reasoning>I look.</reasoning><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (reply("rural"), 1.0),
        ("<reasoning>a\nb</reasoning>\n \n<answer>c\nd</answer> and more", 1.0),
        ("<reasoning></reasoning><answer></answer>", 1.0),
        (" " + reply("rural"), 0.0),  # anchored at the start
        ("rural", 0.0),
        ("<reasoning>a<answer>b</answer>", 0.0),
        ("<reasoning>a</reasoning><answer>b", 0.0),
        ("<reasoning>a</reasoning> so <answer>b</answer>", 0.0),
        ("<answer>b</answer><reasoning>a</reasoning>", 0.0),
        ("", 0.0),
    ],
)
def test_format(text, reward):
    assert format_reward(text) == reward


@pytest.mark.parametrize(
    ("student", "truth", "published", "strict"),
    [
        ("rural", "rural", True, True),
        ("Rural.", "rural", True, True),
        ("r.ural", "rural", True, False),  # every full stop is deleted
        ("'rural'!", "rural", False, True),
        ("rural", "rural area", False, False),
        ("no", "north", False, False),  # no sub-strings
        ("", "rural", False, False),
    ],
)
def test_comparisons(student, truth, published, strict):
    assert equal_as_published(student, truth) == published
    assert equal_strictly(student, truth) == strict


@pytest.mark.parametrize(
    ("text", "paper", "gated"),
    [
        (reply("rural"), 2.0, 2.2),
        (reply("urban"), 1.0, 0.2),
        ("rural", 1.0, 0.0),  # the paper takes the whole text for the answer, the gate is shut
        ("<answer>rural</answer>", 1.0, 0.0),
        ("urban", 0.0, 0.0),
    ],
)
def test_weights_of_answers(text, paper, gated):
    assert paper_reward(text, RURAL).total == pytest.approx(paper)
    assert gated_reward(text, RURAL).total == pytest.approx(gated)


@pytest.mark.parametrize(
    ("box", "overlap"),
    [
        ("[[100,100,300,300]]", 1.0),
        ("[100, 100, 300, 300]", 1.0),
        ("[[100,100,300,200]]", 0.5),
        ("[[200,100,400,300]]", 1 / 3),
        ("[[500,500,900,900]]", 0.0),  # the published code gives 1: it compares the box with itself
        ("[[300,300,100,100]]", 0.0),
        ("no box", 0.0),
        ("", 0.0),
    ],
)
def test_boxes_are_compared_with_the_truth(box, overlap):
    assert box_reward(box, SHIP.answer) == pytest.approx(overlap)
    assert paper_reward(reply(box), SHIP).total == pytest.approx(1 + overlap)
    assert gated_reward(reply(box), SHIP).total == pytest.approx(overlap + (overlap >= 0.5))
    assert is_right(reply(box), SHIP) == (overlap >= 0.5)


def test_the_answer_is_that_of_inference():
    """The first closed answer counts, and an evaluation takes nothing from outside the tags."""
    assert is_right(reply("rural") + "<answer>urban</answer>", RURAL)
    assert not is_right("<answer>urban</answer>" + reply("rural"), RURAL)
    assert not is_right("rural", RURAL)
    assert not is_right("<reasoning>rural", RURAL)


def test_a_judge_scores_open_answers():
    heard = []

    def judge(prompt, answer):
        heard.append((prompt.question, answer))
        return 0.7

    assert paper_reward(reply("a pier"), ASKED, judge).total == pytest.approx(1.7)
    assert gated_reward(reply("a pier"), ASKED, judge).total == pytest.approx(1.6)
    assert heard == [("What is special?", "a pier")] * 2
    assert gated_reward("a pier", ASKED, judge).total == 0  # and nobody is asked
    assert len(heard) == 2


def broken(prompt, answer):
    raise ConnectionError("no judge today")


@pytest.mark.parametrize("judge", [None, broken, lambda p, a: "good", lambda p, a: math.nan, lambda p, a: 7])
@pytest.mark.parametrize("reward", REWARDS.values())
def test_a_judge_that_fails_gives_no_reward(judge, reward):
    assert math.isnan(reward(reply("a pier"), ASKED, judge).total)


@pytest.mark.parametrize("spec", ["math", "math:nothing", "no.such.module:f", ":", ""])
def test_a_judge_that_is_not_there(spec):
    with pytest.raises(ModelError, match=r"package\.module:function"):
        load_judge(spec)


def test_a_judge_is_found():
    assert load_judge("math:hypot") is math.hypot


@given(st.text(alphabet="<>/answerioug []0,9. \n", max_size=60), st.sampled_from([RURAL, SHIP]))
def test_rewards_are_total(text, prompt):
    assert 0 <= paper_reward(text, prompt).total <= 2
    assert 0 <= gated_reward(text, prompt).total <= 2.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_type": "3"}, "give 0, 1 or 2"),
        ({"answer_type": BOX, "answer": "there"}, r"\[\[x1,y1,x2,y2\]\]"),
        ({"answer": " "}, "empty answer"),
    ],
)
def test_a_prompt_without_truth_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(RURAL, **change)
