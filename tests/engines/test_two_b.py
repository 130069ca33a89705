from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rsqa.bench.checkpoint import write_two_b
from rsqa.engines.cards import CARD_FILE, CARDS, card_to_json
from rsqa.engines.qwen2vl import load_qwen2vl
from rsqa.engines.registry import find_model
from rsqa.models.checkpoint import open_checkpoint
from rsqa.tasks.parse import answers
from rsqa.tasks.question import COUNTS, YES_NO, Question
from rsqa.train.grasp import drawn, prepared, said_of, set_up
from rsqa.train.grasp_data import Quiz
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.turns import closed

QUESTIONS = (
    Question("water", "Is there water?", "yesno", YES_NO),
    Question("scene", "Is it rural or urban?", "choice", ("rural", "urban")),
    Question("ships", "How many ships are there?", "count", COUNTS),
    Question("words", "Describe the scene.", "open"),
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("dashscope")
    from real_vocab import qwen_tokenizer

    made, tokenizer = tmp_path_factory.mktemp("two-b"), qwen_tokenizer()
    tokenizer.save(str(made / "tokenizer.json"))
    write_two_b(made, tokenizer)
    return made


def n_parameters(checkpoint):
    count = 0
    for path in checkpoint.weights:
        with safe_open(path, "pt") as file:
            count += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return count


@pytest.mark.parametrize("card", ["tinyrs", "tinyrs-r1"])
def test_the_2b_shape_answers_four_tiles(folder, card):
    assert find_model(str(folder), card).card.name == card
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.weights) >= 4
    assert checkpoint.config["image_token_id"] == 151_655
    assert n_parameters(checkpoint) == CARDS[card].parameters
    engine = load_qwen2vl(replace(CARDS[card], max_new_tokens=6), checkpoint, "cpu", "bfloat16")
    chips = np.random.default_rng(0).integers(0, 256, (4, 3, 112, 112), dtype=np.uint8)
    replies = engine.prepare(QUESTIONS, (112, 112), 4).answer(chips)
    for question, reply in zip(QUESTIONS, replies, strict=True):
        said = answers(question, reply, mass_floor=0.05, reasoning=engine.card.prompt.reasoning)
        closed, reasoning = question.closed, engine.card.prompt.reasoning
        assert set(said.status) == {
            "off_list" if closed and not reasoning else "truncated"
        }  # random weights know no answer
        if closed and not reasoning:
            assert np.isfinite(reply.option_logprob).all()
            assert len(np.unique(reply.option_logprob, axis=0)) == 4
        else:
            assert not reply.finished.any()
            assert np.isfinite(reply.token_logprob).all()


@pytest.mark.parametrize(
    ("told", "n_trained"),
    [
        ({"mode": "paper", "tokens": 1, "inner": 512, "context": 0, "placement": "before_image"}, 1_580_032),
        ({"tokens": 8, "inner": 64}, 4 * 8 * 1536 + 2 * (1536 * 64 + 64) + 2 + 2 * (1536 * 32 + 32) + 32 * 8 * 1536),
    ],
)
def test_a_prompt_learns_around_the_2b_shape(folder, told, n_trained, tmp_path):
    (folder / CARD_FILE).write_text(card_to_json(CARDS["tinyrs"]), encoding="utf-8")
    bench = set_up(GraspRecipe("2B", str(folder), side_px=112, bf16=True, **told), tmp_path)
    trained = bench.learner.trained()
    assert sum(weight.numel() for weight in trained.values()) == n_trained
    pixels = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    turns = tuple((closed("Is there water?", answer, "presence"),) for answer in YES_NO)
    lesson = prepared(bench, Quiz(pixels, turns))
    said, prompted = said_of(bench, lesson, drawn(bench, lesson.quiz, range(2)))
    (-said.logprob.mean()).backward()
    assert prompted.weights.shape == (2, 1, 4)
    assert all(torch.isfinite(weight.grad).all() for weight in trained.values())
    assert trained["prompter.prompts"].grad.abs().max() > 0
