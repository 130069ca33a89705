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
from rsqa.models.adapter import Adapter


def merge_adapters(network: Any, adapters: Sequence[Adapter], dtype: torch.dtype | None) -> None:
    """W + Σ alpha / r · B A in float32, rounded once: to `dtype`, as all other weights, or to what W was.

    ModelError when an adapter was not made for a network of this shape.
    """
    changes = [(adapter.scale, _pairs(adapter, network)) for adapter in adapters]
    for key, weight in network.named_parameters():
        name, kind = key.removesuffix(".weight"), dtype or weight.dtype
        wide = weight.data
        for scale, pairs in changes:
            if name in pairs:
                a, b = pairs[name]
                wide = wide.float() + scale * (b @ a)
        weight.data = wide.to(kind)


def _pairs(adapter: Adapter, network: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """-> A (r, I) and B (O, r) in float32 by the name of the linear layer that they change."""
    name = adapter.folder.name
    layers = {
        path: module
        for path, module in network.model.named_modules(prefix="model")  # without the head, which may be tied
        if isinstance(module, nn.Linear) and adapter.changes(path)
    }
    tensors = {_current(key): tensor.float() for key, tensor in load_file(adapter.weights).items()}
    wanted = {f"{path}.lora_{side}.weight" for path in layers for side in "AB"}
    for what, keys in (("missing", wanted - tensors.keys()), ("unexpected", tensors.keys() - wanted)):
        if keys:
            raise ModelError(f"adapter {name!r} has {len(keys)} {what} weights, {min(keys)} among them; is it whole?")
    pairs = {}
    for path, module in layers.items():
        a, b = (tensors[f"{path}.lora_{side}.weight"] for side in "AB")
        outputs, inputs = module.weight.shape
        if a.shape != (adapter.rank, inputs) or b.shape != (outputs, adapter.rank):
            raise ModelError(
                f"adapter {name!r} has A {tuple(a.shape)} and B {tuple(b.shape)}, rank {adapter.rank}, for {path} of "
                f"{outputs} x {inputs}; it was made for another base"
            )
        if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise ModelError(f"adapter {name!r} has weights that are no finite numbers ({path}); fetch it again")
        pairs[path] = a, b
    return pairs


def _current(key: str) -> str:
    """Names of peft are those of its wrapper around the network; transformers before 5 had shorter paths within."""
    path = key.removeprefix("base_model.model.")
    for old, new in (("model.layers.", "model.language_model.layers."), ("visual.", "model.visual.")):
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path
