"""An adapter that puts vectors of its own before a question and changes no weight: its shape and its folder. No torch.

The folder is like that of peft: adapter_config.json, adapter_model.safetensors, the digest of the base in its header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isqrt
from pathlib import Path
from typing import Any

from rsqa.errors import ModelError
from rsqa.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_ID
from rsqa.models.files import check_header, digest_of, read_json

PEFT_TYPE = "RSQA_PROMPT"
"""No type of peft: it can't load these."""
FORMAT = 1
CHOICES = {
    "method": ("grasp", "static", "cocoop"),
    "mode": ("robust", "paper"),
    "fusion": ("entmax15", "sparsemax", "softmax", "top2", "mean"),
    "placement": ("after_image", "before_image"),
    "question": ("last", "middle", "words"),
}
"""Fields of a shape that are names."""


@dataclass(frozen=True, slots=True)
class PromptShape:
    """What the vectors are made of. The values of `paper()` are those of the paper, the others ours."""

    width: int
    """D, hidden size of the base."""
    method: str = "grasp"
    """grasp: from blocks of the picture, chosen by the question; static: the same for all; cocoop: the same for all
    questions of a picture (arXiv 2203.05557)."""
    tokens: int = 6
    """K vectors for a question; 0 closes the gate: nothing is added."""
    blocks: int = 4
    """N, a square: the picture is cut into √N x √N blocks."""
    inner: int = 64
    """Width in which question and blocks are compared."""
    context: int = 32
    """R, width in which the question meets what the chosen blocks show; 0: the vectors tell nothing of that."""
    mode: str = "robust"
    """paper: block means and position encodings as they are; robust: normalised, and scores of a learned spread."""
    fusion: str = "entmax15"
    """From scores of blocks to their weights; mean: no scores, whatever is asked."""
    positions: bool = True
    """Whether a block's feature tells where it lies."""
    placement: str = "after_image"
    """after_image: at the head of the question, so that what was read of a picture serves all questions; before_image:
    before the token that opens the image, a picture read anew for each question."""
    question: str = "last"
    """The vector of a question: mean over its tokens behind the last or the middle layer, or of its word vectors."""

    def __post_init__(self) -> None:
        for key, names in CHOICES.items():
            if getattr(self, key) not in names:
                raise ModelError(f"{key} of a prompt is {getattr(self, key)!r}; choose from {', '.join(names)}")
        if min(self.width, self.blocks, self.inner) < 1 or min(self.tokens, self.context) < 0 or self.width % 4:
            raise ModelError(f"a prompt can't have sizes such as these: {asdict(self)}")
        if isqrt(self.blocks) ** 2 != self.blocks:
            raise ModelError(f"{self.blocks} blocks asked; choose a square, as 1, 4, 9 or 16")

    @classmethod
    def paper(cls, width: int) -> PromptShape:
        """What is known of arXiv 2601.17089."""
        return cls(width, tokens=1, blocks=4, inner=512, context=0, mode="paper", placement="before_image")

    @property
    def asks(self) -> bool:
        """Whether the vectors depend on the question."""
        return self.method == "grasp" and self.fusion != "mean"

    @property
    def tells(self) -> bool:
        """Whether they depend on what the chosen blocks show."""
        return self.asks and self.context > 0 and self.tokens > 0

    @property
    def side(self) -> int:
        """Blocks along a side of the picture."""
        return isqrt(self.blocks)


@dataclass(frozen=True, slots=True)
class PromptAdapter:
    """A folder that passed every check that needs neither its base nor weights in memory."""

    folder: Path
    base: str
    """The model that it was trained on, named as for `--model`, or a path from the adapter's folder."""
    base_weights_id: str
    """`Checkpoint.weights_id` of that model."""
    shape: PromptShape

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / ADAPTER_WEIGHTS

    def digest(self) -> str:
        """-> 64 hexadecimal digits over what decides what is added to the base."""
        return digest_of((self.folder / ADAPTER_CONFIG, self.weights))


def is_prompt_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter of this kind, good or bad."""
    return (folder / ADAPTER_CONFIG).is_file() and read_json(folder / ADAPTER_CONFIG).get("peft_type") == PEFT_TYPE


def config_of(shape: PromptShape, base: str) -> dict[str, Any]:
    """What adapter_config.json holds."""
    return {"peft_type": PEFT_TYPE, "format": FORMAT, "base_model_name_or_path": base, **asdict(shape)}


def open_prompt_adapter(folder: Path) -> PromptAdapter:
    """Check an adapter folder. ModelError for everything that will not be loaded."""
    config, name = read_json(folder / ADAPTER_CONFIG), folder.name
    if config.pop("format", None) != FORMAT:
        raise ModelError(f"adapter {name!r} is of another format than {FORMAT}; load it with the rsqa that wrote it")
    base = config.pop("base_model_name_or_path", None)
    if not isinstance(base, str) or not base:
        raise ModelError(f"adapter {name!r} names no base; write base_model_name_or_path into its {ADAPTER_CONFIG}")
    del config["peft_type"]
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"no {ADAPTER_WEIGHTS} in {name!r}; copy the whole folder of the adapter")
    base_id = check_header(folder / ADAPTER_WEIGHTS).get(BASE_ID, "")
    if not base_id:
        raise ModelError(f"adapter {name!r} does not tell the weights it was trained on; save it with rsqa train")
    return PromptAdapter(folder, base, base_id, _shape(config, name))


def _shape(config: Mapping[str, Any], name: str) -> PromptShape:
    kinds = {field.name: {"int": int, "str": str, "bool": bool}[str(field.type)] for field in fields(PromptShape)}
    if config.keys() != kinds.keys():
        odd = min(config.keys() ^ kinds.keys())
        raise ModelError(f"adapter {name!r} has other keys in its {ADAPTER_CONFIG} than rsqa writes, {odd!r} for one")
    for key, kind in kinds.items():
        if type(config[key]) is not kind:
            raise ModelError(f"adapter {name!r} has {key} = {config[key]!r}; {kind.__name__} is read")
    return PromptShape(**config)
