"""Adapters folded into the weights of their base, so that nothing is slower for them.

I inputs, O outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsqa.errors import ModelError
from rsqa.models.adapter import WORD_KEYS, Adapter


def merge_adapters(network: Any, adapters: Sequence[Adapter], dtype: torch.dtype | None) -> None:
    """W + Σ alpha / r · B A in float32, rounded once: to `dtype`, as all other weights, or to what W was.

    Word vectors that an adapter brings take the place of its base's. ModelError when an adapter was not made for a
    network of this shape.
    """
    changes = [(adapter.scale, *_parts(adapter, network)) for adapter in adapters]
    for key, weight in network.named_parameters():
        name, kind = key.removesuffix(".weight"), dtype or weight.dtype
        wide = weight.data
        for scale, pairs, whole in changes:
            if name in whole:
                wide = whole[name]
            elif name in pairs:
                a, b = pairs[name]
                wide = wide.float() + scale * (b @ a)
        weight.data = wide.to(kind)


def _parts(adapter: Adapter, network: Any) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """-> A (r, I) and B (O, r) by the name of the linear layer that they change, and what is replaced; float32."""
    name = adapter.folder.name
    layers = {
        path: module
        for path, module in network.model.named_modules(prefix="model")  # without the head, which may be tied
        if isinstance(module, nn.Linear) and adapter.changes(path)
    }
    tensors = {_current(key): tensor.float() for key, tensor in load_file(adapter.weights).items()}
    wanted = {f"{path}.lora_{side}.weight" for path in layers for side in "AB"}
    if adapter.words:
        wanted |= {*WORD_KEYS}
    for what, keys in (("missing", wanted - tensors.keys()), ("unexpected", tensors.keys() - wanted)):
        if keys:
            raise ModelError(f"adapter {name!r} has {len(keys)} {what} weights, {min(keys)} among them; is it whole?")
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"adapter {name!r} has weights that are no finite numbers ({key}); fetch it again")
    pairs = {}
    for path, module in layers.items():
        a, b = (tensors[f"{path}.lora_{side}.weight"] for side in "AB")
        outputs, inputs = module.weight.shape
        if a.shape != (adapter.rank, inputs) or b.shape != (outputs, adapter.rank):
            raise ModelError(
                f"adapter {name!r} has A {tuple(a.shape)} and B {tuple(b.shape)}, rank {adapter.rank}, for {path} of "
                f"{outputs} x {inputs}; it was made for another base"
            )
        pairs[path] = a, b
    return pairs, _words(name, tensors, network) if adapter.words else {}


def _words(name: str, tensors: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """-> the word vectors of an adapter, by the name of what they replace."""
    words, head = (tensors[key] for key in WORD_KEYS)
    here = network.model.language_model.embed_tokens.weight
    tied = network.lm_head.weight is here and torch.equal(words, head)
    if words.shape != here.shape or not tied:
        raise ModelError(
            f"adapter {name!r} has word vectors {tuple(words.shape)} for {tuple(here.shape)}, or a head that is not "
            "tied to them; it was made for another base"
        )
    return {WORD_KEYS[0].removesuffix(".weight"): words}


def _current(key: str) -> str:
    """Names of peft are those of its wrapper around the network; transformers before 5 had shorter paths within."""
    path = key.removeprefix("base_model.model.")
    for old, new in (("model.layers.", "model.language_model.layers."), ("visual.", "model.visual.")):
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path
