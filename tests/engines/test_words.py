import pytest
from real_vocab import SPECIAL, join_bytes, qwen_tokenizer, ranks

from rsqa.engines.cards import CARDS
from rsqa.engines.words import Words
from rsqa.errors import ModelError, QuestionError
from rsqa.tasks.question import COUNTS, YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)
SCENE = Question("scene", "Is it rural or urban?", "choice", ("rural", "urban"))
SHIPS = Question("ships", "How many ships are there?", "count", COUNTS)
WORDS = Question("words", "Describe the scene.", "open")
SHIP = Question("ship", "the grey ship", "box")
REASONING = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <reasoning> </reasoning> and <answer> </answer> tags, respectively, i.e., "
    "<reasoning> reasoning process here </reasoning><answer> answer here </answer>"
)


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("dashscope")
    return qwen_tokenizer()


def template(system, user):
    """The conversation of the published evaluation, written out."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>{user}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_vocabulary_is_that_of_qwen(tokenizer):
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(151_643, 151_657))
    known = ranks()
    assert len(known) == 151_643
    for piece in ("Is", " there", " water", "?", "\n", "assistant", " unbelievably", ">rural", "，", "naïve"):
        assert tokenizer.encode(piece, add_special_tokens=False).ids == join_bytes(piece, known)
    assert tokenizer.encode("Is there 12?\n<|im_end|>\n").tokens == [
        "Is",
        "Ġthere",
        "Ġ",
        "1",
        "2",
        "?Ċ",
        "<|im_end|>",
        "Ċ",
    ]


@pytest.mark.parametrize(
    ("card", "question", "expected"),
    [
        ("tinyrs", WATER, template("You are a helpful assistant.", "{VQA} Is there water? ")),
        ("tinyrs", SCENE, template("You are a helpful assistant.", "{VQA} Is it rural or urban? ")),
        ("tinyrs", SHIPS, template("You are a helpful assistant.", "{IT} How many ships are there? ")),
        ("tinyrs", WORDS, template("You are a helpful assistant.", "Describe the scene.")),
        ("tinyrs-cot", WATER, template(REASONING, "{VQA} Is there water? ")),
        ("tinyrs-r1", WATER, template(REASONING, "{VQA} Is there water? ")),
        ("tinyrs-r1", WORDS, template(REASONING, "Describe the scene.")),
        ("tinyrs", SHIP, template("You are a helpful assistant.", "{VG} the grey ship ")),
        ("qwen2-vl-2b", WATER, template("You are a helpful assistant.", "Is there water?")),
        ("qwen2-vl-2b", WORDS, template("You are a helpful assistant.", "Describe the scene.")),
        (
            "qwen2-vl-2b",
            SHIP,
            template("You are a helpful assistant.", "Find <|object_ref_start|>the grey ship<|object_ref_end|>"),
        ),
    ],
)
def test_prompts_token_for_token(tokenizer, card, question, expected):
    words = Words(tokenizer, CARDS[card])
    image = "<|image_pad|>" * 4
    whole = tokenizer.encode(expected.replace("IMAGE", image), add_special_tokens=False).ids
    assert [*words.before, *[151_655] * 4, *words.after, *words.suffix(question)] == whole


@pytest.mark.parametrize("card", ["tinyrs", "qwen2-vl-2b"])
@pytest.mark.parametrize("question", [WATER, SCENE, SHIPS])
def test_answers_apart_are_answers_in_place(tokenizer, card, question):
    words = Words(tokenizer, CARDS[card])
    suffix = words.suffix(question)
    text = tokenizer.decode(list(suffix), skip_special_tokens=False)
    for option, paths in zip(question.options, words.options(question), strict=True):
        for end, path in zip(CARDS[card].prompt.answer_ends, paths, strict=True):
            assert tuple(tokenizer.encode(text + option + end, add_special_tokens=False).ids) == suffix + path


def test_answers_of_a_reasoning_model_are_spelled_with_the_tag(tokenizer):
    words = Words(tokenizer, CARDS["tinyrs-r1"])
    head = tokenizer.encode("<reasoning>It is land.</reasoning><answer", add_special_tokens=False).ids
    for question in (WATER, SCENE, SHIPS):
        for option, paths in zip(question.options, words.options(question, before=">"), strict=True):
            for end, path in zip(CARDS["tinyrs-r1"].prompt.answer_ends, paths, strict=True):
                text = f"<reasoning>It is land.</reasoning><answer>{option}{end}"
                assert tokenizer.encode(text, add_special_tokens=False).ids == [*head, *path]
    assert [tokenizer.id_to_token(i) for i in words.options(SCENE, before=">")[0][0]] == [
        ">r",
        "ural",
        "</",
        "answer",
        ">",
    ]


def test_special_tokens_in_questions_are_refused(tokenizer):
    words = Words(tokenizer, CARDS["tinyrs"])
    for token in SPECIAL:
        with pytest.raises(QuestionError, match="'q' contains"):
            words.check(Question("q", f"Is there {token}?", "yesno", YES_NO))


def test_options_that_are_spelled_alike_are_refused(tokenizer):
    twins = Question("q", "Which?", "choice", ("caf\u00e9", "cafe\u0301"))  # one letter, or a letter and its accent
    with pytest.raises(QuestionError, match="can't tell apart"):
        Words(tokenizer, CARDS["tinyrs"]).options(twins)


def test_text_is_read_without_control_tokens(tokenizer):
    words = Words(tokenizer, CARDS["tinyrs-r1"])
    ids = words.encode("<answer>yes</answer>\n<|im_end|>")
    assert words.decode(ids) == "<answer>yes</answer>\n"
    assert ids[-1] in words.stops


def test_another_models_tokenizer_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(ModelError, match=r"no token .<\|im_end\|>."):
        Words(Tokenizer(models.BPE({"a": 0}, [])), CARDS["tinyrs"])
