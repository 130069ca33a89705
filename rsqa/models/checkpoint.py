"""A Qwen2-VL checkpoint folder: which files count, what is refused, and the digest that names it. No torch.

Read are config.json, safetensors and the tokenizer. Nothing in a folder can run code: pickles are never opened, remote
code and kernels named by the configuration are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rsqa.errors import ModelError
from rsqa.models.adapter import Adapter, is_adapter
from rsqa.models.files import check_header, digest_of, read_json
from rsqa.models.prompt_adapter import PromptAdapter

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json")
MODEL_TYPE = "qwen2_vl"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that passed every check that needs no weights in memory."""

    folder: Path
    config: dict[str, Any]
    """config.json as it stands."""
    weights: tuple[Path, ...]
    """safetensors files in order of name."""
    tokenizer: tuple[Path, ...]
    adapters: tuple[Adapter, ...] = ()
    """What is added to the weights, in this order."""
    prompt: PromptAdapter | None = None
    """What is put before questions, whatever the weights are then."""

    @property
    def _added(self) -> tuple[Adapter | PromptAdapter, ...]:
        return (*self.adapters, *((self.prompt,) if self.prompt else ()))

    @property
    def dtype(self) -> str:
        """Type that the weights were published in, by its name; empty where the configuration does not say it."""
        return str(self.config.get("dtype") or self.config.get("torch_dtype") or "")  # transformers 5, or before

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on disk."""
        return sum(path.stat().st_size for path in (*self.weights, *(adapter.weights for adapter in self._added)))

    def weights_id(self) -> str:
        """-> 64 hexadecimal digits over every file that decides what the model says, whatever the folder's name."""
        digest = digest_of((self.folder / CONFIG_FILE, *self.weights, *self.tokenizer))
        for adapter in self._added:
            digest = sha256(f"{digest} {adapter.digest()}".encode()).hexdigest()
        return digest


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check a model folder. ModelError for everything that will not be loaded."""
    if not folder.is_dir():
        raise ModelError(f"no model folder {str(folder)!r}; give a folder with {CONFIG_FILE} and *.safetensors")
    if is_adapter(folder):
        raise ModelError(
            f"{folder.name!r} holds an adapter, no whole model; merge it with its base: rsqa merge-adapter ADAPTER OUT"
        )
    config = read_json(folder / CONFIG_FILE)
    _refuse_code(config, folder)
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{folder.name!r} is a {config.get('model_type')!r} model; rsqa runs {MODEL_TYPE} checkpoints")
    if (folder / "tokenizer_config.json").is_file():
        _refuse_code(read_json(folder / "tokenizer_config.json"), folder)
    tokenizer = tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())
    if not any(path.name in ("tokenizer.json", "vocab.json") for path in tokenizer):
        raise ModelError(f"{folder.name!r} has no tokenizer.json; save the model's tokenizer into the folder")
    weights = _weight_files(folder)
    for path in weights:
        check_header(path)
    return Checkpoint(folder, config, weights, tokenizer)


def _refuse_code(config: dict[str, Any], folder: Path) -> None:
    """Refuse configurations that make transformers import or fetch code, at any depth."""
    for key, value in _entries(config):
        if key == "auto_map":
            raise ModelError(
                f"{folder.name!r} asks to run its own code (auto_map); rsqa runs none: remove it or use another model"
            )
        if "_attn_implementation" in key and "/" in str(value):
            raise ModelError(
                f"{folder.name!r} asks for the attention kernel {value!r}; rsqa fetches none: remove {key!r}"
            )


def _entries(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / INDEX_FILE).is_file():
        named = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise ModelError(f"{INDEX_FILE} in {folder.name!r} names no weights; fetch the model again")
        names = sorted({str(name) for name in named.values()})
    else:
        names = [SINGLE_FILE]
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{INDEX_FILE} in {folder.name!r} points to {name!r}; only *.safetensors beside it are read"
            )
        if not (folder / name).is_file():
            pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
            if pickles and name == SINGLE_FILE:
                raise ModelError(
                    f"{folder.name!r} has pickled weights only ({pickles[0]}), which can run code; use safetensors"
                )
            raise ModelError(f"no {name} in {folder.name!r}; fetch the model again")
    return tuple(folder / name for name in names)
