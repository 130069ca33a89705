"""Model cards: how a family of checkpoints was trained, and so how it must be asked.

A card is found in `rsqa-card.json` in the model's folder, by its name or hub id, or is given with `--card`. There is no
guessing: an untrained system prompt gives fluent nonsense.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

from rsqa.errors import ModelError
from rsqa.tasks.boxes import BOX_FORMATS, BoxFormat
from rsqa.tasks.detect import HowMany
from rsqa.tasks.prompts import END, REASONING_SYSTEM, PromptStyle

CARD_FILE = "rsqa-card.json"
PIXELS_PER_TOKEN = 28
"""Side of the ground that one visual token of Qwen2-VL sees: patch 14, merged 2 x 2."""
MIN_PIXELS, MAX_PIXELS = 3_136, 12_845_056
"""Bounds of what Qwen2-VL sees at native size, those that TinyRS was trained and published with."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One family of checkpoints."""

    name: str
    title: str
    prompt: PromptStyle
    licence: str
    """Of the weights."""
    data_licence: str = ""
    """Of what they were trained on, where that limits their use."""
    hub_id: str = ""
    side_px: int | None = None
    """The one side that chips are resampled to; None: native size, snapped to a multiple of 28."""
    gsd_m: tuple[float, float] | None = None
    """Trained range of ground metres per tile pixel; None: not known."""
    side_range_px: tuple[int, int] = (56, 3584)
    """Trained range of tile sides, source pixels."""
    boxes: HowMany = "one"
    box_format: BoxFormat = "tinyrs"
    """How the model writes boxes, and so how they are read."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """Question kind -> temperature fitted on validation data; absent: not calibrated, 1."""
    mass_floor: float = 0.05
    """Least share of probability on the listed options; below it the answer is `off_list`."""
    max_new_tokens: int = 256
    parameters: int = 0

    def __post_init__(self) -> None:
        if self.box_format not in BOX_FORMATS:
            raise ValueError(f"box_format is {self.box_format!r}, it must be one of {', '.join(BOX_FORMATS)}")

    def model_side(self, height: int, width: int) -> tuple[int, int]:
        """Chip (H, W) -> the (H, W) that the model sees, each a multiple of 28."""
        if self.side_px is not None:
            return self.side_px, self.side_px
        return native_side(height, width)


def native_side(height: int, width: int, least: int = MIN_PIXELS, most: int = MAX_PIXELS) -> tuple[int, int]:
    """Each side snapped to the nearest multiple of 28; scaled as a whole where the area is out of bounds, pixels."""
    unit = PIXELS_PER_TOKEN
    snapped = round(height / unit) * unit, round(width / unit) * unit
    if snapped[0] * snapped[1] > most:
        shrink = sqrt(height * width / most)
        return max(unit, floor(height / shrink / unit) * unit), max(unit, floor(width / shrink / unit) * unit)
    if snapped[0] * snapped[1] < least:
        grow = sqrt(least / (height * width))
        return ceil(height * grow / unit) * unit, ceil(width * grow / unit) * unit
    return snapped


_TINYRS = PromptStyle(
    closed_tag="{VQA} ",
    count_tag="{IT} ",
    labels_tag="{CLS} ",
    boxes_tag="{VG} ",
    tail=" ",
    answer_ends=(f"\n{END}", END),
)
_TINYRS_REASONING = PromptStyle(
    system=REASONING_SYSTEM,
    closed_tag="{VQA} ",
    count_tag="{IT} ",
    labels_tag="{CLS} ",
    boxes_tag="{VG} ",
    tail=" ",
    reasoning=True,
    answer_ends=("</answer>", "</answer>\n"),  # ">" and a newline are one token of Qwen2-VL, and SFT wrote both
)
_QWEN = PromptStyle(boxes_tag="Find <|object_ref_start|>", tail="<|object_ref_end|>")
"""As ms-swift's guide to grounding with Qwen2-VL asks for boxes; its technical report (arXiv 2409.12191) has the same
tokens around what a box is of."""
_VHM = "CC-BY-NC-4.0 (VHM); its authors ask that models trained on it stay within research"

CARDS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            "tinyrs", "TinyRS 2B", _TINYRS, "Apache-2.0", _VHM, "aybora/Qwen2-VL-TinyRS", parameters=2_208_985_600,
        ),
        ModelCard(
            "tinyrs-cot", "TinyRS-CoT 2B", _TINYRS_REASONING, "Apache-2.0", _VHM, "aybora/Qwen2-VL-TinyRS-CoT",
            max_new_tokens=1024, parameters=2_208_985_600,
        ),
        ModelCard(
            "tinyrs-r1", "TinyRS-R1 2B", _TINYRS_REASONING, "Apache-2.0", _VHM, "aybora/Qwen2-VL-TinyRS-R1",
            max_new_tokens=1024, parameters=2_208_985_600,
        ),
        ModelCard(
            "qwen2-vl-2b", "Qwen2-VL-2B-Instruct", _QWEN, "Apache-2.0", "", "Qwen/Qwen2-VL-2B-Instruct",
            box_format="qwen2vl", parameters=2_208_985_600,
        ),
    )
}  # fmt: skip


def card_from_dict(raw: Mapping[str, Any], origin: str) -> ModelCard:
    """A card from what JSON holds; a key we do not know is an error. `origin` names the card in messages."""
    known = {f.name for f in fields(ModelCard)}
    if unknown := sorted(raw.keys() - known):
        raise ModelError(
            f"model card {origin} has an unknown key {unknown[0]!r}; a card has {', '.join(sorted(known))}"
        )
    try:
        values = dict(raw)
        prompt = dict(values.pop("prompt", {}))
        prompt["answer_ends"] = tuple(prompt.get("answer_ends", (END,)))
        for pair in ("gsd_m", "side_range_px"):
            if values.get(pair) is not None:
                values[pair] = tuple(values[pair])
        return ModelCard(prompt=PromptStyle(**prompt), **values)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"model card {origin} can't be read ({error}); see `rsqa models` for the cards that ship"
        ) from error


def card_to_dict(card: ModelCard) -> dict[str, Any]:
    """What JSON holds of a card; `card_from_dict` reads it back equal."""
    values = asdict(card)
    values["prompt"]["answer_ends"] = list(card.prompt.answer_ends)
    for pair in ("gsd_m", "side_range_px"):
        values[pair] = values[pair] and list(values[pair])
    return values


def card_from_json(text: str, origin: str) -> ModelCard:
    """Parse a card file."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"model card {origin} is no JSON ({error}); see `rsqa models` for the cards that ship"
        ) from error
    if not isinstance(raw, dict):
        raise ModelError(f"model card {origin} holds a {type(raw).__name__}, a card is an object; see `rsqa models`")
    return card_from_dict(raw, origin)


def card_to_json(card: ModelCard) -> str:
    """Write a card file; `card_from_json` reads it back equal."""
    return json.dumps(card_to_dict(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def load_card(name_or_file: str) -> ModelCard:
    """A card by the name that ships, or from a JSON file."""
    if name_or_file in CARDS:
        return CARDS[name_or_file]
    path = Path(name_or_file)
    if path.is_dir():
        path = path / CARD_FILE
    if not path.is_file():
        raise ModelError(f"no model card {name_or_file!r}; choose one of {', '.join(CARDS)} or give a JSON file")
    return card_from_json(path.read_text(encoding="utf-8"), path.name)
