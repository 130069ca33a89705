"""Which models there are, where they lie, and one loaded engine per process. Importing it costs no torch.

A model is named by `tinyrs-nano` (embedded), the name of a card that ships, `owner/name` on the hub, a folder, or
`package.module:Class` for an engine of another package: a class with a `card` (ModelCard) that is constructed with the
keywords `device` and `dtype`. A folder may hold an adapter: the model is then its base, which it names, with the
adapter merged into it, or put before its questions.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from rsqa.engines.base import Engine
from rsqa.engines.cards import CARD_FILE, CARDS, ModelCard, card_from_dict, card_to_dict, load_card
from rsqa.errors import ModelError, UsageError
from rsqa.models.adapter import ADAPTER_CONFIG, Adapter, is_adapter, open_adapter
from rsqa.models.checkpoint import Checkpoint, open_checkpoint
from rsqa.models.prompt_adapter import PromptAdapter, is_prompt_adapter, open_prompt_adapter

EMBEDDED = "tinyrs-nano"
"""Of the models that ship in `rsqa.weights` the one that is used when none is named."""
DTYPES = {
    "float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16", "int8": "int8",
}  # fmt: skip
"""As they are asked for -> as plans name them. int8: the layers' matrices; activations are float32 on a CPU."""
_WHERE = "--model MODEL --adapter ADAPTER, or rsqa merge-adapter ADAPTER OUT --base MODEL"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as a plan names it; travels to workers as JSON."""

    name: str
    """`tinyrs-nano`, name of a folder, `owner/name@revision` on the hub, or `package.module:Class`."""
    folder: str
    """Absolute path where it was found, on this machine; empty when embedded or not made of files."""
    card: ModelCard
    weights_id: str
    """sha256 over the files that decide what the model says; empty when it is not made of files."""
    base: str = ""
    """Where the base of an adapter was found, absolute on this machine or a name; empty: where the adapter says."""

    def to_json(self) -> dict[str, Any]:
        """What JSON holds of it."""
        told = {
            "name": self.name,
            "folder": self.folder,
            "card": card_to_dict(self.card),
            "weights_id": self.weights_id,
        }
        return told | ({"base": self.base} if self.base else {})

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ModelRef:
        """The inverse of `to_json`."""
        card = card_from_dict(raw["card"], raw["name"])
        return cls(raw["name"], raw["folder"], card, raw["weights_id"], raw.get("base", ""))


def embedded_names() -> list[str]:
    """The models that ship with rsqa: the default, and others in order of name."""
    others = {path.parent.name for path in _shelf().glob(f"*/{CARD_FILE}")} - {EMBEDDED}
    return [EMBEDDED, *sorted(others)]


def embedded_folder(name: str = EMBEDDED) -> Path:
    """Where a model that ships with rsqa lies."""
    return _shelf() / name


def _shelf() -> Path:
    return Path(str(resources.files("rsqa.weights")))


def find_model(name: str | None = None, card: str | None = None, adapter: Path | None = None) -> ModelRef:
    """Find a model and its card without loading it; None is the embedded one. ModelError when it can't be used.

    `card` is the name of a card that ships or a JSON file; it wins over the one in the model's folder. A hub name is
    looked up in the local cache first and then fetched. `adapter` is a folder or the name of one that ships; `name` is
    then its base, None: the one that it was trained on.
    """
    if adapter is not None:
        return _adapted(adapter, name, card)
    if name is not None and ":" in name and not Path(name).is_dir():
        return _from_class(name, card)
    found = _find_folder(name or EMBEDDED)
    checkpoint, card = open_model(found.folder), card or found.card
    if card is None and not (found.folder / CARD_FILE).is_file():
        raise ModelError(
            f"model folder {found.name!r} has no {CARD_FILE}; name one with --card: {', '.join(CARDS)} or a file"
        )
    shown = "" if found.folder.parent == _shelf() else str(found.folder)
    return ModelRef(found.name, shown, load_card(card or str(found.folder)), checkpoint.weights_id())


def _adapted(adapter: Path, base: str | None, card: str | None) -> ModelRef:
    """The model of an adapter folder; `base`: another place for its base than it tells."""
    ships = str(adapter) in embedded_names() and not adapter.is_dir()
    folder = embedded_folder(str(adapter)) if ships else adapter.resolve()
    if not is_adapter(folder):
        raise ModelError(f"{str(adapter)!r} holds no adapter ({ADAPTER_CONFIG}); name the folder that rsqa train wrote")
    if card is None and not (folder / CARD_FILE).is_file():
        raise ModelError(
            f"adapter {folder.name!r} has no {CARD_FILE}; name one with --card: {', '.join(CARDS)} or a file"
        )
    there = "" if base is None else str(Path(base).resolve()) if Path(base).is_dir() else base
    checkpoint = open_model(folder, there or None)
    shown = "" if ships else str(folder)
    return ModelRef(folder.name, shown, load_card(card or str(folder)), checkpoint.weights_id(), there)


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    """As plans name it."""
    folder: Path
    card: str | None
    """The card that ships for it."""


def _find_folder(name: str) -> _Found:
    """The folder of a model that is made of files; one of the hub is fetched."""
    if name in embedded_names():
        return _Found(name, embedded_folder(name), None)
    if Path(name).is_dir():
        folder = Path(name).resolve()
        return _Found(folder.name, folder, None)
    if name in CARDS or (_HUB_ID.fullmatch(name) and not name.startswith(".")):
        from rsqa.models.hub import fetch

        hub_id = _hub_id(name)
        folder = fetch(hub_id)
        shipped = next((card.name for card in CARDS.values() if name in (card.name, card.hub_id)), None)
        return _Found(f"{hub_id}@{folder.name}", folder, shipped)
    names = [*embedded_names(), *CARDS]
    near = get_close_matches(name, names, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"choose one of {', '.join(names)}, a folder, `owner/name` or `module:Class`"
    )
    raise ModelError(f"no model {name!r}; {hint}")


def _hub_id(name: str) -> str:
    return CARDS[name].hub_id if name in CARDS else name


def open_model(folder: Path, base: str | None = None) -> Checkpoint:
    """The files of a model folder; where it holds an adapter, those of its base with the adapter.

    `base` names another place to find the base. ModelError when it is not there, or not the one that was adapted.
    """
    return _opened(folder, base, ())


def _opened(folder: Path, base: str | None, above: tuple[Path, ...]) -> Checkpoint:
    """`above`: adapters that led here."""
    if not is_adapter(folder):
        return open_checkpoint(folder)
    if folder in above:
        raise ModelError(f"adapter {folder.name!r} is its own base; name the right one in its {ADAPTER_CONFIG}")
    adapter = open_prompt_adapter(folder) if is_prompt_adapter(folder) else open_adapter(folder)
    below = _opened(_base_folder(adapter) if base is None else _find_folder(base).folder, None, (*above, folder))
    if below.prompt:
        raise ModelError(
            f"adapter {folder.name!r} is on top of a prompt, {below.prompt.folder.name!r}; train it on what that is on"
        )
    found = below.weights_id()
    if adapter.base_weights_id not in ("", found):
        raise ModelError(
            f"adapter {folder.name!r} changes a model of weights {adapter.base_weights_id[:12]}, "
            f"{base or adapter.base!r} has {found[:12]}; name the right base with {_WHERE}"
        )
    if isinstance(adapter, PromptAdapter):
        return replace(below, prompt=adapter)
    return replace(below, adapters=(*below.adapters, adapter))


def _base_folder(adapter: Adapter | PromptAdapter) -> Path:
    """Where the base lies. Nothing is fetched: nobody but the adapter's file asked for the network."""
    name = adapter.base
    if name in embedded_names():
        return embedded_folder(name)
    for folder in (adapter.folder / name, Path(name)):  # an absolute path stays what it is
        if folder.is_dir():
            return folder.resolve()
    if _HUB_ID.fullmatch(_hub_id(name)) and not name.startswith("."):
        from rsqa.models.hub import cached

        if folder_there := cached(_hub_id(name)):
            return folder_there
    raise ModelError(
        f"the base {name!r} of adapter {adapter.folder.name!r} is not on this machine; "
        f"fetch it by name, or say where it is with {_WHERE}"
    )


def _from_class(spec: str, card: str | None) -> ModelRef:
    offered = getattr(_engine_class(spec), "card", None)
    if not isinstance(offered, ModelCard):
        raise ModelError(f"engine {spec!r} has no class attribute `card` that is a ModelCard; add one")
    return ModelRef(spec, "", load_card(card) if card else offered, "")


def _engine_class(spec: str) -> Any:
    module, _, name = spec.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # TypeError: a name that begins with a dot
        raise ModelError(f"engine {spec!r} can't be imported ({error}); give it as package.module:Class") from error


def choose_device(device: str = "auto") -> str:
    """auto, cpu, cuda or cuda:N -> what will be used. ModelError when a GPU is asked for that is not there."""
    if device == "cpu":
        return device
    if device != "auto" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N")
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if found else "cpu"
    if int(device.partition(":")[2] or 0) >= found:
        raise ModelError(
            f"device {device!r} asked for, {found} CUDA devices found; use --device cpu or mend the driver"
        )
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """`auto` -> float32 on a CPU, bfloat16 on a GPU; others as they are."""
    if dtype == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; choose auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


_ENGINES: dict[tuple[str, str, str], Engine] = {}
_LOADING = threading.Lock()


def load_engine(model: ModelRef | str | None = None, device: str = "auto", dtype: str = "auto") -> Engine:
    """Load a model, once per process, device and dtype. ModelError when it is not the one that the reference names."""
    ref = model if isinstance(model, ModelRef) else find_model(model)
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    with _LOADING:
        key = (_identity(ref), device, dtype)
        if key not in _ENGINES:
            _ENGINES[key] = _load(ref, device, dtype)
        return _ENGINES[key]


def is_loaded(model: ModelRef, device: str, dtype: str) -> bool:
    """Whether this process holds that engine already."""
    return (_identity(model), device, dtype) in _ENGINES


def _identity(ref: ModelRef) -> str:
    return json.dumps(ref.to_json(), sort_keys=True)


def _load(ref: ModelRef, device: str, dtype: str) -> Engine:
    if not ref.weights_id:
        engine: Engine = _engine_class(ref.name)(device=device, dtype=dtype)
        return engine
    from rsqa.engines.qwen2vl import load_qwen2vl

    return load_qwen2vl(ref.card, locate(ref), device, dtype)


def locate(ref: ModelRef) -> Checkpoint:
    """The files of `ref` on this machine. ModelError when they are missing or not the ones that it names."""
    if not ref.folder:
        folder = embedded_folder(ref.name)
    elif Path(ref.folder).is_dir():
        folder = Path(ref.folder)
    elif "@" in ref.name:  # a worker on another machine than the one that made the plan
        from rsqa.models.hub import fetch

        folder = fetch(*ref.name.split("@", 1))
    else:
        raise ModelError(
            f"model folder {ref.folder!r} is not on this machine; put it there or name the model again with --model"
        )
    checkpoint = open_model(folder, ref.base or None)
    if checkpoint.weights_id() != ref.weights_id:
        raise ModelError(
            f"{folder.name!r} is not the model that was planned with (its files changed); start anew with --overwrite"
        )
    return checkpoint
