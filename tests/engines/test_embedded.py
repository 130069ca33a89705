"""The model that ships, held to the same contract and the same reference."""

import numpy as np
import pytest
from oracle import Oracle

from rsqa.engines.registry import embedded_folder, find_model, load_engine
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import EngineContract


class TestEmbedded(EngineContract):
    @pytest.fixture
    def engine(self):
        return load_engine(None, "cpu")


def test_it_says_what_the_reference_says():
    ref = find_model()
    assert (ref.name, ref.folder) == ("tinyrs-nano", "")
    engine, oracle = load_engine(ref, "cpu"), Oracle(embedded_folder(), ref.card)
    side = ref.card.model_side(448, 448)
    coarse = np.random.default_rng(0).integers(0, 256, (4, 3, 4, 4), dtype=np.uint8)
    chips = coarse.repeat(side[0] // 4, axis=2).repeat(side[1] // 4, axis=3)
    questions = (
        Question("water", "Is there water?", "yesno", YES_NO),
        Question("scene", "Is it rural or urban?", "choice", ("rural", "urban")),
        Question("words", "Describe the scene.", "open"),
    )
    *closed, written = engine.prepare(questions, side, 3).answer(chips)
    for question, reply in zip(questions, closed, strict=False):
        expected = oracle.option_logprobs(chips, question)
        np.testing.assert_allclose(np.exp(reply.option_logprob), np.exp(expected), rtol=0, atol=1e-5)
    assert written.text.tolist() == [oracle.tokenizer.decode(oracle.generate(chip, questions[2])[0]) for chip in chips]
