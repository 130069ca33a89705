"""What only a GPU can show. Skipped where there is none."""

import numpy as np
import pytest
import torch

from rsqa.engines.cards import ModelCard
from rsqa.engines.qwen2vl import load_qwen2vl
from rsqa.errors import OutOfMemory
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.graph import Recorded
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import EngineContract

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CARD = ModelCard("direct", "Random", PromptStyle(system="Look."), "Apache-2.0", max_new_tokens=40)
WORDS = Question("words", "Describe the scene.", "open")
WATER = Question("water", "Is there water?", "yesno", YES_NO)


def engine_on(device, dtype, folder):
    return load_qwen2vl(CARD, open_checkpoint(folder), device, dtype)


def chips(n, height=84, width=112):
    rng = np.random.default_rng(5)
    noise, colour = rng.integers(0, 256, (n, 3, height, width)), rng.integers(0, 256, (n, 3, 1, 1))
    return ((noise + 3 * colour) // 4).astype(np.uint8)


@pytest.fixture(autouse=True)
def whole_float32():
    """No TensorFloat-32 in products: agreement in float32 is asked for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


class TestContractOnGpu(EngineContract):
    tolerance = 1e-3

    @pytest.fixture
    def engine(self, random_folder):
        return engine_on("cuda", "float32", random_folder(0))


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-3), ("float16", 0.3), ("bfloat16", 1.0), ("int8", 2.5)])
def test_a_gpu_says_what_a_cpu_says(random_folder, dtype, most):
    there = engine_on("cuda", dtype, random_folder(0)).prepare([WATER], (84, 112), 4).answer(chips(6))
    here = engine_on("cpu", "float32", random_folder(0)).prepare([WATER], (84, 112), 4).answer(chips(6))
    np.testing.assert_allclose(there[0].option_logprob, here[0].option_logprob, rtol=0, atol=most)


def test_tiles_that_are_resampled_agree(random_folder):
    """Whole numbers on the CPU, float32 on the GPU: a level of difference in some pixels."""
    there = engine_on("cuda", "float32", random_folder(0)).prepare([WATER], (100, 90), 4).answer(chips(4, 100, 90))
    here = engine_on("cpu", "float32", random_folder(0)).prepare([WATER], (100, 90), 4).answer(chips(4, 100, 90))
    np.testing.assert_allclose(there[0].option_logprob, here[0].option_logprob, rtol=0, atol=0.1)


def test_texts_from_a_recorded_step_are_those_of_a_cpu(random_folder, monkeypatch):
    """More texts than rows, memory that grows: graphs are recorded, forgotten and recorded again."""
    monkeypatch.setattr("rsqa.engines.qwen2vl.ROWS", 3)
    monkeypatch.setattr("rsqa.models.writing.ROOM", 8)
    recorded = []
    record = Recorded._record
    monkeypatch.setattr(Recorded, "_record", lambda self, size: (recorded.append(size), record(self, size))[1])
    there = engine_on("cuda", "float32", random_folder(0)).prepare([WORDS], (84, 112), 2).answer(chips(7))
    here = engine_on("cpu", "float32", random_folder(0)).prepare([WORDS], (84, 112), 2).answer(chips(7))
    assert len(recorded) > 1
    assert there[0].text.tolist() == here[0].text.tolist()
    np.testing.assert_allclose(there[0].token_logprob, here[0].token_logprob, atol=1e-3)


def test_memory_that_does_not_suffice_is_named_and_given_back(random_folder):
    engine = engine_on("cuda", "float32", random_folder(0))
    session = engine.prepare([WATER], (448, 448), 512)
    session.answer(chips(2, 448, 448))
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2**28) / total))
    try:
        with pytest.raises(OutOfMemory):
            session.answer(np.repeat(chips(2, 448, 448), 256, axis=0))
        assert torch.cuda.memory_allocated() <= held + 2**20
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert session.answer(chips(2, 448, 448))[0].option_logprob.shape == (2, 2)
