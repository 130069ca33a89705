"""Training state on disk, whole or absent, and the model folder that inference reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.errors import OutputError

_PATTERN = "step-*"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the disk as what they mean to the user."""
    try:
        yield
    except OSError as error:
        kept = checkpoints(folder)
        last = f"; {kept[-1].name} is kept, go on from it with --resume" if kept else ""
        raise OutputError(f"{folder.name} can't be written ({error.strerror or error}){last}") from error


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: int
    """Steps done."""
    seconds: float
    """Wall-clock spent on them, over all resumes."""


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write `step-…` under a hidden name, flush it and move it into place; older checkpoints are then removed."""
    done = folder / f"step-{progress.step:07d}"
    part = folder / f".{done.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(done, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_tensors(model), part / "model.safetensors")
    torch.save(optimizer.state_dict(), part / "optimizer.pt")
    (part / "progress.json").write_text(
        json.dumps({"step": progress.step, "seconds": progress.seconds}), encoding="utf-8"
    )
    for file in (*part.iterdir(), part):
        _flush(file)
    part.rename(done)
    _flush(folder)
    for old in checkpoints(folder)[:-1]:
        shutil.rmtree(old)
    return done


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob(_PATTERN))


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the newest checkpoint into `model` and `optimizer`. Raises OutputError when there is none."""
    found = checkpoints(folder)
    if not found:
        raise OutputError(f"no checkpoint to resume in {folder.name}; start without --resume")
    newest = found[-1]
    model.load_state_dict(load_file(newest / "model.safetensors"), strict=False)  # tied weights are stored once
    optimizer.load_state_dict(torch.load(newest / "optimizer.pt", weights_only=True))
    return Progress(**json.loads((newest / "progress.json").read_text(encoding="utf-8")))


def export(folder: Path, model: Any, tokenizer: Any, card: ModelCard) -> None:
    """Write what inference loads: float16 safetensors, config, tokenizer and card; each file whole or absent."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.config.save_pretrained(part)
    config = json.loads((part / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float16"
    (part / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    halves = {name: tensor.to(torch.float16) for name, tensor in _tensors(model).items()}
    save_file(halves, part / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(part)
    (part / CARD_FILE).write_text(card_to_json(card), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner only; an installed package is read by all
        _flush(file)
        file.replace(folder / file.name)
    part.rmdir()
    _flush(folder)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All weights by name, tied ones once."""
    seen: dict[int, str] = {}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if seen.setdefault(tensor.data_ptr(), name) == name:
            tensors[name] = tensor.detach().cpu().contiguous()
    return tensors


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
