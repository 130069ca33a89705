from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsqa.tasks.parse import NOT_FINITE, answers, parse_choice, split_reasoning
from rsqa.tasks.question import Question

WATER = Question("water", "Is there water?", "yesno", ("yes", "no"))
SCENE = Question("scene", "Which is it?", "choice", ("farmland", "forest", "city"))
WORDS = Question("words", "Describe the scene.", "open")


def said(option_logprob=None, text=None, token_logprob=None, finished=None):
    column = None
    if text is not None:
        column = np.empty(len(text), object)
        column[:] = text
    return SimpleNamespace(
        option_logprob=None if option_logprob is None else np.array(option_logprob, np.float32),
        text=column,
        token_logprob=None if token_logprob is None else np.array(token_logprob, np.float32),
        finished=None if finished is None else np.array(finished, bool),
    )


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<reasoning>a lake</reasoning><answer>yes</answer>", "a lake", "yes"),
        ("<reasoning> a lake </reasoning>\n<answer>\n yes\n</answer>\n", "a lake", "yes"),
        ("<reasoning>a lake</reasoning><answer>", "a lake", None),
        ("<reasoning>a lake</reasoning><answer>yes", "a lake", None),
        ("<reasoning>a la", "a la", None),
        ("a lake <answer>yes</answer>", "a lake", "yes"),
        ("<answer>yes</answer><answer>no</answer>", None, "yes"),
        ("<answer></answer>", None, ""),
        ("yes", "yes", None),
        ("</answer>yes<answer>", "yes", None),
        ("", None, None),
    ],
)
def test_split_reasoning(text, thought, answer):
    assert split_reasoning(text) == (thought, answer)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("forest", "forest"),
        (" Forest.\n", "forest"),
        ('"CITY"', "city"),
        ("the forest", None),
        ("forest or city", None),
        ("for", None),
        ("forests", None),
        ("", None),
        ("...", None),
    ],
)
def test_parse_choice(text, option):
    assert parse_choice(text, SCENE.options) == option


def test_parse_choice_of_several_words():
    assert parse_choice("More  than 100", ("1", "more than 100")) == "more than 100"


@pytest.mark.parametrize(
    ("probabilities", "status", "value", "confidence", "mass"),
    [
        ([0.6, 0.2, 0.1], "ok", "farmland", 2 / 3, 0.9),
        ([0.1, 0.1, 0.8], "ok", "city", 0.8, 1.0),
        ([0.02, 0.01, 0.01], "off_list", None, np.nan, 0.04),
        ([0.0, 0.0, 0.0], "off_list", None, np.nan, 0.0),
        ([np.nan, 0.5, 0.5], "error", None, np.nan, np.nan),
        ([np.inf, 0.5, 0.5], "error", None, np.nan, np.nan),
    ],
)
def test_closed(probabilities, status, value, confidence, mass):
    with np.errstate(divide="ignore"):
        got = answers(SCENE, said(np.log([probabilities])), mass_floor=0.05)
    assert got.status.tolist() == [status]
    assert got.value.tolist() == [value]
    np.testing.assert_allclose(got.confidence, [confidence], rtol=1e-5)
    np.testing.assert_allclose(got.option_mass, [mass], rtol=1e-5)
    assert got.error.tolist() == [NOT_FINITE if status == "error" else None]
    assert got.text is None
    assert got.reasoning is None


def test_not_a_number_is_never_an_answer():
    got = answers(WATER, said(np.full((3, 2), np.nan)))
    assert got.value.tolist() == [None] * 3
    assert got.status.tolist() == ["error"] * 3


def test_temperature_flattens_without_changing_the_value():
    logs = np.log([[0.8, 0.15, 0.05]])
    plain, flat = answers(SCENE, said(logs)), answers(SCENE, said(logs), temperature=2.0)
    expected = np.sqrt([0.8, 0.15, 0.05])
    np.testing.assert_allclose(flat.probabilities[0], expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(flat.option_mass, plain.option_mass)
    assert flat.value[0] == plain.value[0] == "farmland"
    assert flat.confidence[0] < plain.confidence[0]


@pytest.mark.parametrize(
    ("logs", "text", "finished", "status", "value", "thought"),
    [
        ([-0.1, -3.0], "<reasoning>a lake</reasoning><answer>", True, "ok", "yes", "a lake"),
        ([np.nan, np.nan], "<reasoning>a lake, no, a", False, "truncated", None, "a lake, no, a"),
        ([np.nan, np.nan], "yes", True, "unparsed", None, "yes"),
        ([np.nan, np.nan], "<reasoning>a</reasoning><answer>", True, "error", None, "a"),
        ([-9.0, -9.0], "<reasoning>a</reasoning><answer>", True, "off_list", None, "a"),
    ],
)
def test_closed_after_reasoning(logs, text, finished, status, value, thought):
    got = answers(WATER, said([logs], [text], [-0.5], [finished]), mass_floor=0.05, reasoning=True)
    assert (got.status[0], got.value[0], got.reasoning[0]) == (status, value, thought)
    assert np.isnan(got.confidence[0])  # one chain of reasoning tells nothing about how sure it is


@pytest.mark.parametrize(
    ("text", "finished", "logprob", "status", "value"),
    [
        (" A lake.\n", True, -0.5, "ok", "A lake."),
        ("A la", False, -0.5, "truncated", None),
        ("  \n", True, -0.5, "unparsed", None),
        ("A lake.", True, np.nan, "error", None),
    ],
)
def test_open(text, finished, logprob, status, value):
    got = answers(WORDS, said(None, [text], [logprob], [finished]))
    assert (got.status[0], got.value[0], got.text[0]) == (status, value, text)
    assert np.isnan(got.confidence[0])
    assert got.option_mass is None
    assert got.probabilities is None
    assert got.reasoning is None


@pytest.mark.parametrize(
    ("text", "finished", "status", "value"),
    [
        ("<reasoning>a</reasoning><answer>A lake.</answer>", True, "ok", "A lake."),
        ("<reasoning>a</reasoning><answer>A lake.</answer> and", False, "ok", "A lake."),
        ("<reasoning>a</reasoning><answer>A la", False, "truncated", None),
        ("<reasoning>a</reasoning><answer>A la", True, "unparsed", None),
        ("A lake.", True, "unparsed", None),
    ],
)
def test_open_after_reasoning(text, finished, status, value):
    got = answers(WORDS, said(None, [text], [-0.5], [finished]), reasoning=True)
    assert (got.status[0], got.value[0]) == (status, value)


@pytest.mark.parametrize("question", [WATER, WORDS])
@pytest.mark.parametrize("reasoning", [True, False])
def test_no_tiles(question, reasoning):
    got = answers(question, said(np.zeros((0, 2)), [], [], []), reasoning=reasoning)
    assert len(got.status) == len(got.value) == len(got.confidence) == 0


@given(
    st.lists(st.text() | st.sampled_from(["<answer>", "</answer>", "<reasoning>", "yes", "</reasoning>"])),
    st.booleans(),
)
def test_any_text_is_read(pieces, reasoning):
    text = "".join(pieces)
    got = answers(WORDS, said(None, [text], [-1.0], [True]), reasoning=reasoning)
    assert (got.value[0] is not None) == (got.status[0] == "ok")
    thought, answer = split_reasoning(text)
    assert thought is None or thought in text or "<" in text
    assert answer is None or answer in text
    assert parse_choice(text, WATER.options) in ("yes", "no", None)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(3)), elements=st.floats(width=32)),
    st.booleans(),
    st.floats(0, 1),
    st.floats(0.1, 10),
)
def test_any_numbers_are_read(logs, reasoning, floor, temperature):
    replies = said(logs, ["<answer>"] * len(logs), [-1.0] * len(logs), [True] * len(logs))
    got = answers(SCENE, replies, mass_floor=floor, temperature=temperature, reasoning=reasoning)
    ok = got.status == "ok"
    assert set(got.status) <= {"ok", "off_list", "error"}
    assert all((value in SCENE.options) == fine for value, fine in zip(got.value, ok, strict=True))
    assert np.isfinite(logs[ok].max(axis=1)).all() if ok.any() else True
    assert np.isnan(got.confidence[~ok]).all()
    np.testing.assert_allclose(got.probabilities[ok].sum(axis=1), 1, rtol=1e-5)
