"""Adapters as they are trained and saved, and word vectors beside them."""

from __future__ import annotations

import builtins

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_adapters import CARD, network_of, oracle, refused, row, trained

from rsqa.engines.registry import find_model, open_model
from rsqa.errors import UsageError
from rsqa.models.adapter import WORD_KEYS
from rsqa.models.merging import merge_adapters
from rsqa.train.adapter import PARTS, save_adapter, with_lora, without_lora
from rsqa.train.forward import Reader

pytest.importorskip("peft")


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


def test_what_is_loaded_says_what_was_trained(base, saved):
    network = trained(with_lora(network_of(base), 3, 6, list(PARTS)))
    loaded = network_of(saved)
    a, b = (Reader(each)(*row(each))[0].logprob for each in (network, loaded))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


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
