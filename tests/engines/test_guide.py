"""A prompt adapter on the engine: transformers with the slots put over placeholder tokens is the oracle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import Oracle
from test_qwen2vl import CLOSED, DIRECT, LETTER, QUESTIONS, engine_of, tiles
from test_reasoning import CARD as REASONING
from test_reasoning import WATER, Script

from rsqa.engines import grasp
from rsqa.engines.generation import Writing
from rsqa.engines.qwen2vl import Qwen2VLEngine
from rsqa.engines.words import Words
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.models.prompt_adapter import PromptShape
from rsqa.models.rivals import prompter_of
from rsqa.testing import EngineContract

ROBUST = PromptShape(48, tokens=3, blocks=4, inner=8, context=6)
PAPER = replace(PromptShape.paper(48), inner=8)
PLACES = [pytest.param(ROBUST, id="robust"), pytest.param(PAPER, id="paper")]


def made(shape, seed=0):
    """Loud enough to be heard."""
    torch.manual_seed(seed)
    prompter = prompter_of(shape)
    with torch.no_grad():
        for weight in prompter.parameters():
            weight.normal_(0, 0.5) if weight.ndim else weight.fill_(1.5)
    return prompter.requires_grad_(False)


def guided(folder, shape, card=DIRECT):
    checkpoint = open_checkpoint(folder)
    width = checkpoint.config["text_config"]["hidden_size"]
    words = Words(load_tokenizer(checkpoint), card)
    return Qwen2VLEngine(
        load_network(checkpoint, "cpu", "float32"), words, card, prompter=made(replace(shape, width=width))
    )


class Guided(Oracle):
    """transformers, whose word vectors of a placeholder are those that the adapter makes for the picture at hand."""

    def __init__(self, folder, card, shape):
        super().__init__(folder, card)
        self.prompter = made(replace(shape, width=self.network.config.text_config.hidden_size))
        self.shape, self.slots = shape, None
        self.placeholder = self.tokenizer.token_to_id("<|vision_pad|>")
        self.network.get_input_embeddings().register_forward_hook(self.put)

    def put(self, module, given, vectors):
        at = given[0] == self.placeholder
        if at.any():
            vectors = vectors.clone()
            vectors[at] = self.slots
        return vectors

    def conversation(self, question, grid):
        text, slots = super().conversation(question, grid), "<|vision_pad|>" * self.shape.tokens
        mark = "<|vision_start|>" if self.shape.placement == "before_image" else "<|vision_end|>"
        before, behind = text.split(mark)
        return before + (slots + mark if mark == "<|vision_start|>" else mark + slots) + behind

    def look(self, chip, question):
        """Make the slots, with what transformers sees and reads."""
        image = self.pixels(chip)
        grid = tuple((image["image_grid_thw"][0, 1:] // 2).tolist())
        with torch.no_grad():
            visual = self.network.model.get_image_features(**image).pooler_output[0][None]
            words = self.network.model.language_model(input_ids=torch.tensor([self.ids(question.text)]))
            mean = words.last_hidden_state[0].mean(dim=0, keepdim=True)
            prompted = self.prompter(visual, grid, mean)
        self.slots, self.weights = prompted.slots[0, 0], prompted.weights[0, 0]

    def option_logprob(self, chip, question, option):
        self.look(chip, question)
        return super().option_logprob(chip, question, option)

    def generate(self, chip, question):
        self.look(chip, question)
        return super().generate(chip, question)


class TestContract(EngineContract):
    @pytest.fixture(params=PLACES)
    def engine(self, request, random_folder):
        return guided(random_folder(0), request.param)


@pytest.mark.parametrize("shape", PLACES)
def test_answers_equal_those_of_transformers_with_slots(random_folder, shape):
    engine, oracle = guided(random_folder(2), shape), Guided(random_folder(2), DIRECT, shape)
    chips = tiles(3, 84, 112)
    replies = engine.prepare(QUESTIONS, (84, 112), 2).answer(chips)
    plain = engine_of(random_folder(2), DIRECT).prepare(QUESTIONS, (84, 112), 2).answer(chips)
    for question, reply, base in zip(QUESTIONS, replies, plain, strict=True):
        if question in (*CLOSED[:3], LETTER):
            expected = oracle.option_logprobs(chips, question)
            np.testing.assert_allclose(reply.option_logprob, expected, rtol=0, atol=1e-4)
            assert np.abs(reply.option_logprob - base.option_logprob).max() > 0.02
            np.testing.assert_allclose(reply.evidence[-1], oracle.weights, rtol=0, atol=1e-5)
        assert base.evidence is None
    written, means = zip(*(oracle.generate(chip, QUESTIONS[3]) for chip in chips), strict=True)
    assert replies[3].text.tolist() == [oracle.tokenizer.decode(ids) for ids in written]
    np.testing.assert_allclose(replies[3].token_logprob, means, atol=1e-4)


@pytest.mark.parametrize("shape", PLACES)
def test_reasoned_answers_are_scored_behind_the_slots(random_folder, monkeypatch, shape):
    oracle, chips = Guided(random_folder(2), REASONING, shape), tiles(2, 56, 84)
    texts = [oracle.ids("<reasoning>a lake</reasoning><answer>"), oracle.ids("<answer>")]
    monkeypatch.setattr(Writing, "_draw_together", lambda writing: None)
    script = Script(texts)
    monkeypatch.setattr("rsqa.engines.generation.likeliest", script)
    monkeypatch.setattr("rsqa.models.writing.likeliest", script)
    engine = guided(random_folder(2), shape, REASONING)
    (reply,) = engine.prepare([WATER], (56, 84), 2).answer(chips)
    for row, tokens in enumerate(texts):
        oracle.look(chips[row], WATER)
        before = [*oracle.ids(oracle.conversation(WATER, oracle.pixels(chips[row])["image_grid_thw"][0])), *tokens[:-1]]
        for k, option in enumerate(WATER.options):
            ends = [oracle.ids(">" + option + end) for end in REASONING.prompt.answer_ends]
            expected = np.logaddexp.reduce([oracle.path_logprob(chips[row], before, end) for end in ends])
            assert reply.option_logprob[row, k] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", PLACES)
def test_a_closed_gate_is_the_base_bit_for_bit(random_folder, shape):
    chips = tiles(3, 84, 84)
    shut = guided(random_folder(2), replace(shape, tokens=0)).prepare(QUESTIONS, (84, 84), 2)
    base = engine_of(random_folder(2), DIRECT)
    # Before the image each question is asked alone: so is the base then.
    alone = shape.placement == "before_image"
    asked = [base.prepare(some, (84, 84), 2) for some in ([[q] for q in QUESTIONS] if alone else [QUESTIONS])]
    expected = [reply for session in asked for reply in session.answer(chips)]
    for a, b in zip(shut.answer(chips), expected, strict=True):
        np.testing.assert_array_equal(a.option_logprob, b.option_logprob)
        if a.text is not None:
            assert a.text.tolist() == b.text.tolist()
            np.testing.assert_array_equal(a.token_logprob, b.token_logprob)


@pytest.mark.parametrize("method", ["static", "cocoop"])
def test_rivals_answer_too(random_folder, method):
    engine = guided(random_folder(2), replace(ROBUST, method=method))
    chips = tiles(3, 84, 84)
    one, all_at_once = (engine.prepare(CLOSED[:2], (84, 84), batch).answer(chips) for batch in (1, 4))
    for a, b in zip(one, all_at_once, strict=True):
        assert a.evidence is None
        np.testing.assert_allclose(a.option_logprob, b.option_logprob, rtol=0, atol=1e-4)


def test_a_question_is_read_once_for_all_tiles(random_folder, monkeypatch):
    read, true = [], grasp.question_vector
    monkeypatch.setattr(grasp, "question_vector", lambda *given: read.append(given[1]) or true(*given))
    engine = guided(random_folder(2), ROBUST)
    for seed in (0, 1):
        engine.prepare(CLOSED[:2], (56, 56), 1).answer(tiles(3, 56, 56, seed))
    assert len(read) == 2


@pytest.mark.parametrize("where", ["last", "middle", "words"])
def test_the_vector_of_a_question_equals_that_of_transformers(random_folder, where):
    oracle, engine = Oracle(random_folder(2), DIRECT), guided(random_folder(2), replace(ROBUST, question=where))
    with torch.no_grad():
        ids = torch.tensor([oracle.ids("Is there water?")])
        model = oracle.network.model.language_model
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        middle = model.norm(states[len(model.layers) // 2])
    expected = {"words": states[0], "middle": middle, "last": states[-1]}[where][0].mean(dim=0)
    torch.testing.assert_close(engine.guide.vectors(CLOSED[:1])[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", PLACES)
def test_nodata_is_left_out_and_remembered(random_folder, shape):
    """In company and alone, now and from what was seen earlier."""
    engine, chips = guided(random_folder(2), shape), tiles(5, 112, 84)
    valid = np.ones((5, 112, 84), np.bool_)
    valid[1, :56, :56] = False  # the first block and the border of the second
    valid[3] = False
    session = engine.prepare(CLOSED[:2], (112, 84), 4)
    replies, whole = session.answer(chips, valid), session.answer(chips)
    later = session.answer_seen(session.see(chips, valid))
    assert session.see(chips).nbytes == 5 * session.feature_bytes
    for reply, kept, all_valid in zip(replies, later, whole, strict=True):
        np.testing.assert_array_equal(reply.option_logprob, kept.option_logprob)
        np.testing.assert_array_equal(reply.evidence, kept.evidence)
        assert np.isfinite(reply.option_logprob).all()
        without = np.zeros((5, 4), np.bool_)
        without[1, 0] = without[3] = True
        np.testing.assert_array_equal(np.isnan(reply.evidence), without)
        np.testing.assert_allclose(np.nansum(reply.evidence[[0, 1, 2, 4]], axis=1), 1, atol=1e-6)
        assert np.abs(reply.option_logprob[[0, 2, 4]] - all_valid.option_logprob[[0, 2, 4]]).max() < 1e-4
    moved = [np.abs(some.evidence[1] - every.evidence[1]) for some, every in zip(replies, whole, strict=True)]
    assert np.nanmax(moved) > 1e-3
    alone = session.answer(chips[1:2], valid[1:2])
    np.testing.assert_allclose(alone[0].option_logprob, replies[0].option_logprob[1:2], rtol=0, atol=1e-4)


def test_a_token_shows_ground_when_half_of_its_pixels_do():
    valid = np.zeros((1, 60, 90), np.bool_)  # 2 x 3 tokens of 30 pixels
    valid[0, :15, :30] = valid[0, 30:44, :30] = valid[0, :, 60:] = True
    assert grasp.shown_tokens(valid, 1, (2, 3)).tolist() == [[True, False, True, False, False, True]]
    assert grasp.shown_tokens(None, 2, (2, 3)).tolist() == [[True] * 6] * 2
    assert grasp.shown_tokens(valid[:0], 0, (2, 3)).shape == (0, 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_marks_come_back(dtype):
    rng = np.random.default_rng(0)
    for n, s, d in ((3, 7, 4), (2, 4, 16), (0, 5, 8)):
        features, shown = rng.integers(0, 9, (n, s, d)).astype(dtype), rng.random((n, s)) < 0.5
        again, told = grasp.unmarked(grasp.marked(features, shown), s)
        np.testing.assert_array_equal(again, features)
        np.testing.assert_array_equal(told, shown)
