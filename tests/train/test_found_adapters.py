"""Which adapters are taken, over which base, and why others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_adapters import CARD, ask, edit, network_of, refused, trained

from rsqa.engines.registry import find_model, load_engine, locate, open_model
from rsqa.testing import write_random_checkpoint
from rsqa.train.adapter import save_adapter, with_lora
from rsqa.train.merge import merge_adapter

pytest.importorskip("peft")


def test_the_id_is_of_the_base_and_of_the_adapter(base, saved, folder, tmp_path):
    first = find_model(str(saved)).weights_id
    assert first == find_model(str(folder)).weights_id != find_model(str(base)).weights_id
    path = folder / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    tensors[min(tensors)][0, 0] += 1
    save_file(tensors, path, header)
    changed = find_model(str(folder))
    assert changed.weights_id != first
    assert locate(changed).weights_id() == changed.weights_id
    assert locate(changed).weight_bytes == path.stat().st_size + (base / "model.safetensors").stat().st_size


def test_an_adapter_of_its_own(folder):
    edit(folder / "adapter_config.json", base_model_name_or_path=str(folder))
    refused(lambda: find_model(str(folder)), "its own base")


def test_another_base_is_refused(saved, folder, tmp_path):
    other = write_random_checkpoint(tmp_path / "other", seed=1)
    refused(lambda: open_model(saved, str(other)), "changes a model of weights .*--base")
    refused(lambda: merge_adapter(saved, tmp_path / "out", str(other), "auto", False), "changes a model")
    edit(folder / "adapter_config.json", base_model_name_or_path=str(other))
    refused(lambda: find_model(str(folder)), "changes a model")
    assert not (tmp_path / "out").exists()


def test_a_base_that_moved_is_named(base, folder, tmp_path):
    edit(folder / "adapter_config.json", base_model_name_or_path="/no/such/folder")
    refused(lambda: find_model(str(folder)), "is not on this machine.*--base MODEL")
    merge_adapter(folder, tmp_path / "merged", str(base), "auto", overwrite=False)
    (folder.parent / "base").symlink_to(base)
    edit(folder / "adapter_config.json", base_model_name_or_path="../base")
    assert find_model(str(folder)).card == CARD


def test_a_hub_name_in_an_adapter_is_looked_up_but_never_fetched(base, folder, tmp_path, monkeypatch):
    import huggingface_hub
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    asked = []
    snapshot = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: asked.append(k["local_files_only"]) or snapshot(*a, **k)
    )
    edit(folder / "adapter_config.json", base_model_name_or_path="nobody/no-such-model")
    refused(lambda: find_model(str(folder)), "'nobody/no-such-model' .* is not on this machine")
    home, commit = tmp_path / "models--nobody--no-such-model", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(base)
    ask(folder)
    assert asked
    assert all(asked)


def test_an_adapter_of_the_embedded_model_may_be_embedded(tmp_path, monkeypatch):
    from rsqa.engines import registry

    shelf = tmp_path / "weights"
    shelf.mkdir()
    (shelf / "tinyrs-nano").symlink_to(registry.embedded_folder())
    monkeypatch.setattr(registry, "_shelf", lambda: shelf)
    ref = find_model()
    save_adapter(shelf / "tinyrs-nano-r1", trained(with_lora(network_of(shelf / "tinyrs-nano"), 2, 2)), ref, CARD)
    config = json.loads((shelf / "tinyrs-nano-r1" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tinyrs-nano"
    assert registry.embedded_names() == ["tinyrs-nano", "tinyrs-nano-r1"]
    second = find_model("tinyrs-nano-r1")
    assert (second.name, second.folder, second.card) == ("tinyrs-nano-r1", "", CARD)
    there = registry.ModelRef.from_json(json.loads(json.dumps(second.to_json())))
    assert load_engine(there, "cpu").card == CARD
    assert find_model(adapter=Path("tinyrs-nano-r1")) == second
    refused(lambda: find_model(adapter=Path("tinyrs-nano")), "holds no adapter")
    refused(lambda: find_model("tinyrs-nano-r2"), "did you mean 'tinyrs-nano-r1'")


def test_a_folder_of_the_name_of_the_embedded_model(base, tmp_path):
    (tmp_path / "tinyrs-nano").symlink_to(base)
    mine = tmp_path / "mine" / "tinyrs-nano"
    mine.mkdir(parents=True)
    for path in base.iterdir():
        (mine / path.name).symlink_to(path)
    assert load_engine(find_model(str(mine)), "cpu").card == CARD


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"peft_type": "LOHA"}, "type 'LOHA'"),
        ({"use_dora": True}, "use_dora = True"),
        ({"use_rslora": True}, "use_rslora = True"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save.*ensure_weight_tying"),
        ({"a_setting_of_tomorrow": "on"}, "a_setting_of_tomorrow"),
        ({"bias": "all"}, "more of its base"),
        ({"init_lora_weights": "pissa"}, "more of its base"),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"target_modules": "(q_proj"}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"r": 0}, "r = 0"),
        ({"r": "3"}, "r = '3'"),
        ({"lora_alpha": None}, "lora_alpha = None"),
    ],
)
def test_settings_that_are_refused(folder, values, match):
    edit(folder / "adapter_config.json", **values)
    refused(lambda: find_model(str(folder)), match)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_truncated_weights_of_an_adapter(folder, keep):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(lambda: find_model(str(folder)), "truncated or no safetensors")


def test_an_adapter_without_weights_and_a_pickled_one(folder):
    (folder / "adapter_model.safetensors").unlink()
    refused(lambda: find_model(str(folder)), "no adapter_model.safetensors in 'adapter'; save")
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(lambda: find_model(str(folder)), "pickle .*which can run code")


def test_a_broken_configuration(folder):
    (folder / "adapter_config.json").write_text("{")
    refused(lambda: find_model(str(folder)), "can't be read")


LAST = "base_model.model.model.visual.merger.mlp.2.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(LAST), "1 missing weights, model.visual.merger.mlp.2.lora_B.weight"),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 48)}), "1 unexpected .*lm_head"),
        (lambda t: t.update({LAST: torch.zeros(47, 3)}), r"B \(47, 3\).*another base"),
        (lambda t: t[LAST].view(-1)[3:4].fill_(float("nan")), "no finite numbers"),
    ],
)
def test_weights_that_are_refused(folder, change, match):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    refused(lambda: load_engine(str(folder), "cpu"), match)
