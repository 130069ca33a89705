from __future__ import annotations

import numpy as np
import pytest
import torch

from rsqa.engines.base import SeeingSession
from rsqa.engines.registry import load_engine
from rsqa.engines.visual import as_array, as_visual
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_there_and_back_keeps_every_bit(dtype):
    visual = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    visual[0, 0, :2] = torch.tensor([float("nan"), -0.0])
    array = as_array(visual)
    assert array.dtype == {torch.float32: "f4", torch.float16: "f2", torch.bfloat16: "u2"}[dtype]
    back = as_visual(torch.from_numpy(array))
    assert back.dtype == dtype
    assert as_array(back).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_sees_now_and_answers_later(dtype):
    session = load_engine(None, "cpu", dtype).prepare([WATER], (112, 112), 4)
    assert isinstance(session, SeeingSession)
    chips = np.random.default_rng(0).integers(0, 256, (6, 3, 112, 112), dtype=np.uint8)
    features = session.see(chips)
    assert features.nbytes == 6 * session.feature_bytes
    [now], [later] = session.answer(chips), session.answer_seen(features)
    assert now.option_logprob.tobytes() == later.option_logprob.tobytes()
