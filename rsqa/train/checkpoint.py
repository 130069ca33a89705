"""Training state on disk, whole or absent, and the model folder that inference reads."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.errors import ModelError, OutputError, RecipeError
from rsqa.train.processes import placed_like

_PATTERN = "step-*"
_PART = ".step-*.part"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the disk as what they mean to the user."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder.name} can't be written ({error.strerror or error}); {kept(folder)}") from error


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: int
    """Steps done."""
    seconds: float
    """Wall-clock spent on them, over all resumes."""


def save(folder: Path, model: nn.Module, optimizer: dict[str, Any], progress: Progress) -> Path:
    """Write `step-…` under a hidden name, flush it and move it into place; older checkpoints are then removed.

    `optimizer` is its state, whole. Raises OSError; nothing is left behind then.
    """
    for left in folder.glob(_PART):  # by a run that was killed
        shutil.rmtree(left)
    done = folder / f"step-{progress.step:07d}"
    part = folder / f".{done.name}.part"
    part.mkdir(parents=True)
    try:
        with _disk_errors(), (part / "optimizer.pt").open("wb") as file:
            save_file(_tensors(model), part / "model.safetensors")
            torch.save(optimizer, file)
        told = json.dumps({"step": progress.step, "seconds": progress.seconds})
        (part / "progress.json").write_text(told, encoding="utf-8")
        for written in (*part.iterdir(), part):
            _flush(written)
        part.rename(done)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _flush(folder)
    for old in checkpoints(folder)[:-1]:
        shutil.rmtree(old)
    return done


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob(_PATTERN))


def kept(folder: Path) -> str:
    """What a run that stopped here goes on from, as the end of an error's line."""
    found = checkpoints(folder)
    return f"{found[-1].name} is kept, go on from it with --resume" if found else "there is no checkpoint yet"


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the newest checkpoint into `model` and `optimizer`, however these are split over processes.

    Raises OutputError when there is none, ModelError when it is damaged, RecipeError when it is another network's.
    """
    found = checkpoints(folder)
    if not found:
        raise OutputError(f"no checkpoint to resume in {folder.name}; start without --resume")
    newest = found[-1]
    try:
        tensors = load_file(newest / "model.safetensors")
        # Without code: a pickle that holds any is refused.
        state = torch.load(newest / "optimizer.pt", map_location="cpu", weights_only=True)
        progress = Progress(**json.loads((newest / "progress.json").read_text(encoding="utf-8")))
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        then = f"go on from {found[-2].name} with --resume" if found[1:] else "start again without --resume"
        raise ModelError(
            f"checkpoint {newest.name} is damaged ({reason}); delete the folder {newest} and {then}"
        ) from error
    weights = dict(model.named_parameters())  # tied ones once
    if {name: weight.shape for name, weight in weights.items()} != {name: t.shape for name, t in tensors.items()}:
        raise RecipeError(f"checkpoint {newest.name} is of another network; resume with the recipe that it was made by")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(placed_like(weight, tensors.pop(name)))
    try:
        _load_optimizer(optimizer, state)
    except (LookupError, ValueError, TypeError) as error:
        raise RecipeError(
            f"checkpoint {newest.name} was made with other trained parts; resume with its recipe ({error})"
        ) from error
    return progress


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        number: {
            name: placed_like(weights[number], value) if value.shape == weights[number].shape else value  # not `step`
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": moments})


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
    with _disk_errors():
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
    return {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}


@contextmanager
def _disk_errors() -> Iterator[None]:
    """What the system says, which safetensors and torch hide in errors of their own."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise OSError(str(error.__context__ or error).partition("\n")[0]) from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
