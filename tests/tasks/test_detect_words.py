from __future__ import annotations

import numpy as np
import pytest

from rsqa.engines.base import Replies
from rsqa.tasks.detect import all_of, box_questions, is_there, located, the_only
from rsqa.tasks.parse import answers


def test_objects_are_asked_for_in_whole_words():
    assert is_there("airplane") == "Is there an airplane?"
    assert is_there("storage tank") == "Is there a storage tank?"
    assert the_only("ship") == "the ship"
    assert (all_of("ship", "many"), all_of("ship", "one")) == ("every ship", "the ship")


def test_each_thing_is_asked_for_twice_and_all_ids_differ():
    questions = box_questions(["ship", "Is there a ship?", "船", "桥"], ["the ship"], 0.25, "one")
    assert len({q.id.lower() for q in questions}) == len(questions) == 10
    for there, where in zip(questions[::2], questions[1::2], strict=True):
        assert there.options == ("yes", "no")
        assert where.only_if is not None
        assert (where.only_if.question, where.only_if.least) == (there.id, 0.25)
    assert [where.text for where in questions[1::2]][-2:] == ["the 桥", "the ship"]


LOOK = (0.6, 0.3)  # yes, no: a confidence of 2/3


@pytest.mark.parametrize(
    ("shares", "text", "finished", "expected"),
    [
        (LOOK, "[[1,2,3,4],[5,6,7,8]]", True, ("ok", "2", 2, 0)),
        (LOOK, "[[1,2,3,4],[5,6]]", True, ("ok", "1", 1, 1)),
        (LOOK, "[]", True, ("ok", "0", 0, 0)),
        (LOOK, "nothing here", True, ("unparsed", None, 0, 0)),
        (LOOK, "", True, ("unparsed", None, 0, 0)),
        (LOOK, "[[4,4,4,4]]", True, ("unparsed", None, 0, 1)),
        (LOOK, "[[1,2,3,4],[5,6,", False, ("truncated", None, 1, 1)),  # what was written counts, the rest is unknown
        ((0.3, 0.6), None, False, ("ok", "0", 0, 0)),
        ((0.3, 0.6), "[[1,2,3,4]]", True, ("ok", "0", 0, 0)),  # an engine may write what nobody asked for
        ((0.02, 0.01), "[[1,2,3,4]]", True, ("off_list", None, 0, 0)),
        ((np.nan, 0.5), "[[1,2,3,4]]", True, ("error", None, 0, 0)),
    ],
)
def test_presence_and_words_make_one_answer(shares, text, finished, expected):
    there, where = box_questions(["ship"], [], 0.5, "many")
    sure = answers(there, Replies(np.log([shares]).astype(np.float32)), mass_floor=0.1)
    words = np.array([text], object)
    words = answers(where, Replies(None, words, np.array([-0.5], np.float32), np.array([finished])))
    got = located(where, sure, words, "tinyrs", "many")
    boxes = got.boxes[0]
    assert (got.status[0], got.value[0], len(boxes.boxes), boxes.malformed) == expected
    looked = expected[0] not in ("off_list", "error") and shares == LOOK
    assert (got.text[0] is not None) == looked
    assert np.isnan(got.token_logprob[0]) != looked
    known = expected[0] not in ("off_list", "error")
    assert got.confidence[0] == pytest.approx(shares[0] / sum(shares)) if known else np.isnan(got.confidence[0])
    assert got.error[0] == ("not_finite" if expected[0] == "error" else None)


def test_of_a_model_that_writes_one_box_the_first_counts():
    there, where = box_questions(["ship"], [], 0.0, "one")
    sure = answers(there, Replies(np.log([LOOK]).astype(np.float32)))
    words = np.array(["[[1,2,3,4],[5,6,7,8]]"], object)
    words = answers(where, Replies(None, words, np.zeros(1, np.float32), np.ones(1, bool)))
    got = located(where, sure, words, "tinyrs", "one")
    assert len(got.boxes[0].boxes) == len(got.boxes[0].turns) == 1
    assert got.value[0] == "1"
