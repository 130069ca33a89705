"""A trained prompt as a model folder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.engines.registry import ModelRef
from rsqa.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_ID
from rsqa.models.prompt_adapter import config_of
from rsqa.models.rivals import Prompter
from rsqa.sinks.whole import write_whole_folder


def save_prompt_adapter(folder: Path, prompter: Prompter, base: ModelRef, card: ModelCard) -> None:
    """Write an adapter and its card, whole or absent; what was there is replaced.

    `base` is the model that it was trained on: its digest stands in the header of the weights, so that the adapter is
    never put on another.
    """
    name = base.name.partition("@")[0] if "@" in base.name else base.folder or base.name

    def write(part: Path) -> None:
        config = json.dumps(config_of(prompter.shape, name), indent=2) + "\n"
        (part / ADAPTER_CONFIG).write_text(config, encoding="utf-8")
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in prompter.state_dict().items()}
        # One key alone: safetensors writes several in an order that changes from run to run.
        save_file(tensors, part / ADAPTER_WEIGHTS, {BASE_ID: base.weights_id})
        (part / ADAPTER_WEIGHTS).chmod(0o644)  # safetensors writes for its owner only
        (part / CARD_FILE).write_text(card_to_json(card), encoding="utf-8")

    write_whole_folder(folder, write)
