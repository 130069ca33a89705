"""LoRA around the layers of a network (arXiv 2106.09685): the base stands still, matrices of low rank are trained.

peft makes and names the layers; what runs them is `rsqa.models`. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.engines.registry import ModelRef, locate
from rsqa.errors import UsageError
from rsqa.models.adapter import ADAPTER_WEIGHTS, BASE_ID, WORD_KEYS, WORDS
from rsqa.sinks.whole import write_whole_folder

PARTS = {
    "language": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "merger": r"model\.visual\.merger\.mlp\.[02]",
    "vision": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
}
"""Part of a network -> its linear layers. The patch embedding is never adapted."""
_NAME = "default"


def with_lora(
    network: Any, rank: int, alpha: int, parts: Sequence[str] = ("language",), dora: bool = False, words: bool = False
) -> Any:
    """-> `network` itself, with an adapter around the linear layers of `parts` and nothing else trainable.

    A is random by torch's generator, B zero: the network says what it said before. Both are float32 whatever the base:
    their steps would be lost in 16 bits. There is no dropout. `dora`: lengths of the rows are trained apart from their
    directions (arXiv 2402.09353). `words`: the word vectors are trained too, as they are;
    UsageError where the head is not tied to them.
    """
    if words and network.lm_head.weight is not _word_vectors(network):
        raise UsageError("the head of this model has words of its own; train its word vectors without an adapter")
    if unknown := sorted(set(parts) - PARTS.keys()):
        raise UsageError(f"unknown part {unknown[0]!r} to be adapted; choose from {', '.join(PARTS)}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError(f'LoRA needs peft ({error}); install it: pip install "rsqa[train]"') from error
    targets = "|".join(PARTS[part] for part in sorted(parts))
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, use_dora=dora)
    adapted = inject_adapter_in_model(config, network, _NAME)  # in place: attributes are found where they were
    for layer in _layers(adapted):
        layer.lora_A.float()
        layer.lora_B.float()
    if words:
        _word_vectors(network).requires_grad_(True)
    return adapted


@contextmanager
def without_lora(network: Any) -> Iterator[None]:
    """Within the block the network is its base, to the last bit: the reference of GRPO at no memory.

    Not so its word vectors, where those were trained.
    """
    layers = _layers(network)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapter(folder: Path, network: Any, base: ModelRef, card: ModelCard) -> None:
    """Write an adapter of `with_lora` and its card as a model folder, whole or absent; what was there is replaced.

    The format is that of peft; weights are float32, or float16 where those of the base are, beside which more digits
    say nothing. `base` is the model that `network` was loaded from: its digest stands in the header of the weights, so
    that the adapter is never merged into another. ModelError when `base` is no longer there.
    """
    dtype = torch.float16 if locate(base).dtype == "float16" else torch.float32

    def write(part: Path) -> None:
        config = copy(network.peft_config[_NAME])
        config.base_model_name_or_path = base.name.partition("@")[0] if "@" in base.name else base.folder or base.name
        config.inference_mode = True
        tensors = {
            f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.detach().to("cpu", dtype).contiguous()
            for name, tensor in network.named_parameters()
            if ".lora_" in name
        }
        if _word_vectors(network).requires_grad:
            config.modules_to_save, config.ensure_weight_tying = [WORDS], True
            words = _word_vectors(network).detach().to("cpu", dtype)
            tensors |= {f"base_model.model.{key}": words.clone() for key in WORD_KEYS}
        config.save_pretrained(part)
        save_file(tensors, part / ADAPTER_WEIGHTS, {"format": "pt", BASE_ID: base.weights_id})
        (part / ADAPTER_WEIGHTS).chmod(0o644)  # safetensors writes for its owner only
        (part / CARD_FILE).write_text(card_to_json(card), encoding="utf-8")

    write_whole_folder(folder, write)


def _word_vectors(network: Any) -> Tensor:
    vectors: Tensor = network.model.language_model.embed_tokens.weight
    return vectors


def _layers(network: Any) -> list[Any]:
    """The layers that peft put around others."""
    return [module for module in network.modules() if isinstance(getattr(module, "lora_A", None), torch.nn.ModuleDict)]
