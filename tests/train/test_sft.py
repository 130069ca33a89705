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
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rsqa.engines.cards import load_card
from rsqa.errors import OutputError
from rsqa.models.packing import TokenTree
from rsqa.train import turns as making
from rsqa.train.batch import Batch, split
from rsqa.train.checkpoint import checkpoints
from rsqa.train.data import Phrasing
from rsqa.train.facts import Facts
from rsqa.train.forward import FLOAT32_ATTENTION, Framed, Reader
from rsqa.train.log import Watcher
from rsqa.train.nano import NANO_STYLE, new_network
from rsqa.train.packing import IGNORE, Chain, packed, packed_mask
from rsqa.train.pictures import Picture, PictureSet
from rsqa.train.recipe import Recipe
from rsqa.train.sft import learning_rate, train
from rsqa.train.tokenizer import train_tokenizer

TINY = Recipe(
    "tiny", "instruct", vocab_size=600, vision_depth=1, vision_width=32, vision_heads=2, hidden=64, layers=2, heads=2,
    kv_heads=1, intermediate=96, side_px=28, aid=1.0, suffix_tokens=120, crop_min=0.9, jitter=0.0, blend=0.0, batch=8,
    asked=8, hint=1.0, steps=6, schedule="stable", warmup=1, decay=1, lr_vision=3e-3, lr_merger=3e-3, lr_language=3e-3,
    beta2=0.98, weight_decay=0.05, bf16=False, log_every=1, eval_every=6, eval_pictures=8, save_every=3,
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
def reader():
    texts = ["Is there a river? yes no What kind of scene is this? forest beach assistant user system"] * 50
    tokenizer = train_tokenizer(texts, TINY.vocab_size)
    return Reader(new_network(TINY, tokenizer)).eval(), tokenizer


def some_turns():
    facts = Facts(name="forest", family=("forest", "beach", "pond"))
    rng = np.random.default_rng(0)
    return [
        making.presence(rng, "river", True, Facts()), making.class_free(rng, facts),
        making.presence(rng, "trees", False, Facts()), making.class_of_list(rng, facts, ()),
    ]  # fmt: skip


def phrasing_of(tokenizer):
    return Phrasing(lambda text: tokenizer.encode(text, add_special_tokens=False), NANO_STYLE)


def pixels_of(n, height=28, width=28):
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(0)).float()


def test_packed_turns_have_the_loss_of_separate_turns(reader):
    model, tokenizer = reader
    pixels, phrasing, turns = pixels_of(2), phrasing_of(tokenizer), some_turns()
    rows = [phrasing.row(turns), phrasing.row(turns[::-1])]
    with torch.no_grad():
        together = model(pixels, phrasing.framed, packed(rows, 0, 400))[0].logprob
        alone = [
            model(pixels[i : i + 1], phrasing.framed, packed([[chain]], 0, 150))[0].logprob
            for i, row in enumerate(rows)
            for chain in row
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert together.std() > 0.01


@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradient_are_those_of_transformers(reader, recompute):
    """One conversation a picture, pictures that are not square; transformers gets the same tokens in one row."""
    model, tokenizer = reader
    network = model.network
    pixels, phrasing = pixels_of(2, 56, 84), phrasing_of(tokenizer)
    chains = [phrasing.chain(turn) for turn in some_turns()[:2]]
    framed, tested = phrasing.framed, Reader(network, recompute=recompute)

    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 784, "longest_edge": 12_845_056})
    losses, gradients = [], []
    for i, chain in enumerate(chains):
        pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        ids = [*framed.before, *[pad] * 6, *framed.after, *chain.ids, 0]
        # transformers shifts the labels itself: the token after the last one is what that must predict.
        labels = [IGNORE] * (len(ids) - len(chain.ids)) + [*chain.labels]
        ids[-1] = chain.labels[-1]
        shown = processor(images=pixels[i].byte().permute(1, 2, 0).numpy(), return_tensors="pt")
        row = torch.tensor([ids])
        out = network(input_ids=row, labels=torch.tensor([labels]), mm_token_type_ids=(row == pad).int(), **shown)
        losses.append(out.loss * sum(label != IGNORE for label in chain.labels))
    expected = torch.stack(losses).sum()
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    network.zero_grad()

    said, _ = tested(pixels, framed, packed([[chain] for chain in chains], 0))
    loss = -said.logprob.sum()
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-3, atol=1e-4, msg=name)
    network.zero_grad()


def test_accumulated_gradients_are_those_of_the_whole_batch(reader):
    model, tokenizer = reader
    phrasing, turns = phrasing_of(tokenizer), some_turns()
    rows = [phrasing.row([turns[i % 4], turns[(i + 1) % 4]]) for i in range(8)]
    whole = Batch(pixels_of(8), phrasing.framed, packed(rows, 0, 300))
    gradients = []
    for n in (1, 8):
        for piece in split(whole, n):
            said, _ = model(piece.pixels, piece.framed, piece.text)
            (-said.logprob.sum() / whole.text.n_learned).backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        model.zero_grad()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_text_alone_is_read_without_a_picture(reader):
    model, tokenizer = reader
    ids = tokenizer.encode("Is there a river? yes", add_special_tokens=False)
    chain = Chain.of([(ids[:3], False), (ids[3:], True)], "text")
    said, visual = model(None, Framed((1, 2), ()), packed([[chain]], 0))
    logits = model.network(input_ids=torch.tensor([[1, 2, *ids]])).logits[0, 1 + 3 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids[3:])[:, None])[:, 0]
    torch.testing.assert_close(said.logprob, expected, rtol=0, atol=1e-5)
    assert visual is None


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
        torch.testing.assert_close(FLOAT32_ATTENTION.vision(q, k, v), expected)


def test_rate_warms_up_stays_and_falls_to_zero():
    recipe = replace(TINY, steps=100, warmup=10, decay=20)
    rates = [learning_rate(step, recipe, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[-1] == pytest.approx(0.05)
    assert rates[80:] == sorted(rates[80:], reverse=True)


def test_cosine_falls_from_the_peak_to_zero():
    recipe = replace(TINY, schedule="cosine", warmup=0, warmup_ratio=0.03)
    rates = [learning_rate(step, recipe, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 30)
    assert rates[30] == 1.0
    assert rates[515] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 1e-5
    assert rates[30:] == sorted(rates[30:], reverse=True)


class KilledError(Exception):
    """Stands for a kill."""


def test_a_resumed_run_ends_with_the_same_weights(data, tmp_path):
    train(TINY, data, tmp_path / "whole")

    def die_in_step_5(line):
        if '"step": 5' in line:
            raise KilledError

    with pytest.raises(KilledError):
        train(TINY, data, tmp_path / "cut", watcher=Watcher(say=die_in_step_5))
    assert [folder.name for folder in checkpoints(tmp_path / "cut")] == ["step-0000003"]
    with pytest.raises(OutputError, match="--resume"):
        train(TINY, data, tmp_path / "cut")
    train(TINY, data, tmp_path / "cut", resume=True)
    whole, cut = (load_file(checkpoints(tmp_path / run)[-1] / "model.safetensors") for run in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, cut[name]), name


def test_the_planted_pattern_is_learned(data, tmp_path):
    recipe = replace(TINY, steps=150, batch=16, asked=16, warmup=10, decay=50, eval_every=150, save_every=150)
    model = train(recipe, data, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_bytes().splitlines()]
    loss = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(loss[-5:]) < 0.45 * np.mean(loss[:5])
    assert lines[-1]["validation"]["aid class"] >= 0.9
    samples = lines[-1]["samples"]
    assert len(samples) == 4
    assert sum(sample["text"] == sample["answer"] for sample in samples) >= 2, samples
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
        train(replace(TINY, compile=compiled), data, out)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_bytes().splitlines()]
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
        train(TINY, data, tmp_path / "new", resume=True)
