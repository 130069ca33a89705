"""What people and models write: files of questions and labels, answers, boxes."""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mutated import documented, fuzzed, mutated

from rsqa.tasks.boxes import BOX_FORMATS, corners, pixel_corners, read_boxes
from rsqa.tasks.labels import gather_labels
from rsqa.tasks.parse import answers, parse_choice, split_reasoning
from rsqa.tasks.question import Question
from rsqa.tasks.question_file import gather_questions

QUESTIONS = {
    "q.txt": [
        b"# water\nwater: Is there water? [yes|no]\nHow many ships? [count: 0|1-10|more than 10]\n",
        "\ufeffWhich is it? [choice: forest|city]\r\nÖl: Gibt es Öl? [open]\r\n".encode(),
    ],
    "q.csv": [
        b'id,question,type,options\nw,"Is there water?",yesno,\nk,"Which, if any?",choice,a|b\n',
        b"text\nDry?\n",
    ],
    "q.jsonl": [
        b'{"question": "Is there water?", "id": "w"}\n{"text": "Which?", "kind": "choice", "options": ["a", "b"]}\n',
    ],
}


@pytest.mark.parametrize("name", QUESTIONS)
@fuzzed
@given(data=st.data())
def test_files_of_questions(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data.draw(mutated(QUESTIONS[name]) | st.binary(max_size=200)))
    asked = documented(lambda: gather_questions(file=path))
    if asked is not None:
        assert asked.questions
        assert len({question.id for question in asked.questions}) == len(asked.questions)
        letters = "".join(question.text for question in asked.questions).replace("\t", "")
        assert not {category(letter) for letter in letters} & {"Cc", "Cs", "Zl", "Zp"}  # nothing that moves a cursor


@fuzzed
@given(content=mutated([b"# scheme\nwater\nold town\n", "forêt\nÖl\n".encode()]))
def test_files_of_labels(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    labels = documented(lambda: gather_labels(None, tmp_path / "labels.txt", None))
    assert labels is None or len(set(labels)) == len(labels) >= 2


@fuzzed
@given(listed=st.text(max_size=80), text=st.text(max_size=80))
def test_arguments(listed, text):
    documented(lambda: gather_labels(listed, None, None))
    documented(lambda: gather_questions([text]))


WORDS = st.lists(
    st.text(max_size=4)
    | st.sampled_from(
        ["[", "]", "[[", "]]", ",", "<", ">", "{<", ">}", "|", "(", ")", "<|box_start|>", "<|box_end|>", "-1", "1e9",
         "0.5", "12", "999999999999999999999", "٣", "²", "<answer>", "</answer>", "<reasoning>", "</reasoning>", "yes",
         "no", "\n"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@fuzzed
@given(text=WORDS, height=st.integers(1, 4000), width=st.integers(1, 4000))
def test_boxes_are_boxes_or_none(box_format, text, height, width):
    said = read_boxes(text, box_format)
    found = corners(said, width / height)
    assert found.shape[1:] == (4, 2)
    assert np.isfinite(found).all()
    placed = pixel_corners(said, (0, 0, width, height), (height, width))
    assert (placed >= 0).all()
    assert (placed <= (width, height)).all()


@fuzzed
@given(text=WORDS)
def test_words_are_an_option_or_none(text):
    split_reasoning(text)
    assert parse_choice(text, ("yes", "no")) in ("yes", "no", None)


@dataclass
class Said:
    option_logprob: np.ndarray | None = None
    text: np.ndarray | None = None
    token_logprob: np.ndarray | None = None
    finished: np.ndarray | None = None
    evidence: np.ndarray | None = None


NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@fuzzed
@given(data=st.data(), n=st.integers(0, 4), reasoning=st.booleans(), kind=st.sampled_from(["yesno", "open"]))
def test_replies_become_answers_with_a_status(data, n, reasoning, kind):
    options = ("yes", "no") if kind == "yesno" else ()
    texts = data.draw(st.none() | st.lists(WORDS, min_size=n, max_size=n))
    if texts is None and (reasoning or kind == "open"):
        texts = [""] * n
    said = Said(
        option_logprob=data.draw(hnp.arrays(np.float32, (n, 2), elements=NUMBERS)) if options else None,
        text=None if texts is None else np.array([*texts, None], object)[:-1],
        token_logprob=data.draw(hnp.arrays(np.float32, n, elements=NUMBERS)),
        finished=data.draw(hnp.arrays(bool, n)),
    )
    found = answers(Question("q", "Is it?", kind, options), said, mass_floor=0.1, reasoning=reasoning)
    assert set(found.status) <= {"ok", "off_list", "unparsed", "truncated", "error"}
    ok = found.status == "ok"
    assert all(value is None for value in found.value[~ok])
    if options:
        assert set(found.value[ok]) <= set(options)
    sure = found.confidence[~np.isnan(found.confidence)]
    assert ((sure >= 0) & (sure <= 1)).all()
