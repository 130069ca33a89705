from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from rsqa.engines import qwen2vl
from rsqa.engines.batching import half
from rsqa.engines.memory import fitting
from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode, OutOfMemory
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)


def test_what_the_allocator_refuses_is_out_of_memory():
    with pytest.raises(OutOfMemory, match="allocate"):
        fitting(lambda: torch.empty(1 << 52, dtype=torch.uint8))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore"),
        RuntimeError("not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=repr,
)
def test_each_way_to_say_it(error):
    def fail():
        raise error

    with pytest.raises(OutOfMemory) as caught:
        fitting(fail)
    assert caught.value.exit_code == ExitCode.MODEL
    assert "\n" not in str(caught.value)


def test_other_faults_are_what_they_were():
    def fail():
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        fitting(fail)


def test_nothing_of_a_failed_batch_is_held():
    held: list[weakref.ref[torch.Tensor]] = []

    def fail():
        batch = torch.zeros(10)
        held.append(weakref.ref(batch))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    gc.disable()
    try:
        with pytest.raises(OutOfMemory) as caught:
            fitting(fail)
        assert held[0]() is None
        assert caught.value.__context__ is None
    finally:
        gc.enable()


def test_a_session_answers_after_it_ran_out_of_memory(monkeypatch):
    engine = load_engine(None, "cpu", "float32")
    chips = np.random.default_rng(0).integers(0, 256, (3, 3, 56, 56), dtype=np.uint8)
    session = engine.prepare([WATER], (56, 56), 4)
    [before] = session.answer(chips)
    encode = qwen2vl.encode

    def short(vision, pixels, turns):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(vision, pixels, turns)

    monkeypatch.setattr(qwen2vl, "encode", short)
    for verb in (session.answer, session.see):
        with pytest.raises(OutOfMemory):
            verb(chips)
    [halved] = engine.prepare([WATER], (56, 56), 2).answer(chips)
    np.testing.assert_allclose(halved.option_logprob, before.option_logprob, atol=1e-4)
    monkeypatch.undo()
    [after] = session.answer(chips)
    assert after.option_logprob.tobytes() == before.option_logprob.tobytes()


def test_half_a_batch_is_the_next_step_of_the_ladder():
    assert [half(batch, "cpu") for batch in (8, 7, 3, 2)] == [4, 4, 2, 1]
    with pytest.raises(OutOfMemory, match="--tile-px"):
        half(1, "cpu")
    with pytest.raises(OutOfMemory, match="or --device cpu"):
        half(1, "cuda:1")
