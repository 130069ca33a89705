from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import Oracle

from rsqa.engines.cards import CARDS
from rsqa.engines.generation import Writing
from rsqa.engines.qwen2vl import load_qwen2vl
from rsqa.models.checkpoint import open_checkpoint
from rsqa.tasks.parse import answers
from rsqa.tasks.question import YES_NO, Question

CARD = replace(CARDS["tinyrs-r1"], max_new_tokens=80)
WATER = Question("water", "Is there water?", "yesno", YES_NO)
SCENE = Question("scene", "Is it rural or urban?", "choice", ("rural", "urban"))
WORDS = Question("words", "Describe the scene.", "open")
SHAPE = (56, 84)


class Script:
    """Says what it is told in place of the likeliest token; a row per tile, in the order of the tiles."""

    def __init__(self, rows):
        self.rows, self.step = rows, 0

    def __call__(self, language, hidden):
        if hidden.ndim == 3:  # the first token, behind a question
            self.step = 0
        tokens = torch.zeros(hidden.shape[:-1], dtype=torch.long)
        for row, said in enumerate(self.rows[: len(tokens)]):
            tokens[row] = said[self.step % len(said)]
        self.step += 1
        return tokens, torch.full(tokens.shape, -0.5)


@pytest.fixture
def chips():
    return np.random.default_rng(3).integers(0, 256, (6, 3, *SHAPE), dtype=np.uint8)


@pytest.fixture
def oracle(random_folder):
    return Oracle(random_folder(2), CARD)


@pytest.fixture
def scripted(monkeypatch):
    """An engine that writes `rows` (of token ids), one per tile of a batch."""
    monkeypatch.setattr(Writing, "_draw_together", lambda writing: None)  # rows stay where the script knows them

    def make(folder, rows):
        script = Script(rows)
        monkeypatch.setattr("rsqa.engines.generation.likeliest", script)
        monkeypatch.setattr("rsqa.models.writing.likeliest", script)
        return load_qwen2vl(CARD, open_checkpoint(folder), "cpu", "float32")

    return make


def test_options_are_scored_where_each_text_opens_its_answer(scripted, random_folder, oracle, chips):
    ids, one = oracle.ids, oracle.tokenizer.token_to_id
    assert one(">yes") is not None  # the tag and an answer in one token
    texts = [
        ids("<reasoning>a lake</reasoning><answer>"),
        ids("<answer>"),
        ids("<reasoning>no road, no house, but a lake</reasoning>\n<answer>"),
        [*ids("<reasoning>a lake</reasoning><answer"), one(">yes")],
        ids("<reasoning>and so on, "),
        [*ids("I can't say."), one("<|im_end|>")],
    ]
    engine = scripted(random_folder(2), texts)
    for question in (WATER, SCENE):
        (reply,) = engine.prepare([question], SHAPE, 6).answer(chips)
        for row, tokens in enumerate(texts[:4]):
            grid = oracle.pixels(chips[row])["image_grid_thw"][0]
            before = [*ids(oracle.conversation(question, grid)), *tokens[:-1]]
            expected = [
                np.logaddexp.reduce(
                    [oracle.path_logprob(chips[row], before, ids(">" + o + e)) for e in CARD.prompt.answer_ends]
                )
                for o in question.options
            ]
            np.testing.assert_allclose(reply.option_logprob[row], expected, rtol=0, atol=1e-4)
        assert np.isnan(reply.option_logprob[4:]).all()
        assert reply.finished.tolist() == [True, True, True, True, False, True]
        assert reply.text[0] == reply.text[3] == "<reasoning>a lake</reasoning><answer>"
        assert reply.text[4].startswith("<reasoning>and so on, <reasoning>and")
        said = answers(question, reply, reasoning=True)
        assert said.status.tolist() == ["ok"] * 4 + ["truncated", "unparsed"]
        assert said.reasoning[0] == "a lake"


def test_an_answer_that_shares_a_token_with_the_tag_is_spelled_with_it(scripted, random_folder, oracle):
    engine = scripted(random_folder(2), [])
    spelled = oracle.ids("<answer>yes</answer>")
    (yes, _), (no, _) = engine.words.options(WATER, before=">")
    assert yes == tuple(spelled[-len(yes) :])
    assert yes[0] == oracle.tokenizer.token_to_id(">yes") != no[0]


def test_open_questions_are_written_to_the_end(scripted, random_folder, oracle, chips):
    end = oracle.tokenizer.token_to_id("<|im_end|>")
    whole = "<reasoning>a lake</reasoning><answer>A lake.</answer>"
    engine = scripted(random_folder(2), [[*oracle.ids(whole), end], oracle.ids("<reasoning>and so on, ")])
    (reply,) = engine.prepare([WORDS], SHAPE, 2).answer(chips[:2])
    assert reply.text[0] == whole
    assert reply.finished.tolist() == [True, False]
    said = answers(WORDS, reply, reasoning=True)
    assert said.value.tolist() == ["A lake.", None]
    assert said.status.tolist() == ["ok", "truncated"]


def test_unscripted_in_any_batch(random_folder, chips):
    engine = load_qwen2vl(CARD, open_checkpoint(random_folder(2)), "cpu", "float32")
    one, all_at_once = (engine.prepare([WATER, WORDS], SHAPE, batch).answer(chips) for batch in (1, 8))
    for a, b in zip(one, all_at_once, strict=True):
        assert a.text.tolist() == b.text.tolist()
        np.testing.assert_allclose(a.token_logprob, b.token_logprob, atol=1e-4)
