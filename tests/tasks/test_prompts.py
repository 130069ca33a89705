import pytest

from rsqa.tasks.prompts import END, PromptStyle, query, suffix_text
from rsqa.tasks.question import COUNTS, YES_NO, Question

TAGGED = PromptStyle(closed_tag="{VQA} ", count_tag="{IT} ", tail=" ")
MANY = tuple(f"class {n}" for n in range(65))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question("q", "Is there water?", "yesno", YES_NO), "{VQA} Is there water? "),
        (Question("q", "Is it Rural or urban?", "choice", ("rural", "urban")), "{VQA} Is it Rural or urban? "),
        (Question("q", "Which is it?", "choice", ("field", "city")), "{VQA} Which is it? Choose one of: field, city. "),
        (Question("q", "How many ships?", "count", COUNTS), "{IT} How many ships? "),
        (Question("q", "How many?", "count", ("0", "1-10")), "{IT} How many? Choose one of: 0, 1-10. "),
        (Question("q", "Describe it.", "open"), "Describe it."),
        (Question("q", "Which is it?", "choice", MANY), "{VQA} Which is it? "),
    ],
)
def test_query(question, expected):
    assert query(question, TAGGED) == expected


def test_a_style_without_tags_adds_nothing():
    assert query(Question("q", "Is there water?", "yesno", YES_NO), PromptStyle()) == "Is there water?"


def test_the_suffix_ends_where_the_answer_begins():
    question = Question("q", "Is there water?", "yesno", YES_NO)
    assert suffix_text(question, TAGGED) == f"{{VQA}} Is there water? {END}\n<|im_start|>assistant\n"
