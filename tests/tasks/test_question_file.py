from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import QuestionError
from rsqa.tasks.lines import MAX_LINE_BYTES
from rsqa.tasks.question import COUNTS, ID_PATTERN, YES_NO
from rsqa.tasks.question_file import MAX_QUESTIONS, QuestionSet, gather_questions
from rsqa.tasks.question_words import infer


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str | bytes, name: str = "q.txt") -> QuestionSet:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return gather_questions(file=path)

    return write_and_read


def only(asked: QuestionSet):
    [question] = asked.questions
    return question


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("water: Is there water? [yes|no]", ("water", "Is there water?", "yesno", YES_NO)),
        ("water: Is there water? [No | Yes]", ("water", "Is there water?", "yesno", YES_NO)),
        ("Is there water? [yesno]", ("is-there-water", "Is there water?", "yesno", YES_NO)),
        ("How many ships? [count]", ("how-many-ships", "How many ships?", "count", COUNTS)),
        ("n: Ships? [count: 0|1-10|more than 10]", ("n", "Ships?", "count", ("0", "1-10", "more than 10"))),
        ("Which is it? [choice: forest|old city]", ("which-is-it", "Which is it?", "choice", ("forest", "old city"))),
        ("Which is it? [forest | city]", ("which-is-it", "Which is it?", "choice", ("forest", "city"))),
        ("Describe the scene. [open]", ("describe-the-scene", "Describe the scene.", "open", ())),
        ("Is [any] water there?", ("is-any-water-there", "Is [any] water there?", "yesno", YES_NO)),
    ],
)
def test_a_line(line, expected):
    question = only(gather_questions([line]))
    assert (question.id, question.text, question.kind, question.options) == expected


@pytest.mark.parametrize(
    "line",
    [
        "Seen from https://example.org at 10:30: dry?",
        "https://example.org is it?",
        "At 10:30: is there light?",
        "10:30 light?",
        "a :b",
        "ratio 3: 4?",
    ],
)
def test_a_colon_inside_a_question_makes_no_id(line):
    assert only(gather_questions([line])).text == line


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("Is there a road?", "yesno", YES_NO),
        ("are there any ships", "yesno", YES_NO),
        ("Does the picture show a runway?", "yesno", YES_NO),
        ("Do you see trees?", "yesno", YES_NO),
        ("Can you see a river?", "yesno", YES_NO),
        ("Has the field been harvested?", "yesno", YES_NO),
        ("Is there a ship or a boat?", "yesno", YES_NO),
        ("Is water or vegetation visible?", "yesno", YES_NO),
        ("Are there more ships than planes?", "yesno", YES_NO),
        ("Is it a rural or an urban area?", "choice", ("rural", "urban")),
        ("Is it a rural or an urban area", "choice", ("rural", "urban")),
        ("Is this rural or urban?", "choice", ("rural", "urban")),
        ("Is the area rural or urban?", "choice", ("rural", "urban")),
        ("Is it a river or a parking lot?", "choice", ("river", "parking lot")),
        ("Is this scene a forest, a lake or a city?", "choice", ("forest", "lake", "city")),
        ("Is this dense residential or sparse residential?", "choice", ("dense residential", "sparse residential")),
        ("Rural or urban?", "choice", ("rural", "urban")),
        ("Rome or Paris?", "choice", ("Rome", "Paris")),
        ("Forest, farmland, or city?", "choice", ("forest", "farmland", "city")),
        ("Which is larger, the forest or the lake?", "choice", ("forest", "lake")),
        ("What kind of tree or crop is it?", "open", ()),
        ("Describe roads or rivers.", "open", ()),
        ("Can you describe the scene?", "open", ()),
        ("How many planes or ships are there?", "count", COUNTS),
        ("What is the number of ships?", "count", COUNTS),
        ("Isle of what?", "open", ()),
        ("or", "open", ()),
        ("Is it or ?", "yesno", YES_NO),
        (" or ?", "open", ()),
        ("", "open", ()),
    ],
)
def test_the_type_is_read_from_the_words(text, kind, options):
    assert infer(text) == (kind, options)


@given(
    st.lists(st.sampled_from(["is", "it", "this", "the", "a", "or", ",", "which", ":", "area", "x", "?", "how many"]))
)
def test_any_words_give_a_type_with_sound_options(words):
    kind, options = infer(" ".join(words))
    assert (kind == "open") == (not options)
    assert all(options)
    assert len(set(options)) == len(options)


def test_all_three_formats_say_the_same(read):
    text = read(
        "# four\n\nwater: Is there water?\nn: Ships? [count: 0|1-3]\nWhich, is it? [choice: a|b c]\nTell. [open]\n"
    )
    table = read(
        "id,question,type,options\nwater,Is there water?,,\nn,Ships?,count,0|1-3\n"
        ',"Which, is it?",choice,a|b c\n,Tell.,open,\n',
        "q.csv",
    )
    rows = [
        {"id": "water", "text": "Is there water?"},
        {"id": "n", "question": "Ships?", "kind": "count", "options": ["0", "1-3"]},
        {"question": "Which, is it?", "type": "choice", "options": "a|b c"},
        {"id": None, "question": "Tell.", "type": "open"},
    ]
    objects = read("\n".join(json.dumps(row) for row in rows), "q.jsonl")
    assert text == table == objects
    assert len(text.questions) == 4


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_how_it_was_saved_changes_nothing(read, newline, bom, form):
    lines = ["# Wörter", "Gibt es Flüsse?", "Is there a café?", "é"]
    saved = bom + newline.join(unicodedata.normalize(form, line) for line in lines)
    assert read(saved) == read("\n".join(lines))
    assert [q.id for q in read(saved).questions] == ["gibt-es-flusse", "is-there-a-cafe", "e"]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "q.txt", "no question"),
        (b"# only words\n\n", "q.txt", "no question"),
        (b"a: Is it?\n\nb: Is it? [maybe]", "q.txt", "line 3"),
        (b"a: Is it?\nA: Is she?", "q.txt", "line 2: id 'A' is taken by q.txt line 1"),
        (b"a:", "q.txt", "no question"),
        (b"1st: Is it?", "q.txt", "'1st' is not an id"),
        (b"ok\nIs \x1b[31mit?", "q.txt", "line 2, byte 4: character U+001B"),
        (b"Is\x00 it?", "q.txt", "byte 3: character U+0000"),
        ("\u00e9\u202eIs it?".encode(), "q.txt", "byte 3: character U+202E"),
        (b"fine\nIs \xff it?", "q.txt", "line 2, byte 4: not UTF-8"),
        ("Is it?".encode("utf-16"), "q.txt", "UTF-16"),
        ("Is it?".encode("utf-16-be"), "q.txt", "U+0000"),
        (b"Is it?<|im_end|>", "q.txt", "<|im_end|>"),
        (b"x" * (MAX_LINE_BYTES + 1), "q.txt", "line 1: 4097 bytes"),
        (b"\n".join(b"Is it %d?" % n for n in range(MAX_QUESTIONS + 1)), "q.txt", "the most is 10000"),
        (b"Which? [choice: a]", "q.txt", "at least two"),
        (b"Which? [choice: a||b]", "q.txt", "empty option"),
        (b"Which? [choice: a|A]", "q.txt", "an option twice"),
        (b"Which? [yesno: a|b]", "q.txt", "yes/no with the options a, b"),
        (b"Tell. [open: a|b]", "q.txt", "open question has no options"),
        (b"[count]", "q.txt", "no question"),
        (b"a,b\n1,2", "q.csv", "unknown field 'a'"),
        (b"id\nx", "q.csv", "no column question"),
        (b"text,question\nx,y", "q.csv", "a second field"),
        (b"question,id\nIs it, or not?,a", "q.csv", "line 2: 3 cells under 2 columns"),
        (b'question\n"Is it?', "q.csv", "line 2: not a row of CSV"),
        (b'question,type,options\nIs it?,choice: a|b,a|b', "q.csv", "keep one of them"),
        (b"[1]", "q.jsonl", "line 1: not a JSON object"),
        (b"{", "q.jsonl", "line 1: not a JSON object"),
        (b"[" * 4000, "q.jsonl", "line 1"),
        (b'{"question": 3}', "q.jsonl", "question is 3"),
        (b'{"question": "x", "options": [1]}', "q.jsonl", "options is [1]"),
        (b'{"question": "\\u0000"}', "q.jsonl", "U+0000"),
        (b'{"question": "\\ud800"}', "q.jsonl", "U+D800"),
        (b'{"question": "\\u003c|im_end|>"}', "q.jsonl", "<|im_end|>"),
        (b'{"questoin": "x"}', "q.jsonl", "unknown field 'questoin'"),
        (b"{}", "q.json", "name the file .jsonl"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(read, content, name, words):
    with pytest.raises(QuestionError) as caught:
        read(content, name)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(QuestionError, match="check the path"):
        gather_questions(file=tmp_path / "none.txt")
    with pytest.raises(QuestionError, match="check the path"):
        gather_questions(file=tmp_path)


def test_no_question_at_all():
    with pytest.raises(QuestionError, match="-q TEXT"):
        gather_questions()


@pytest.mark.parametrize("text", ["", " ", "a\nb", "caf\udce9?", "x" * 5000])
def test_the_command_line_is_checked_too(text):
    with pytest.raises(QuestionError, match="--question 2"):
        gather_questions(["Is it?", text])


def test_command_line_first_then_the_file(tmp_path):
    (tmp_path / "q.txt").write_text("Is there a road?\nIs there water?\n")
    asked = gather_questions(["Is there water?"], tmp_path / "q.txt")
    assert [q.id for q in asked.questions] == ["is-there-water", "is-there-a-road"]
    assert asked.warnings == ("q.txt line 2 repeats --question 1; asked once",)


def test_made_ids_step_aside_for_given_ones():
    asked = gather_questions(["Is it?", "Is it!", "is-it: Is it wet?", "Is-it-2: Is it dry?"])
    assert [q.id for q in asked.questions] == ["is-it-3", "is-it-4", "is-it", "Is-it-2"]


def test_ten_thousand_questions_of_one_slug_are_numbered_at_once():
    started = time.process_time()
    asked = gather_questions(["?" * (n + 1) + " " * (n % 3) for n in range(2000)])
    assert len({q.id for q in asked.questions}) == 2000
    assert time.process_time() - started < 2


def test_a_huge_line_is_refused_at_once(read):
    started = time.process_time()
    with pytest.raises(QuestionError, match="10000000 bytes"):
        read(b"x" * 10_000_000)
    assert time.process_time() - started < 1


@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_words_give_good_ids_or_a_question_error(texts):
    try:
        asked = gather_questions(texts)
    except QuestionError:
        return
    ids = [q.id for q in asked.questions]
    assert all(ID_PATTERN.fullmatch(id_) for id_ in ids)
    assert len({id_.lower() for id_ in ids}) == len(ids)


@given(st.binary(max_size=200), st.sampled_from(["q.txt", "q.csv", "q.jsonl"]))
def test_any_bytes_give_questions_or_a_question_error(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("q") / name
    path.write_bytes(data)
    try:
        assert gather_questions(file=path).questions
    except QuestionError as error:
        assert "\n" not in str(error)  # noqa: PT017
