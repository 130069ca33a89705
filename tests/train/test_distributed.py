"""Two processes learn what one learns, whether each holds the network whole or a share of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_conversations import recipe_of, steady_adam, write_set

from rsqa.errors import RecipeError
from rsqa.train import grpo
from rsqa.train.batch import Batch
from rsqa.train.checkpoint import checkpoints
from rsqa.train.forward import Framed, Reader
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.log import Watcher
from rsqa.train.packing import Chain, packed
from rsqa.train.sft import Learner, initial_network, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"))


def in_two_processes(data, out, lora_rank):
    here = Path(__file__).parent
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", here / "sft_process.py")
    done = subprocess.run(
        [sys.executable, *launch, data, out, str(lora_rank)],
        env=os.environ | {"PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}", "ACCELERATE_USE_CPU": "true",
                          "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def lines(out):
    """The last word on each step: a killed run writes some again."""
    read = [json.loads(line) for line in (out / "log.jsonl").read_bytes().splitlines()]
    return {(line["step"], "validation" in line): line for line in read}


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("lora_rank", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_learns_through_kills_and_splitting(data, tmp_path, monkeypatch, lora_rank):
    """Each process takes half of the micro batches; see `sft_process.py` for what they go through."""
    monkeypatch.setattr(torch.optim, "AdamW", steady_adam)
    recipe = replace(recipe_of(data), lora_rank=lora_rank, steps=8)
    one, two = tmp_path / "one", tmp_path / "two"
    steps = count(1)
    train(recipe, data, one, watcher=Watcher(stopped=lambda: next(steps) == 7))
    in_two_processes(data, two, lora_rank)

    (first,), (second,) = checkpoints(one), checkpoints(two)
    assert first.name == second.name == "step-0000007"
    weights = load_file(first / "model.safetensors")
    torch.manual_seed(recipe.seed)
    for name, begun in initial_network(recipe, None).named_parameters():  # what has not moved proves nothing
        assert weights[f"reader.network.{name}"].equal(begun) != begun.requires_grad, name
    assert_close(weights, load_file(second / "model.safetensors"))

    states = [torch.load(folder / "optimizer.pt", weights_only=True)["state"] for folder in (first, second)]
    assert states[0].keys() == states[1].keys()
    for number, moments in states[0].items():
        assert_close(moments, states[1][number])

    told, other = lines(one), lines(two)
    assert told.keys() == other.keys()
    for key, line in told.items():
        if "validation" in line:
            assert other[key]["samples"] == line["samples"]
            assert other[key]["validation"] == pytest.approx(line["validation"], abs=1e-4)
        else:
            for figure in ("loss", "norm"):
                assert other[key][figure] == pytest.approx(line[figure], rel=1e-3), (key, figure)
    for file in (one / "model").iterdir():
        assert (two / "model" / file.name).is_file()


def test_text_alone_gives_every_weight_a_gradient(data):
    """Of zero for the tower: processes that read pictures meanwhile wait for nothing."""
    network = initial_network(recipe_of(data), None)
    learner = Learner(Reader(network), None)
    text = packed([[Chain.of([((5, 6), False), ((7, 8), True)], "text")]], 0)
    said, _ = learner(Batch(None, Framed((1, 2), ()), text))
    torch.testing.assert_close(said.logprob, learner.reader(None, Framed((1, 2), ()), text)[0].logprob, rtol=0, atol=0)
    said.logprob.sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert ("visual" in name) == (not weight.grad.any()), name


def test_grpo_is_not_split(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = GrpoRecipe("tiny", str(data / "init"), records=("talk.json",), steps=1)
    with pytest.raises(RecipeError, match="without FSDP"):
        grpo.train(recipe, [], [], tmp_path)
