"""Adapters of a tiny model that knows nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from rsqa.engines.cards import CARDS
from rsqa.engines.registry import load_engine, open_model
from rsqa.errors import ModelError, RsqaError
from rsqa.models.loading import load_network
from rsqa.tasks.question import YES_NO, Question
from rsqa.train.forward import Framed
from rsqa.train.packing import Chain, packed

QUESTIONS = (
    Question("water", "Is there water?", "yesno", YES_NO),
    Question("words", "Describe the scene.", "open"),
)
CARD = replace(CARDS["tinyrs"], name="mine", max_new_tokens=5)


def network_of(folder, dtype="float32"):
    return load_network(open_model(folder), "cpu", dtype)


def trained(network, seed=0):
    """As if it had been trained: B is zero at first."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * weight.shape[1] ** -0.5)
    return network


def row(network):
    """Two pictures with two questions each."""
    pixels = torch.randint(0, 256, (2, 3, 56, 56), generator=torch.Generator().manual_seed(1)).float()
    chain = Chain.of([((5, 6, 7), False), ((8, 9), True)], "yesno")
    return pixels, Framed((1, 2), (3,)), packed([[chain, chain], [chain]], fill=0)


def refused(call, match, error=ModelError):
    with pytest.raises(error, match=match) as caught:
        call()
    assert isinstance(caught.value, RsqaError)
    assert "\n" not in str(caught.value)


def ask(model, dtype="float32"):
    chips = np.random.default_rng(0).integers(0, 256, (3, 3, 56, 84), dtype=np.uint8)
    closed, written = load_engine(str(model), "cpu", dtype).prepare(QUESTIONS, (56, 84), 2).answer(chips)
    return closed.option_logprob, written.text.tolist()


def oracle(base, adapter):
    """peft's own merge of what it reads from the files."""
    import peft

    network = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(network, adapter).merge_and_unload()


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
