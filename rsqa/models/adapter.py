"""A LoRA adapter as peft writes it: which matrices of which model it changes, and what is refused. No torch.

Read are adapter_config.json and adapter_model.safetensors. A setting that we do not know must be off: it could change
what the adapter means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsqa.errors import ModelError
from rsqa.models.files import check_header, digest_of, read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_ID = "base_weights_id"
"""Key in the header of the weights; peft, which does not know it, passes over it without a warning."""
WORDS = "embed_tokens"
"""The module that an adapter may bring whole, as peft saves it: the word vectors, to which the head is tied."""
WORD_KEYS = (f"model.language_model.{WORDS}.weight", "lm_head.weight")
"""peft reads them from both places, although they are one."""
_UNDERSTOOD = {
    "peft_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path", "bias", "init_lora_weights",
    "modules_to_save", "ensure_weight_tying",
}  # fmt: skip
_IDLE = {
    "auto_mapping", "eva_config", "inference_mode", "lora_dropout", "megatron_config", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
"""Settings of training, or of what is off: they do not matter to the finished adapter."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder that passed every check that needs neither its base nor weights in memory."""

    folder: Path
    base: str
    """The model that it changes, named as for `--model`, or a path from the adapter's folder."""
    base_weights_id: str
    """`Checkpoint.weights_id` of that model; empty when it was not recorded."""
    targets: str | tuple[str, ...]
    """A regular expression over whole names of modules, or ends of names."""
    rank: int
    alpha: float
    words: bool
    """Whether it has word vectors of its own, in place of those of its base."""

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / ADAPTER_WEIGHTS

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank

    def digest(self) -> str:
        """-> 64 hexadecimal digits over what decides how the base is changed."""
        return digest_of((self.folder / ADAPTER_CONFIG, self.weights))

    def changes(self, name: str) -> bool:
        """Whether it has weights for the module `name`."""
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, name) is not None
        return any(name == end or name.endswith(f".{end}") for end in self.targets)


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, good or bad."""
    return (folder / ADAPTER_CONFIG).is_file()


def open_adapter(folder: Path) -> Adapter:
    """Check an adapter folder. ModelError for everything that will not be merged."""
    config, name = read_json(folder / ADAPTER_CONFIG), folder.name
    _refuse_all_but_lora(config, name)
    base, rank, alpha = (config.get(key) for key in ("base_model_name_or_path", "r", "lora_alpha"))
    if not isinstance(base, str) or not base:
        raise ModelError(f"adapter {name!r} names no base; write base_model_name_or_path into its {ADAPTER_CONFIG}")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise ModelError(f"adapter {name!r} has r = {rank!r} and lora_alpha = {alpha!r}; a rank and a number are read")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = " but a pickle (adapter_model.bin), which can run code" * (folder / "adapter_model.bin").is_file()
        raise ModelError(f"no {ADAPTER_WEIGHTS} in {name!r}{pickled}; save the adapter as safetensors")
    header = check_header(folder / ADAPTER_WEIGHTS)
    return Adapter(
        folder, base, header.get(BASE_ID, ""), _targets(config, name), rank, float(alpha), _words(config, name)
    )


def _refuse_all_but_lora(config: dict[str, Any], name: str) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(f"adapter {name!r} is of type {config.get('peft_type')!r}; rsqa reads LORA")
    if config.get("bias", "none") != "none" or config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        raise ModelError(f"adapter {name!r} changes more of its base than low-rank parts; merge it with peft")
    for key in sorted(config.keys() - _UNDERSTOOD - _IDLE):
        if config[key]:
            raise ModelError(f"adapter {name!r} has {key} = {config[key]!r}, rsqa runs plain LoRA; merge it with peft")


def _words(config: dict[str, Any], name: str) -> bool:
    whole = config.get("modules_to_save") or []
    if whole and (whole != [WORDS] or not config.get("ensure_weight_tying")):
        raise ModelError(
            f"adapter {name!r} has modules_to_save = {whole!r}; {WORDS} with ensure_weight_tying is read, merge others "
            "with peft"
        )
    return bool(whole)


def _targets(config: dict[str, Any], name: str) -> str | tuple[str, ...]:
    targets = config.get("target_modules")
    if isinstance(targets, list) and targets and all(isinstance(end, str) for end in targets):
        return tuple(targets)
    if isinstance(targets, str):
        try:
            re.compile(targets)
            return targets
        except re.error:
            pass  # said below
    raise ModelError(f"adapter {name!r} has target_modules {targets!r}; a list of names or one expression is read")
