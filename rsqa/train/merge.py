"""An adapter and its base as one model folder that needs neither."""

from __future__ import annotations

import shutil
from pathlib import Path

from rsqa.engines.cards import CARD_FILE, load_card
from rsqa.engines.registry import open_model
from rsqa.errors import ModelError, OutputError
from rsqa.models.adapter import is_adapter
from rsqa.models.loading import load_network, quiet
from rsqa.sinks.whole import write_whole_folder

COMPANIONS = ("chat_template.jinja", "chat_template.json", "preprocessor_config.json", "special_tokens_map.json")
"""What other programs want to find beside a tokenizer."""


def merge_adapter(adapter: Path, out: Path, base: str | None, dtype: str, overwrite: bool) -> None:
    """Write the model that `adapter` makes of its base, whole or absent. `dtype` auto: that of the base.

    The card is the adapter's, where it has one. OutputError when `out` is there, unless `overwrite`.
    """
    adapter = adapter.resolve()
    if not is_adapter(adapter):
        raise ModelError(f"{adapter.name!r} holds no adapter (adapter_config.json); a whole model needs no merging")
    checkpoint = open_model(adapter, base)
    read = {adapter, checkpoint.folder.resolve(), *(each.folder for each in checkpoint.adapters)}
    if out.exists() and (not overwrite or out.resolve() in read or not (out / "config.json").is_file()):
        raise OutputError(f"{str(out)!r} is there; name a new folder, or an earlier merged one with --overwrite")
    card = adapter / CARD_FILE
    if card.is_file():
        load_card(str(card))  # one that can't be read is found before the work
    network = load_network(checkpoint, "cpu", dtype)
    copied = [*checkpoint.tokenizer, *(checkpoint.folder / name for name in COMPANIONS), card]

    def write(part: Path) -> None:
        with quiet():
            network.save_pretrained(part)
        for path in filter(Path.is_file, copied):
            shutil.copyfile(path, part / path.name)
        for path in part.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner only

    write_whole_folder(out, write)
