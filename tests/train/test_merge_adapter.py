"""Adapters merged into their base, when they are loaded and as a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_adapters import CARD, ask, network_of, oracle, refused, row, trained
from transformers import Qwen2VLForConditionalGeneration

from rsqa.engines.cards import CARDS, card_to_json, load_card
from rsqa.engines.registry import find_model, open_model
from rsqa.errors import ExitCode, OutputError
from rsqa.train.adapter import PARTS, save_adapter, with_lora
from rsqa.train.forward import Reader
from rsqa.train.merge import merge_adapter

peft = pytest.importorskip("peft")


def test_loading_and_merging_need_no_peft(saved, tmp_path):
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "import rsqa.train.adapter, rsqa.train.merge\n"
        "from pathlib import Path; from rsqa.engines.registry import load_engine\n"
        f"load_engine({str(saved)!r}, 'cpu')\n"
        f"rsqa.train.merge.merge_adapter(Path({str(saved)!r}), Path({str(tmp_path / 'out')!r}), None, 'auto', False)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_merge_is_that_of_peft(base, saved):
    ours, theirs, plain = network_of(saved), oracle(base, saved), network_of(base)
    changed = 0
    for (name, a), (_, b), (_, c) in zip(*(n.named_parameters() for n in (ours, theirs, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)
        changed += not torch.equal(a, c)
    assert changed == 2 * 7 + 2 * 4 + 2
    assert ours.lm_head.weight is ours.model.language_model.embed_tokens.weight


def published(folder, base, dtype):
    """`base` as a model folder with weights of another type."""
    network_of(base, dtype).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    (folder / "rsqa-card.json").write_text(card_to_json(CARD))
    return folder


@pytest.mark.parametrize(("stored", "kind"), [("float16", torch.float16), ("bfloat16", torch.float32)])
def test_an_adapter_takes_no_more_digits_than_its_base(base, tmp_path, stored, kind):
    small = published(tmp_path / "small", base, stored)
    network = trained(with_lora(network_of(small), 3, 6, list(PARTS)))
    save_adapter(tmp_path / "adapter", network, find_model(str(small)), CARD)
    assert {t.dtype for t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()} == {kind}
    ours, theirs = network_of(tmp_path / "adapter"), oracle(small, tmp_path / "adapter")
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)
    said = [Reader(each)(*row(each))[0].logprob for each in (network, ours)]
    torch.testing.assert_close(*said, rtol=0, atol=5e-3 if kind == torch.float16 else 1e-4)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "auto"])
def test_every_matrix_is_rounded_once(base, tmp_path, stored, dtype):
    small = published(tmp_path / "small", base, stored)
    save_adapter(tmp_path / "adapter", trained(with_lora(network_of(small), 3, 6)), find_model(str(small)), CARD)
    kind = getattr(torch, stored if dtype == "auto" else dtype)
    exact = dict(network_of(tmp_path / "adapter").named_parameters())
    rounded = network_of(tmp_path / "adapter", dtype)
    assert all(torch.equal(weight, exact[name].to(kind)) for name, weight in rounded.named_parameters())
    assert rounded.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_merged_folder_answers_as_the_adapter_does(base, saved, tmp_path, dtype):
    merge_adapter(saved, tmp_path / "merged", None, "auto", overwrite=False)
    logprob, text = ask(saved, dtype)
    merged_logprob, merged_text = ask(tmp_path / "merged", dtype)
    assert np.array_equal(logprob, merged_logprob)
    assert text == merged_text
    assert not np.allclose(logprob, ask(base, dtype)[0], atol=1e-2)


def test_a_merged_folder_is_a_whole_model(base, saved, tmp_path):
    out = tmp_path / "merged"
    merge_adapter(saved, out, None, "float16", overwrite=False)
    assert load_card(str(out)) == CARD
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"
    assert not any(name.startswith("adapter") for name in (path.name for path in out.iterdir()))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in out.iterdir())
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(out, dtype=torch.float16)
    expected = oracle(base, saved).half()
    for (name, a), (_, b) in zip(theirs.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_what_is_there_is_kept(base, saved, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    for overwrite in (False, True):  # no model lies there
        refused(lambda: merge_adapter(saved, out, None, "auto", overwrite), "is there", OutputError)  # noqa: B023
    for read in (base, saved):
        refused(lambda: merge_adapter(saved, read, None, "auto", True), "is there", OutputError)  # noqa: B023
    assert (out / "precious.txt").read_text() == "mine"
    merge_adapter(saved, tmp_path / "merged", None, "float16", overwrite=False)
    refused(lambda: merge_adapter(saved, tmp_path / "merged", None, "auto", False), "--overwrite", OutputError)
    merge_adapter(saved, tmp_path / "merged", None, "float32", overwrite=True)
    assert {t.dtype for t in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.float32}
    refused(lambda: merge_adapter(base, tmp_path / "new", None, "auto", False), "holds no adapter")


def test_a_merge_that_fails_leaves_nothing(saved, folder, tmp_path, monkeypatch):
    def full(self, part):
        (part / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "save_pretrained", full)
    refused(lambda: merge_adapter(saved, tmp_path / "merged", None, "auto", False), "No space left", OutputError)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_over_an_adapter(base, saved, tmp_path):
    network = trained(with_lora(network_of(saved), 2, 2, ["language"]), seed=1)
    save_adapter(tmp_path / "second", network, find_model(str(saved)), CARD)
    assert len(open_model(tmp_path / "second").adapters) == 2
    below = oracle(base, saved)
    expected = peft.PeftModel.from_pretrained(below, tmp_path / "second").merge_and_unload()
    for (name, a), (_, b) in zip(
        network_of(tmp_path / "second").named_parameters(), expected.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_an_adapter_of_peft_itself(base, tmp_path):
    """As people publish them: names of ends, no digest, no card; and with the names of transformers 4."""
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj", "fc1"], init_lora_weights=False)
    network = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    folder = tmp_path / "theirs"
    model = peft.get_peft_model(network, config)
    model.save_pretrained(folder)
    assert open_model(folder).adapters[0].base_weights_id == ""
    refused(lambda: find_model(str(folder)), "no rsqa-card.json; name one with --card")
    assert find_model(str(folder), "tinyrs").card == CARDS["tinyrs"]
    expected, path = model.merge_and_unload(), folder / "adapter_model.safetensors"
    older = {
        name.replace("model.language_model.layers", "model.layers").replace("model.visual", "visual"): tensor
        for name, tensor in load_file(path).items()
    }
    assert older.keys() != load_file(path).keys()
    for tensors in (load_file(path), older):
        save_file(tensors, path)
        for (name, a), (_, b) in zip(network_of(folder).named_parameters(), expected.named_parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)
    merge_adapter(folder, tmp_path / "merged", None, "auto", overwrite=False)
    assert not (tmp_path / "merged" / "rsqa-card.json").exists()


def test_the_command(saved, tmp_path, capsys):
    from rsqa.cli import run

    out = tmp_path / "merged"
    assert run(["merge-adapter", str(saved), str(out), "--dtype", "bfloat16"]) == ExitCode.DONE
    printed = capsys.readouterr()
    assert (printed.out.strip(), printed.err) == (str(out), "")
    assert find_model(str(out)).card == CARD
    assert run(["merge-adapter", str(saved), str(out)]) == ExitCode.OUTPUT
    assert "--overwrite" in capsys.readouterr().err
    assert run(["merge-adapter", str(saved), str(out), "--overwrite"]) == ExitCode.DONE
    assert run(["merge-adapter", str(tmp_path / "nothing"), str(tmp_path / "new")]) == ExitCode.MODEL
    assert run(["merge-adapter", str(saved), str(tmp_path / "new"), "--dtype", "int8"]) == ExitCode.USAGE
