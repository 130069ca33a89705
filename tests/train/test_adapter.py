import builtins
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

from rsqa.engines.cards import CARDS, card_to_json, load_card
from rsqa.engines.registry import find_model, load_engine, locate, open_model
from rsqa.errors import ExitCode, ModelError, OutputError, RsqaError, UsageError
from rsqa.models.adapter import WORD_KEYS
from rsqa.models.loading import load_network
from rsqa.models.merging import merge_adapters
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import write_random_checkpoint
from rsqa.train.adapter import PARTS, save_adapter, with_lora, without_lora
from rsqa.train.forward import Framed, Reader
from rsqa.train.merge import merge_adapter
from rsqa.train.packing import Chain, packed

peft = pytest.importorskip("peft")

QUESTIONS = (
    Question("water", "Is there water?", "yesno", YES_NO),
    Question("words", "Describe the scene.", "open"),
)
CARD = replace(CARDS["tinyrs"], name="mine", max_new_tokens=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = write_random_checkpoint(tmp_path_factory.mktemp("models") / "base")
    (folder / "rsqa-card.json").write_text(card_to_json(CARD))
    return folder


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


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    network = trained(with_lora(network_of(base), 3, 6, list(PARTS)))
    save_adapter(folder, network, find_model(str(base)), CARD)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to be damaged."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for path in saved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(call, match, error=ModelError):
    with pytest.raises(error, match=match) as caught:
        call()
    assert isinstance(caught.value, RsqaError)
    assert "\n" not in str(caught.value)


def ask(model, dtype="float32"):
    chips = np.random.default_rng(0).integers(0, 256, (3, 3, 56, 84), dtype=np.uint8)
    closed, written = load_engine(str(model), "cpu", dtype).prepare(QUESTIONS, (56, 84), 2).answer(chips)
    return closed.option_logprob, written.text.tolist()


def test_only_the_adapter_is_trained_and_nothing_is_changed_at_first(base):
    network, plain = with_lora(network_of(base), 3, 6, ["language", "merger"]), network_of(base)
    said = [Reader(each)(*row(each))[0].logprob for each in (network, plain)]
    assert torch.equal(*said)
    names = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert names == {name for name, _ in network.named_parameters() if ".lora_" in name}
    assert len(names) == 2 * (2 * 7 + 2)
    assert not any("blocks" in name for name in names)
    said[0].sum().backward()
    grads = {name: weight.grad for name, weight in network.named_parameters()}
    assert all((grad is not None) == (name in names) for name, grad in grads.items())
    assert all(grads[name].abs().sum() > 0 for name in names if "lora_B" in name)


def row(network):
    """Two pictures with two questions each."""
    pixels = torch.randint(0, 256, (2, 3, 56, 56), generator=torch.Generator().manual_seed(1)).float()
    chain = Chain.of([((5, 6, 7), False), ((8, 9), True)], "yesno")
    return pixels, Framed((1, 2), (3,)), packed([[chain, chain], [chain]], fill=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_layers_give_the_same_gradients(base, dtype):
    gradients = []
    for recompute in (False, True):
        network = trained(with_lora(network_of(base, dtype), 3, 6, list(PARTS)))
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        assert all(weight.dtype == torch.float32 for weight in weights)
        reader = Reader(network, recompute=recompute)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            said, _ = reader(*row(network))
        gradients.append(torch.autograd.grad(said.logprob.sum(), weights))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_without_it_the_network_is_its_base(base):
    network, plain = trained(with_lora(network_of(base), 3, 6)), network_of(base)
    policy, _ = Reader(network)(*row(network))
    with without_lora(network), torch.no_grad():
        reference, _ = Reader(network)(*row(network))
    assert torch.equal(reference.logprob, Reader(plain)(*row(plain))[0].logprob)
    assert not torch.allclose(reference.logprob, policy.logprob)
    policy.logprob.sum().backward()  # between the two the adapter was switched off
    assert all(weight.grad.abs().sum() > 0 for weight in network.parameters() if weight.requires_grad)
    with pytest.raises(ZeroDivisionError), without_lora(network):
        raise ZeroDivisionError
    assert torch.equal(Reader(network)(*row(network))[0].logprob, policy.logprob)


def test_an_unknown_part_and_a_missing_peft(base, monkeypatch):
    refused(lambda: with_lora(network_of(base), 3, 6, ["words"]), "unknown part 'words'.*language, merger", UsageError)
    imported = builtins.__import__

    def without_peft(name, *rest, **more):
        if name == "peft":
            raise ImportError("No module named 'peft'")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    refused(lambda: with_lora(network_of(base), 3, 6), r'pip install "rsqa\[train\]"', UsageError)


def test_loading_and_merging_need_no_peft(saved, tmp_path):
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "import rsqa.train.adapter, rsqa.train.merge\n"
        "from pathlib import Path; from rsqa.engines.registry import load_engine\n"
        f"load_engine({str(saved)!r}, 'cpu')\n"
        f"rsqa.train.merge.merge_adapter(Path({str(saved)!r}), Path({str(tmp_path / 'out')!r}), None, 'auto', False)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def oracle(base, adapter):
    """peft's own merge of what it reads from the files."""
    network = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(network, adapter).merge_and_unload()


def test_the_merge_is_that_of_peft(base, saved):
    ours, theirs, plain = network_of(saved), oracle(base, saved), network_of(base)
    changed = 0
    for (name, a), (_, b), (_, c) in zip(*(n.named_parameters() for n in (ours, theirs, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)
        changed += not torch.equal(a, c)
    assert changed == 2 * 7 + 2 * 4 + 2
    assert ours.lm_head.weight is ours.model.language_model.embed_tokens.weight


def test_what_is_loaded_says_what_was_trained(base, saved):
    network = trained(with_lora(network_of(base), 3, 6, list(PARTS)))
    loaded = network_of(saved)
    a, b = (Reader(each)(*row(each))[0].logprob for each in (network, loaded))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


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


@pytest.fixture(scope="module")
def with_words(base, tmp_path_factory):
    """An adapter with word vectors of its own."""
    folder = tmp_path_factory.mktemp("words") / "adapter"
    network = trained(with_lora(network_of(base), 3, 6, words=True))
    with torch.no_grad():
        network.model.language_model.embed_tokens.weight.mul_(-0.5)
    save_adapter(folder, network, find_model(str(base)), CARD)
    return folder, network


def test_word_vectors_are_trained_beside_it(base):
    network = with_lora(network_of(base), 3, 6, words=True)
    Reader(network)(*row(network))[0].logprob.sum().backward()
    names = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert names - {name for name in names if ".lora_" in name} == {"model.language_model.embed_tokens.weight"}


def test_word_vectors_are_saved_and_merged_as_peft_does(base, with_words):
    folder, network = with_words
    ours, theirs = network_of(folder), oracle(base, folder)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)
    assert ours.lm_head.weight is ours.model.language_model.embed_tokens.weight
    assert torch.equal(theirs.lm_head.weight, ours.lm_head.weight)
    assert not torch.equal(ours.lm_head.weight, network_of(base).lm_head.weight)
    a, b = (Reader(each)(*row(each))[0].logprob for each in (network, ours))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_an_adapter_over_one_with_word_vectors_leaves_them(with_words, tmp_path):
    below = network_of(with_words[0])
    save_adapter(tmp_path / "second", trained(with_lora(below, 2, 2), 1), find_model(str(with_words[0])), CARD)
    words = [network_of(f).model.language_model.embed_tokens.weight for f in (with_words[0], tmp_path / "second")]
    assert torch.equal(*words)


def test_word_vectors_without_a_tied_head_are_refused(base, with_words):
    network = network_of(base)
    network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone())
    refused(lambda: with_lora(network, 3, 6, words=True), "head of this model has words of its own", UsageError)
    refused(lambda: merge_adapters(network, open_model(with_words[0]).adapters, None), "head that is not tied to them")


def test_word_vectors_of_another_size_or_head_are_refused(with_words, tmp_path):
    copy = tmp_path / "adapter"
    copy.mkdir()
    for path in with_words[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = copy / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    name = f"base_model.model.{WORD_KEYS[0]}"
    for wrong in (tensors[name][:-1].clone(), tensors[name] + 1):
        save_file(tensors | {name: wrong}, path, header)
        refused(lambda: network_of(copy), "word vectors .*another base")


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
