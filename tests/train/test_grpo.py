from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json, load_card
from rsqa.errors import ModelError, OutputError, RecipeError
from rsqa.models.checkpoint import open_checkpoint
from rsqa.models.loading import load_network
from rsqa.tasks.prompts import PromptStyle
from rsqa.testing import write_random_checkpoint
from rsqa.train import grpo, rewards, sampling
from rsqa.train.checkpoint import checkpoints
from rsqa.train.grpo import train
from rsqa.train.grpo_log import paired
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.log import Watcher
from rsqa.train.prompts import EXACT, OPEN, Prompt
from rsqa.train.rewards import Reward

CARD = ModelCard("tiny", "Tiny", PromptStyle(system="Think.", reasoning=True), "Apache-2.0", side_px=28)
QUESTIONS = ("Rural or urban?", "Is there water?", "Which season?")


class Stream:
    """Prompts made up from their number."""

    def __len__(self):
        return 12

    def draw(self, first, n):
        return [prompt(number) for number in range(first, first + n)]


def prompt(number):
    pixels = np.random.default_rng(number).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    return Prompt(pixels, QUESTIONS[number % 3], EXACT, "rural")


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    folder = write_random_checkpoint(tmp_path_factory.mktemp("init") / "tiny", 1)
    (folder / CARD_FILE).write_text(card_to_json(CARD), encoding="utf-8")
    return str(folder)


def tiny_recipe(init):
    return GrpoRecipe(
        "tiny", init, records=("planted",), prompts=4, group=4, max_new_tokens=5, steps=4, micro=2, lr=1e-3, beta=0.01,
        bf16=False,
        eval_every=2, save_every=2,
    )  # fmt: skip


@pytest.fixture
def tiny(init):
    return tiny_recipe(init)


def letters(text, asked, judge):
    """A reward that a few steps can raise: the share of letters up to m among what was written."""
    low = sum("a" <= letter <= "m" for letter in text.lower()) / max(1, len(text))
    return Reward(low, low, 1.0)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "gated", letters)


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_bytes().splitlines()]


def weights(out):
    return load_file(checkpoints(out)[-1] / "model.safetensors")


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], msg=name, **tolerance)


def run(recipe, out, **more):
    train(recipe, Stream(), [prompt(100), prompt(101)], out, **more)
    return weights(out)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_planted_reward_is_learned_and_shuffled_rewards_are_not(tiny, planted, tmp_path, shuffled):
    recipe = replace(tiny, prompts=8, steps=24, micro=8, lr=4e-3, schedule="constant", beta=0.0, eval_every=24,
                     save_every=24, shuffle_rewards=shuffled)  # fmt: skip
    run(recipe, tmp_path / "run")
    reward = [line["reward"] for line in lines(tmp_path / "run") if "reward" in line]
    gain = np.mean(reward[-6:]) - np.mean(reward[:6])
    assert gain < 0.06 if shuffled else gain > 0.12, reward


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("change", [{}, {"reference_sync": 1, "skip_limit": 1, "updates": 2, "shuffle_rewards": True}])
def test_a_resumed_run_ends_with_the_same_weights(tiny, planted, tmp_path, change):
    recipe = replace(tiny, **change)
    whole = run(recipe, tmp_path / "whole")

    def die(line):
        if '"step": 3' in line:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, Stream(), [], tmp_path / "cut", watcher=Watcher(say=die))
    assert [folder.name for folder in checkpoints(tmp_path / "cut")] == ["step-0000002"]
    with pytest.raises(OutputError, match="--resume"):
        run(recipe, tmp_path / "cut")
    assert_same(run(recipe, tmp_path / "cut", resume=True), whole, rtol=0, atol=0)


def test_a_run_that_is_stopped_saves_its_step_and_goes_on(tiny, planted, tmp_path):
    """Step 3 has no checkpoint by the recipe."""
    whole = run(tiny, tmp_path / "whole")
    asked = iter([False, False, True])
    run(tiny, tmp_path / "cut", watcher=Watcher(stopped=lambda: next(asked)))
    assert [folder.name for folder in checkpoints(tmp_path / "cut")] == ["step-0000003"]
    assert_same(run(tiny, tmp_path / "cut", resume=True), whole, rtol=0, atol=0)


@pytest.fixture
def descent(monkeypatch):
    """Plain descent: the first step of AdamW would be the sign of the gradient, of noise around 0, too."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, lr, weight_decay: torch.optim.SGD(weights, lr=1.0))


@pytest.mark.parametrize("normalise", ["grpo", "bnpo", "dr_grpo"])
def test_micro_batches_change_nothing(tiny, planted, descent, tmp_path, normalise):
    recipe = replace(tiny, steps=1, normalise=normalise)
    one, eight = (run(replace(recipe, prompts=8, micro=micro), tmp_path / str(micro)) for micro in (1, 8))
    assert_same(one, eight, rtol=0, atol=1e-6)
    assert_same(run(replace(recipe, prompts=8, micro=8, recompute=True), tmp_path / "again"), eight, rtol=0, atol=1e-6)


def test_two_processes_share_the_prompts_of_a_step(tiny, planted, descent, tmp_path):
    """The same prompts, texts, weights and figures as in one process."""
    alone = run(tiny, tmp_path / "one")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, *launch, here / "grpo_process.py", tiny.init, tmp_path / "two"],
        env=os.environ | {"PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}", "ACCELERATE_USE_CPU": "true",
                          "OMP_NUM_THREADS": "1"},
        check=True, capture_output=True,
    )  # fmt: skip
    assert_same(weights(tmp_path / "two"), alone, rtol=0, atol=1e-5)
    one, two = (lines(tmp_path / name) for name in ("one", "two"))
    for line, other in zip(one, two, strict=True):
        for key in line.keys() - {"seconds", "samples", "validation", "right", "gain", "drawn"}:
            assert other[key] == pytest.approx(line[key], abs=2e-4), key
        for key in ("validation", "right", "gain"):
            assert other.get(key) == pytest.approx(line.get(key))


@pytest.fixture
def another_precision():
    """accelerate takes the precision of the first run of a process for all."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_bfloat16_learns_too(tiny, planted, another_precision, monkeypatch, tmp_path):
    """Texts are written with weights of 16 bits; what is learned is measured by the network that learns."""
    writing, loss = sampling.Writing, grpo.grpo_loss
    held, measured = set(), []

    def written(language, *rest):
        held.update((language.words.dtype, language.layers[0].qkv.dtype))
        return writing(language, *rest)

    def learned(logprob, judged, *rest):
        measured.append((logprob.detach(), judged.old))
        return loss(logprob, judged, *rest)

    monkeypatch.setattr(sampling, "Writing", written)
    monkeypatch.setattr(grpo, "grpo_loss", learned)
    run(replace(tiny, bf16=True, recompute=True), tmp_path)
    assert held == {torch.bfloat16}
    assert {weight.dtype for weight in weights(tmp_path).values()} == {torch.float32}
    assert measured
    assert all(now.dtype == torch.float32 and torch.equal(now, old) for now, old in measured)
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path) if "reward" in line)
    assert lines(tmp_path)[1]["kl"] == pytest.approx(0, abs=1e-6)


def test_equal_rewards_move_nothing(tiny, monkeypatch, tmp_path, init):
    """Without a KL term there is no gradient at all; with skipping there is not even a step."""
    monkeypatch.setitem(rewards.REWARDS, "gated", lambda text, asked, judge: Reward(1.1, 1.0, 0.1))
    before = {
        f"network.{name}": weight
        for name, weight in load_network(open_checkpoint(Path(init)), "cpu", "float32").state_dict().items()
        if name != "lm_head.weight"  # tied
    }
    for skip_limit, drawn in ((0, 4), (2, 12)):
        out = tmp_path / str(skip_limit)
        after = run(replace(tiny, steps=1, beta=0.0, skip_limit=skip_limit), out)
        assert_same(after, before, rtol=0, atol=0)
        (line,) = [line for line in lines(out) if "reward" in line]
        assert line["skipped"] == (1.0 if skip_limit else 0.0)
        assert line["drawn"] == drawn
        assert ("loss" in line) == (skip_limit == 0)


def test_groups_without_signal_are_replaced(tiny, monkeypatch, tmp_path):
    """Only questions about water have a signal: one prompt of three."""
    calls = iter(range(10**6))

    def reward(text, asked, judge):
        differs = float(next(calls)) if "water" in asked.question else 0.0
        return Reward(differs, 0.0, 0.0)

    monkeypatch.setitem(rewards.REWARDS, "gated", reward)
    run(replace(tiny, steps=1, skip_limit=3), tmp_path)
    (line,) = [line for line in lines(tmp_path) if "reward" in line]
    # 0..3 hold one, 4..6 one, 7..8 one, 9 none: three groups of the sixteen prompts at most.
    assert line["drawn"] == 10
    assert line["skipped"] == pytest.approx(0.7)


def test_a_judge_that_fails_takes_its_texts_out(tiny, monkeypatch, tmp_path):
    """Every second text has no reward: the step is that of the others, and the log counts them."""

    class Open(Stream):
        def draw(self, first, n):
            return [replace(prompt(number), answer_type=OPEN) for number in range(first, first + n)]

    calls = iter(range(10**6))

    def judge(asked, answer):
        if (call := next(calls)) % 2:
            raise ConnectionError
        return (call % 3) / 2

    monkeypatch.setattr(grpo, "load_judge", lambda spec: judge)
    train(replace(tiny, steps=1, reward="paper", judge="a:b"), Open(), [], tmp_path / "judged")
    assert lines(tmp_path / "judged")[0]["unjudged"] == 0.5
    assert np.isfinite(lines(tmp_path / "judged")[0]["loss"])
    train(replace(tiny, steps=1), Open(), [], tmp_path / "alone")  # without a judge nobody is asked
    assert lines(tmp_path / "alone")[0]["left_out"] == 1.0
    assert "reward" not in lines(tmp_path / "alone")[0]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_state(tiny, planted, monkeypatch, tmp_path):
    loss = grpo.grpo_loss
    calls = iter(range(100))
    monkeypatch.setattr(grpo, "grpo_loss", lambda *a: loss(*a) * (torch.nan if next(calls) >= 5 else 1))
    with pytest.raises(ModelError, match="lower lr") as error:
        run(tiny, tmp_path)
    assert "\n" not in str(error.value)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step-0000002"]
    assert all(weight.isfinite().all() for weight in weights(tmp_path).values())


def test_pictures_of_different_sizes_share_a_step(tiny, planted, tmp_path, init):
    folder = tmp_path / "native"
    folder.mkdir()
    for file in Path(init).iterdir():
        os.symlink(file, folder / file.name)
    (folder / CARD_FILE).unlink()
    (folder / CARD_FILE).write_text(card_to_json(replace(CARD, side_px=None)), encoding="utf-8")

    class Sizes(Stream):
        def draw(self, first, n):
            return [
                replace(p, pixels=np.zeros((3, 56, 56 + 28 * (i % 2)), np.uint8))
                for i, p in enumerate(super().draw(first, n))
            ]

    train(replace(tiny, init=str(folder), steps=1), Sizes(), [], tmp_path / "run")
    assert lines(tmp_path / "run")[0]["drawn"] == 4


def test_the_model_is_ready_for_inference_and_the_log_shows_texts(tiny, planted, tmp_path):
    run(tiny, tmp_path)
    card = load_card(str(tmp_path / "model"))
    assert (card.name, card.prompt.reasoning, card.prompt.system) == ("tiny", True, "Think.")
    before, held, last = [line for line in lines(tmp_path) if "validation" in line]
    assert [line["step"] for line in (before, held, last)] == [0, 2, 4]
    assert held["validation"].keys() == {"accuracy", "accuracy 1", "length", "malformed"}
    assert held["right"] == "00"
    assert held["samples"][0].keys() == {"question", "text", "answer"}
    assert lines(tmp_path)[-1]["gain"]["n"] == 2
    first = lines(tmp_path)[1]
    assert first.keys() >= {"reward", "accuracy", "malformed", "skipped", "kl", "clipped", "entropy", "length", "norm"}
    assert first["kl"] == pytest.approx(0, abs=1e-6)  # the network is still its reference
    assert 0 < first["entropy"] < np.log(400)


def test_an_adapter_is_trained_and_its_base_is_the_reference(tiny, planted, tmp_path):
    recipe = replace(tiny, lora_rank=2, lr=1e-2)
    whole = run(recipe, tmp_path / "whole")

    def die(line):
        if '"step": 3' in line:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, Stream(), [], tmp_path / "cut", watcher=Watcher(say=die))
    assert_same(run(recipe, tmp_path / "cut", resume=True), whole, rtol=0, atol=0)
    base = load_network(open_checkpoint(Path(tiny.init)), "cpu", "float32").state_dict()
    for name, weight in whole.items():
        own = name.removeprefix("network.").replace(".base_layer", "")
        assert torch.equal(weight, base[own]) if "lora" not in own else weight.abs().sum() > 0, name
    kl = [line["kl"] for line in lines(tmp_path / "whole") if "kl" in line]
    assert kl[0] == pytest.approx(0, abs=1e-6)  # B begins at zero
    assert max(kl) > 0.001
    assert (tmp_path / "whole" / "model" / "adapter_model.safetensors").is_file()


def test_a_gain_has_the_interval_of_paired_differences():
    draw = np.random.default_rng(0)
    before, after = (draw.integers(0, 2, 400) for _ in range(2))
    told = paired("".join(map(str, before)) + "-", "".join(map(str, after)) + "-")
    difference = after - before
    half = 1.96 * difference.std(ddof=1) / 20
    assert (told["n"], told["before"], told["after"]) == (400, before.mean(), after.mean())
    assert told["low"] == pytest.approx(difference.mean() - half)
    assert told["high"] == pytest.approx(difference.mean() + half)
    assert paired("1-", "1-") == {}


def test_init_must_reason(tiny, tmp_path):
    with pytest.raises(RecipeError, match="reason"):
        run(replace(tiny, init="tinyrs-nano"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 1}, "at least 2"),
        ({"steps": 0}, "steps is 0 and epochs"),
        ({"epochs": 2.0}, "set one of them"),
        ({"reward": "mine"}, "paper, gated"),
        ({"lr": 0.0}, "above 0"),
        ({"beta": float("nan")}, "not be below 0"),
        ({"micro": 0}, "at least 1"),
        ({"beta": 0.0, "reference_sync": 5}, "reference of its own"),
    ],
)
def test_a_recipe_that_makes_no_sense(tiny, change, message):
    with pytest.raises(RecipeError, match=message):
        replace(tiny, **change)
