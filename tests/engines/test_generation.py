from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import Oracle

from rsqa.engines import generation
from rsqa.engines.batching import ROWS, ROWS_PER_TILE, gathered
from rsqa.engines.cards import ModelCard
from rsqa.engines.generation import CIRCLE, Row, Rules, Writing, in_circles
from rsqa.engines.qwen2vl import load_qwen2vl
from rsqa.errors import QuestionError
from rsqa.models.checkpoint import open_checkpoint
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import YES_NO, Condition, Question

CARD = ModelCard("direct", "Random", PromptStyle(system="Look."), "Apache-2.0", max_new_tokens=40)
WORDS = Question("words", "Describe the scene.", "open")
MORE = Question("more", "What else is there, beside the road?", "open")
WATER = Question("water", "Is there water?", "yesno", YES_NO)
SHAPE = (56, 84)


def chips(n):
    rng = np.random.default_rng(5)
    return ((rng.integers(0, 256, (n, 3, *SHAPE)) + 3 * rng.integers(0, 256, (n, 3, 1, 1))) // 4).astype(np.uint8)


@pytest.fixture
def engine(random_folder):
    return load_qwen2vl(CARD, open_checkpoint(random_folder(0)), "cpu", "float32")


@pytest.fixture
def expected(random_folder):
    """(question, n tiles) -> texts of the reference."""
    oracle = Oracle(random_folder(0), CARD)
    return lambda question, n: [oracle.tokenizer.decode(oracle.generate(chip, question)[0]) for chip in chips(n)]


@pytest.mark.parametrize("rows", [1, 3, 5, 256])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_rows_take_turns_at_the_desk(engine, expected, monkeypatch, rows, on_gpu):
    """Fewer places than texts, batches of 3, two open questions and a closed one, and looks every eighth token."""
    monkeypatch.setattr("rsqa.engines.qwen2vl.ROWS", rows)
    monkeypatch.setattr("rsqa.models.writing.ROOM", 4)  # memory grows often
    begin = Writing.__init__

    def begun(self, *arguments, **wanted):
        begin(self, *arguments, **wanted)
        self._on_gpu = on_gpu

    monkeypatch.setattr(Writing, "__init__", begun)
    replies = engine.prepare([WORDS, WATER, MORE], SHAPE, 3).answer(chips(7))
    assert len({len(text) for text in replies[0].text}) > 3  # texts end at different times
    assert replies[0].text.tolist() == expected(WORDS, 7)
    assert replies[2].text.tolist() == expected(MORE, 7)
    alone = engine.prepare([WATER], SHAPE, 7).answer(chips(7))[0]
    np.testing.assert_allclose(replies[1].option_logprob, alone.option_logprob, rtol=0, atol=1e-4)


def test_a_question_with_a_condition_is_written_where_it_holds(engine, monkeypatch):
    """Its texts are those that it has without one, and for all others no row is begun."""
    ship = Question("ship", "every ship", "box")
    water, free = engine.prepare([WATER, ship], SHAPE, 3).answer(chips(7))
    odds = np.exp(water.option_logprob.astype(np.float64))
    odds /= odds.sum(axis=1, keepdims=True)
    least = float(np.sort(odds[:, 0])[4]) - 1e-6  # three of seven tiles
    begun = []
    begin = generation.Desk.begin
    monkeypatch.setattr(generation.Desk, "begin", lambda desk, b: (begun.append(len(b.rows)), begin(desk, b))[1])
    card = replace(CARD, mass_floor=0.0)
    monkeypatch.setattr(engine, "card", card)
    hanging = replace(ship, only_if=Condition("water", least))
    again, words, more = engine.prepare([WATER, hanging, MORE], SHAPE, 3).answer(chips(7))
    np.testing.assert_allclose(again.option_logprob, water.option_logprob, atol=1e-5)
    asked = odds[:, 0] >= least
    assert asked.sum() == 3
    assert words.text[asked].tolist() == free.text[asked].tolist()
    assert words.text[~asked].tolist() == [None] * 4
    assert np.isnan(words.token_logprob[~asked]).all()
    assert not words.finished[~asked].any()
    assert sum(begun) == 3 + 7
    assert all(isinstance(text, str) for text in more.text)
    nobody = replace(ship, only_if=Condition("water", 1.1))
    begun.clear()
    assert engine.prepare([WATER, nobody], SHAPE, 3).answer(chips(4))[1].text.tolist() == [None] * 4
    assert begun == []
    with pytest.raises(QuestionError, match="not scored before"):
        engine.prepare([hanging, WATER], SHAPE, 3)


def test_a_batch_is_read_only_when_there_is_room(engine, monkeypatch):
    """Prefixes wait on disk, not in memory: at most one batch is read ahead of the rows."""
    read, begun = [], []
    prefixes, begin = generation.Desk.begin, generation.read_packed
    monkeypatch.setattr("rsqa.engines.qwen2vl.ROWS", 4)
    monkeypatch.setattr(generation.Desk, "begin", lambda desk, b: (begun.append(len(b.rows)), prefixes(desk, b))[1])

    def reading(language, prefix, packed, wanted):
        read.append(prefix.tiles)
        assert sum(read[:-1]) - sum(begun) <= 0
        return begin(language, prefix, packed, wanted)

    monkeypatch.setattr(generation, "read_packed", reading)
    engine.prepare([WORDS], SHAPE, 2).answer(chips(9))
    assert sum(begun) == 9
    assert read == [2, 2, 2, 2, 1]


def test_one_token_is_one_reading(random_folder, monkeypatch):
    """The first token comes with the question: nothing is decoded for it."""
    card = replace(CARD, max_new_tokens=1)
    engine, oracle = (
        load_qwen2vl(card, open_checkpoint(random_folder(0)), "cpu", "float32"),
        Oracle(random_folder(0), card),
    )
    monkeypatch.setattr(generation.Desk, "write", None)
    (reply,) = engine.prepare([WORDS], SHAPE, 4).answer(chips(3))
    expected = [oracle.generate(chip, WORDS) for chip in chips(3)]
    assert reply.text.tolist() == [oracle.tokenizer.decode(ids) for ids, _ in expected]
    np.testing.assert_allclose(reply.token_logprob, [logprob for _, logprob in expected], atol=1e-4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=24), st.lists(st.integers(0, 9), max_size=60))
def test_a_text_in_circles_is_noticed(turn, before):
    text = before + turn * 200
    text = text[: -(-(len(before) + CIRCLE) // 16) * 16]
    assert in_circles(text)


@given(st.integers(25, 60), st.integers(0, 40))
def test_long_turns_and_progress_are_no_circle(turn, before):
    assert not in_circles([*range(100, 100 + before), *[i % turn for i in range(12 * 16 - before)]])


def test_a_row_ends_once():
    row, rules = Row(0, 0, 5), Rules(frozenset({9}), 4, lambda row: row.tokens[-1] == 7)
    for token in (1, 2):
        rules.add(row, token, -1.0)
    assert not row.complete
    rules.add(row, 7, -1.0)
    assert (row.complete, row.finished, row.mean_logprob) == (True, True, -1.0)
    cut = Row(0, 0, 5)
    for token in (1, 2, 3, 4):
        rules.add(cut, token, -2.0)
    assert (cut.complete, cut.finished) == (True, False)
    torch.testing.assert_close(cut.mean_logprob, -2.0)


@given(st.integers(1, 512), st.integers(0, 40), st.integers(28, 4000))
def test_tiles_are_gathered_in_whole_batches(batch, n_written, tile_px):
    tiles = gathered(batch, n_written, tile_px, "cpu")
    assert tiles % batch == 0
    assert tiles == batch or tiles * 3 * tile_px**2 <= 128 * 2**20
    if not n_written:
        assert tiles == batch
    elif (tiles + batch) * 3 * tile_px**2 <= 128 * 2**20:
        assert tiles * n_written >= min(ROWS, ROWS_PER_TILE * batch)
