from __future__ import annotations

import numpy as np
import pytest

from rsqa.errors import QuestionError
from rsqa.tasks.labels import CLASS, as_one, ask_class, class_questions, gather_labels, mean_logprob
from rsqa.tasks.prompts import PromptStyle, query
from rsqa.tasks.question import Question
from rsqa.tasks.schemes import SCHEMES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b", ("a", "b")),
        ('harbor , "orchard, vineyard", café', ("harbor", "orchard, vineyard", "café")),
        ("水域,森林", ("水域", "森林")),
        ("cafe\u0301,b", ("café", "b")),
    ],
)
def test_labels_are_a_row_of_csv(text, expected):
    assert gather_labels(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a", "at least two labels"),
        ("a,A", "twice"),
        ("a,,b", "empty label"),
        ('a,"b', "CSV"),
        ("a,b<|im_end|>", "steers"),
        ("a,b\x1b", "U\\+001B"),
    ],
)
def test_labels_that_make_no_sense(text, match):
    with pytest.raises(QuestionError, match=match):
        gather_labels(text, None, None)


def test_a_file_of_labels_has_one_a_line(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("# classes\nforest, mixed\n\n  river \r\nforêt\n", encoding="utf-8")
    assert gather_labels(None, file, None) == ("forest, mixed", "river", "forêt")
    file.write_text("river\nlake\nRiver\n")
    with pytest.raises(QuestionError, match=r"labels\.txt line 3: label 'River' is there twice"):
        gather_labels(None, file, None)
    with pytest.raises(QuestionError, match="label file"):
        gather_labels(None, tmp_path / "absent.txt", None)


def test_schemes_are_known_by_name():
    assert {name: len(labels) for name, labels in SCHEMES.items()} == {
        "aid": 30, "eurosat": 10, "nwpu45": 45, "siri-whu": 12, "ucm": 21, "whu-rs19": 19,
    }  # fmt: skip
    for labels in SCHEMES.values():
        assert len({label.casefold() for label in labels}) == len(labels)
    assert gather_labels(None, None, "ucm") == SCHEMES["ucm"]
    with pytest.raises(QuestionError, match="did you mean 'eurosat'"):
        gather_labels(None, None, "eurosad")


@pytest.mark.parametrize("given", [(None, None, None), ("a,b", None, "ucm")])
def test_exactly_one_list(given):
    with pytest.raises(QuestionError, match="choose one of --labels"):
        gather_labels(*given)


def test_the_prompt_by_default_is_the_published_one():
    labels = ("river", "forest")
    [question] = class_questions(labels)
    assert question == Question(CLASS, ask_class(labels), "label", labels)
    assert query(question, PromptStyle(labels_tag="{CLS} ")) == (
        "{CLS} Classify the image within one of the given classes: forest, river. Answer with one word or short phrase."
    )


def test_prompts_list_the_labels_where_they_are_to_stand_or_behind():
    first, second = class_questions(("river", "forest"), ("Which of {labels}?", "What is it?"))
    assert query(first, PromptStyle()) == "Which of river, forest?"
    assert query(second, PromptStyle()) == "What is it? Choose one of: river, forest."
    assert as_one((first, second)).text == "Which of river, forest? | What is it?"


def test_a_long_list_is_not_told():
    labels = tuple(f"class {i}" for i in range(65))
    [question] = class_questions(labels)
    assert "class 1" not in query(question, PromptStyle())
    with pytest.raises(QuestionError, match=r"leave \{labels\} out"):
        class_questions(labels, ("Which of {labels}?",))


@pytest.mark.parametrize("prompts", [("",), ("a", "a"), ("x<|im_end|>",)])
def test_prompts_that_make_no_sense(prompts):
    with pytest.raises(QuestionError):
        class_questions(("a", "b"), prompts)


def test_the_mean_is_of_probabilities_and_no_prompt_has_a_veto():
    p = np.array([[[0.6, 0.3], [1.0, 0.0]], [[0.0, 0.8], [np.nan, 0.5]]])
    with np.errstate(divide="ignore"):
        mean = mean_logprob(list(np.log(p).astype(np.float32)))
    assert np.exp(mean[0]) == pytest.approx([0.3, 0.55])
    assert np.isnan(mean[1, 0])
    assert mean.dtype == np.float32
