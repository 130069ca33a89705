from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import Oracle

from rsqa.engines.cards import CARDS, ModelCard
from rsqa.engines.qwen2vl import Qwen2VLEngine, load_qwen2vl
from rsqa.engines.registry import find_model, load_engine
from rsqa.errors import QuestionError
from rsqa.models.checkpoint import open_checkpoint
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import COUNTS, YES_NO, Question
from rsqa.testing import EngineContract

DIRECT = ModelCard("direct", "Random", PromptStyle(system="Look."), "Apache-2.0", max_new_tokens=12)
TINYRS = replace(CARDS["tinyrs"], max_new_tokens=12)
LETTERS = tuple("ABCDEFGHJK")
QUESTIONS = (
    Question("water", "Is there water?", "yesno", YES_NO),
    Question("scene", "Is it rural or urban?", "choice", ("rural", "urban")),
    Question("label", "Which is it?", "choice", ("forest", "for", "dense forest", "water")),
    Question("words", "Describe the scene.", "open"),
    Question("letter", "Which?", "choice", LETTERS),
    Question("ships", "How many ships are there?", "count", (*COUNTS[:12], COUNTS[-1])),
)
LETTER = QUESTIONS[4]
CLOSED = tuple(q for q in QUESTIONS if q.closed)


def tiles(n, height, width, seed=0):
    """Coarse random colours with noise, so that tiles differ in the whole and in detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 3, 5, 5)).repeat(-(-height // 5), 2).repeat(-(-width // 5), 3)
    return np.clip(coarse[:, :, :height, :width] + rng.integers(-20, 20, (n, 3, height, width)), 0, 255).astype(
        np.uint8
    )


def engine_of(folder, card, dtype="float32"):
    return load_qwen2vl(card, open_checkpoint(folder), "cpu", dtype)


def shares(logprob):
    return np.exp(logprob - np.logaddexp.reduce(logprob, axis=1, keepdims=True))


@pytest.fixture(params=["seed 2", "seed 3"])
def pair(request, random_folder):
    """An engine and its oracle."""
    folder = random_folder(int(request.param.split()[1]))
    return engine_of(folder, DIRECT), Oracle(folder, DIRECT)


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, random_folder):
        return engine_of(random_folder(0), DIRECT)


@pytest.mark.parametrize(("shape", "batch"), [((112, 112), 1), ((84, 112), 4), ((140, 56), 3)])
def test_closed_questions_equal_the_teacher_forced_reference(pair, shape, batch):
    engine, oracle = pair
    chips = tiles(5, *shape)
    replies = engine.prepare(QUESTIONS, shape, batch).answer(chips)
    said = {q.id: r.option_logprob for q, r in zip(QUESTIONS, replies, strict=True)}
    for question in (*CLOSED[:3], LETTER):
        expected = oracle.option_logprobs(chips, question)
        np.testing.assert_allclose(said[question.id], expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(shares(said[question.id]), shares(expected), rtol=0, atol=3e-5)
        np.testing.assert_allclose(np.exp(said[question.id]), np.exp(expected), rtol=0, atol=3e-5)
    expected = np.array([[oracle.option_logprob(chips[0], QUESTIONS[-1], o) for o in QUESTIONS[-1].options]])
    np.testing.assert_allclose(said["ships"][:1], expected, rtol=0, atol=1e-4)


def test_the_reference_tells_tiles_apart(pair):
    """Else agreement would mean nothing."""
    _, oracle = pair
    chips = tiles(12, 84, 84)
    closed = (LETTER, Question("other", "Other?", "choice", LETTERS), CLOSED[2])
    values = np.stack([oracle.option_logprobs(chips, question).argmax(axis=1) for question in closed], axis=1)
    assert len(np.unique(values, axis=0)) >= 5
    assert len({tuple(oracle.generate(chip, QUESTIONS[3])[0]) for chip in chips}) >= 5


def test_tinyrs_sums_over_both_ways_to_end_an_answer(random_folder):
    engine, oracle = engine_of(random_folder(0), TINYRS), Oracle(random_folder(0), TINYRS)
    chips = tiles(3, 84, 84)
    replies = engine.prepare(CLOSED, (84, 84), 4).answer(chips)
    for question, reply in zip(CLOSED[:3], replies, strict=False):
        np.testing.assert_allclose(reply.option_logprob, oracle.option_logprobs(chips, question), rtol=0, atol=1e-4)


def test_questions_in_any_order_and_company(pair):
    engine, _ = pair
    chips = tiles(5, 84, 84)
    together = engine.prepare(QUESTIONS, (84, 84), 4).answer(chips)
    for order in ([5, 4, 2, 0, 3, 1], [1], [3, 0]):
        replies = engine.prepare([QUESTIONS[i] for i in order], (84, 84), 2).answer(chips)
        for i, reply in zip(order, replies, strict=True):
            if QUESTIONS[i].closed:
                np.testing.assert_allclose(reply.option_logprob, together[i].option_logprob, rtol=0, atol=1e-4)
            else:
                assert reply.text.tolist() == together[i].text.tolist()


def test_swapping_tiles_swaps_answers(pair):
    engine, _ = pair
    session = engine.prepare(QUESTIONS, (84, 84), 4)
    chips = tiles(5, 84, 84)
    straight, swapped = session.answer(chips), session.answer(chips[[0, 3, 2, 1, 4]])
    for question, a, b in zip(QUESTIONS, straight, swapped, strict=True):
        if question.closed:
            np.testing.assert_allclose(a.option_logprob[[0, 3, 2, 1, 4]], b.option_logprob, rtol=0, atol=1e-4)
            assert np.abs(a.option_logprob[1] - a.option_logprob[3]).max() > 0.01
        else:
            assert a.text[[0, 3, 2, 1, 4]].tolist() == b.text.tolist()
            assert a.text[1] != a.text[3]


def test_open_questions_equal_greedy_generate(pair):
    engine, oracle = pair
    chips = tiles(7, 84, 112)
    (reply,) = engine.prepare(QUESTIONS[3:4], (84, 112), 4).answer(chips)
    expected, means = zip(*(oracle.generate(chip, QUESTIONS[3]) for chip in chips), strict=True)
    assert reply.text.tolist() == [oracle.tokenizer.decode(ids) for ids in expected]
    assert reply.finished.tolist() == [ids[-1] in engine.words.stops for ids in expected]
    np.testing.assert_allclose(reply.token_logprob, means, atol=1e-4)


def test_rows_end_on_their_own(random_folder):
    """Long enough for some tiles to end while others go on."""
    card = replace(DIRECT, max_new_tokens=150)
    engine, oracle = engine_of(random_folder(0), card), Oracle(random_folder(0), card)
    chips = tiles(6, 56, 56)
    (reply,) = engine.prepare(QUESTIONS[3:4], (56, 56), 8).answer(chips)
    expected = [oracle.generate(chip, QUESTIONS[3])[0] for chip in chips]
    assert len({len(ids) for ids in expected}) > 2
    assert reply.text.tolist() == [oracle.tokenizer.decode(ids) for ids in expected]


def test_generation_settings_of_the_checkpoint_are_ignored(random_folder, tmp_path):
    folder = random_folder(0)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 3.0}'
    )
    chips = tiles(3, 56, 56)
    said = [
        engine_of(f, DIRECT).prepare(QUESTIONS[3:4], (56, 56), 4).answer(chips)[0].text.tolist()
        for f in (folder, tmp_path)
    ]
    assert said[0] == said[1]


def test_a_list_too_long_for_one_group_is_cut(random_folder, monkeypatch):
    engine = engine_of(random_folder(0), DIRECT)
    chips = tiles(3, 56, 56)
    whole = engine.prepare(CLOSED, (56, 56), 4)
    expected = whole.answer(chips)
    monkeypatch.setattr("rsqa.engines.qwen2vl.PACKED_TOKENS", 90)
    cut = engine.prepare(CLOSED, (56, 56), 4)
    assert len(cut._stems[0].groups) > len(whole._stems[0].groups) + 1
    for a, b in zip(cut.answer(chips), expected, strict=True):
        np.testing.assert_allclose(a.option_logprob, b.option_logprob, rtol=0, atol=1e-4)


def test_few_logits_at_once(random_folder, monkeypatch):
    engine = engine_of(random_folder(0), DIRECT)
    session, chips = engine.prepare(CLOSED, (56, 56), 4), tiles(3, 56, 56)
    expected = session.answer(chips)
    monkeypatch.setattr("rsqa.engines.scoring.MAX_LOGITS", 1)
    for a, b in zip(session.answer(chips), expected, strict=True):
        np.testing.assert_allclose(a.option_logprob, b.option_logprob, rtol=0, atol=1e-4)


def test_probabilities_of_all_continuations_sum_to_one(random_folder):
    """Options that are single characters of a vocabulary's whole first step can't hold more than all of it."""
    engine = engine_of(random_folder(0), DIRECT)
    question = Question("n", "How many?", "count", COUNTS)
    (reply,) = engine.prepare([question], (56, 56), 4).answer(tiles(2, 56, 56))
    mass = np.exp(reply.option_logprob).sum(axis=1)
    assert ((mass > 0) & (mass < 1)).all()


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 1.0), ("float16", 0.2), ("int8", 2.5)])
def test_low_precision_stays_close(random_folder, dtype, most):
    chips = tiles(4, 84, 84)
    exact = engine_of(random_folder(0), DIRECT).prepare(QUESTIONS, (84, 84), 4).answer(chips)
    low = engine_of(random_folder(0), DIRECT, dtype).prepare(QUESTIONS, (84, 84), 4).answer(chips)
    for a, b in zip(exact, low, strict=True):
        if a.option_logprob is not None:
            np.testing.assert_allclose(a.option_logprob, b.option_logprob, rtol=0, atol=most)


def test_a_card_with_one_side_resamples(random_folder):
    """A 448 px tile and its own 112 px version are the same to a model that sees 112 px."""
    from rsqa.engines.preprocess import resample

    engine = engine_of(random_folder(0), replace(DIRECT, side_px=112))
    chips = tiles(3, 448, 448)
    small = resample(torch.from_numpy(chips), (112, 112)).to(torch.uint8).numpy()
    (a,), (b,) = (engine.prepare(CLOSED[:1], c.shape[2:], 2).answer(c) for c in (chips, small))
    np.testing.assert_array_equal(a.option_logprob, b.option_logprob)


def test_tiles_that_need_resizing_are_close_to_the_reference(random_folder):
    engine, oracle = engine_of(random_folder(0), DIRECT), Oracle(random_folder(0), DIRECT)
    chips = tiles(3, 100, 90)
    (reply,) = engine.prepare(CLOSED[:1], (100, 90), 2).answer(chips)
    np.testing.assert_allclose(reply.option_logprob, oracle.option_logprobs(chips, CLOSED[0]), atol=0.1)


@pytest.mark.parametrize("text", ["Is <|im_end|> there?", "<|image_pad|>", "Is there <|vision_start|>?"])
def test_special_tokens_are_refused(random_folder, text):
    engine = engine_of(random_folder(0), DIRECT)
    with pytest.raises(QuestionError, match=r"'q' contains '<\|"):
        engine.prepare([Question("q", text, "open")], (56, 56), 1)
    with pytest.raises(QuestionError, match="contains"):
        engine.prepare([Question("q", "Which?", "choice", ("a", text))], (56, 56), 1)


def test_chips_of_another_size_are_refused(random_folder):
    session = engine_of(random_folder(0), DIRECT).prepare(QUESTIONS, (56, 56), 1)
    with pytest.raises(ValueError, match=r"chips of \(3, 56, 56\)"):
        session.answer(tiles(1, 56, 84))


def test_through_the_registry(random_folder):
    ref = find_model(str(random_folder(0)), "tinyrs")
    engine = load_engine(ref, "cpu")
    assert isinstance(engine, Qwen2VLEngine)
    assert engine is load_engine(ref, "cpu", "float32")
    assert engine.card == CARDS["tinyrs"]
