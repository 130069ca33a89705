from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rsqa.engines.cards import load_card
from rsqa.errors import OutputError
from rsqa.models.packing import TokenTree
from rsqa.train import words
from rsqa.train.checkpoint import checkpoints
from rsqa.train.data import IGNORE, Picture, PictureSet, hints, packed
from rsqa.train.recipe import Recipe
from rsqa.train.sft import (
    NANO_STYLE,
    PackedAnswers,
    float32_attention,
    learning_rate,
    new_model,
    packed_mask,
    train,
)
from rsqa.train.tokenizer import train_tokenizer
from rsqa.train.turns import Asker, Facts

TINY = Recipe(
    "tiny", vocab_size=600, vision_depth=1, vision_width=32, vision_heads=2, hidden=64, layers=2, heads=2, kv_heads=1,
    intermediate=96, side_px=28, ucm=0.0, aid=1.0, vhr10=0.0, airports=0.0, scenes=0.0, suffix_tokens=120, crop_min=0.9,
    jitter=0.0, blend=0.0, batch=8, asked=8, steps=6, warmup=1, decay=1, lr_vision=3e-3, lr_merger=3e-3,
    lr_language=3e-3, bf16=False, log_every=1, eval_every=6, eval_pictures=8, save_every=3,
)  # fmt: skip
COLOURS = {"Forest": (30, 90, 30), "Beach": (220, 200, 150), "Pond": (40, 60, 160), "Desert": (200, 140, 60)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of one colour a class: what must be learned is planted."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(80):
        name = list(COLOURS)[i % len(COLOURS)]
        stream = io.BytesIO()
        Image.new("RGB", (32, 32), COLOURS[name]).save(stream, "PNG")
        rows.append(
            {"id": f"{name}_{i}.jpg", "image": stream.getvalue(), "cls": name, "captions": [f"It is a {name} ."]}
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "aid.parquet")
    return folder


@pytest.fixture(scope="module")
def answers():
    texts = ["Is there a river? yes no What kind of scene is this? forest beach assistant user system"] * 50
    tokenizer = train_tokenizer(texts, TINY.vocab_size)
    return PackedAnswers(new_model(TINY, tokenizer), tokenizer).eval(), tokenizer


def some_turns():
    facts = Facts(name="forest", family=("forest", "beach", "pond"))
    asker, rng = Asker(NANO_STYLE), np.random.default_rng(0)
    return [
        asker.presence(rng, "river", True), asker.class_free(rng, facts), asker.presence(rng, "trees", False),
        asker.class_of_list(rng, facts, ()),
    ]  # fmt: skip


def nothing_known(n):
    return hints([Facts()] * n, [torch.zeros((4, 4, len(words.GROUND)), dtype=torch.uint8)] * n)


def losses(answers, tokenizer, pixels, turns, length):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    batch = packed(
        pixels, nothing_known(len(turns)), turns, encode, tokenizer.convert_tokens_to_ids("<|im_end|>"), length
    )
    with torch.no_grad():
        logits, _ = answers(batch.pixels, batch.ids, batch.turn, batch.depth, batch.labels)
    return torch.nn.functional.cross_entropy(logits, batch.labels[batch.labels != IGNORE], reduction="none")


def test_packed_turns_have_the_loss_of_separate_turns(answers):
    model, tokenizer = answers
    pixels = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 255
    turns = some_turns()
    together = losses(model, tokenizer, pixels, [turns, turns[::-1]], 400)
    alone = [
        losses(model, tokenizer, pixels[i : i + 1], [[turn]], 150)
        for i, row in enumerate((turns, turns[::-1]))
        for turn in row
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert together.std() > 0.01


def test_mask_equals_that_of_the_token_tree():
    tree = TokenTree()
    lengths = (3, 1, 4)
    for number, length in enumerate(lengths):
        tree.add(range(10 * number, 10 * number + length))
    turn = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    n_prefix = 2
    mask = packed_mask(turn, n_prefix)[0, 0]
    assert torch.equal(mask[n_prefix:, n_prefix:], tree.mask())
    assert mask[n_prefix:, :n_prefix].all()
    assert torch.equal(mask[:n_prefix, :n_prefix], torch.ones(2, 2, dtype=torch.bool).tril())
    assert not mask[:n_prefix, n_prefix:].any()


def test_attention_in_float32_is_the_same_attention():
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(float32_attention(q, k, v), expected)


def test_rate_warms_up_stays_and_falls_to_zero():
    recipe = replace(TINY, steps=100, warmup=10, decay=20)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[-1] == pytest.approx(0.05)
    assert rates[80:] == sorted(rates[80:], reverse=True)


class KilledError(Exception):
    """Stands for a kill."""


def test_a_resumed_run_ends_with_the_same_weights(data, tmp_path):
    train(TINY, data, tmp_path / "whole", echo=lambda line: None)

    def die_in_step_5(line):
        if '"step": 5' in line:
            raise KilledError

    with pytest.raises(KilledError):
        train(TINY, data, tmp_path / "cut", echo=die_in_step_5)
    assert [folder.name for folder in checkpoints(tmp_path / "cut")] == ["step-0000003"]
    with pytest.raises(OutputError, match="--resume"):
        train(TINY, data, tmp_path / "cut", echo=lambda line: None)
    train(TINY, data, tmp_path / "cut", resume=True, echo=lambda line: None)
    whole, cut = (load_file(checkpoints(tmp_path / run)[-1] / "model.safetensors") for run in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, cut[name]), name


def test_the_planted_pattern_is_learned(data, tmp_path):
    recipe = replace(TINY, steps=90, batch=16, asked=16, warmup=10, decay=30, eval_every=90, save_every=90)
    model = train(recipe, data, tmp_path / "run", echo=lambda line: None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    loss = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(loss[-5:]) < 0.45 * np.mean(loss[:5])
    assert lines[-1]["validation"]["aid class"] >= 0.9
    assert load_card(str(model)).side_px == recipe.side_px
    assert (model / "model.safetensors").stat().st_size < 2 * 1.1 * load_card(str(model)).parameters


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings(
    "default:The .grad attribute of a Tensor"
)  # torch looks, hides its warning, meets our "error"
def test_a_compiled_run_has_the_losses_of_a_plain_one(data, tmp_path):
    losses = []
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        train(replace(TINY, compile=compiled), data, out, echo=lambda line: None)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert len(losses[0]) == TINY.steps
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)


def test_rare_windows_are_drawn_more_often():
    pictures = [Picture(str(i), np.zeros((3, 4, 4), np.uint8), facts) for i, facts in enumerate(
        [Facts(present=frozenset({"ship"}))] + [Facts(present=frozenset({"water"}))] * 9)]  # fmt: skip
    rng = np.random.default_rng(0)

    def ships(rare):
        drawn = PictureSet.of("p", pictures, rare=rare)
        return sum(drawn.draw(rng).id == "0" for _ in range(4000)) / 4000

    assert ships(()) == pytest.approx(0.1, abs=0.02)
    # Weights 1 + 1/0.1 for the ship, 1 + 1/0.9 for the nine others.
    assert ships(("ship", "water")) == pytest.approx(11 / (11 + 9 * (1 + 1 / 0.9)), abs=0.03)


def test_resume_without_a_checkpoint_is_an_error(data, tmp_path):
    with pytest.raises(OutputError, match="no checkpoint"):
        train(TINY, data, tmp_path / "new", resume=True, echo=lambda line: None)
