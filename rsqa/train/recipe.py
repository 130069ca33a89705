"""Recipes: flat TOML in, a frozen dataclass out; a key we do not know is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from rsqa.errors import RecipeError
from rsqa.train.turns import TurnShares

STAGES = ("pretrain", "instruct", "cot")
SCHEDULES = ("stable", "cosine")
ASK = "ask_"
"""Keys that set a field of TurnShares begin so."""
_ASKED = TurnShares()


@dataclass(frozen=True, slots=True)
class Recipe:
    """One supervised run: stages 1 to 3 differ in data, trainable parts and rates."""

    name: str
    stage: str
    """pretrain, instruct or cot: told in the card; what is done stands in the other keys."""
    seed: int = 0
    init: str = ""
    """Weights to start from: a model's name or folder; empty: random ones of the shape below."""

    # The network where weights are random (Qwen2-VL).
    vocab_size: int = 2048
    vision_depth: int = 5
    vision_width: int = 192
    vision_heads: int = 6
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    intermediate: int = 512
    rope_theta: float = 10.0
    """Of the language part. Qwen2-VL gives columns its lowest frequencies: with its 1,000,000 (or 10,000) neighbours in
    a grid of a few visual tokens would stand at the same place, and no box could be told."""

    # Data in the published format; empty: pictures with facts, of which questions are made.
    conversations: tuple[str, ...] = ()
    """JSON files below --data."""
    images: str = ""
    """Folder below --data from which records name their pictures; empty: --data itself."""
    held: tuple[str, ...] = ()
    """JSON files that are not learned from: their loss is told at each evaluation."""
    card: str = ""
    """Name of a card that ships, or a file: how the trained model is asked; empty: as `init` is."""
    weights: tuple[float, ...] = ()
    """How often the records of each file are seen in an epoch; empty: once."""
    form: str = "sft"
    """sft: a newline before each end token, as the paper's stages 1 to 3 have it; chat: the chat template."""
    min_pixels: int = 3136
    max_pixels: int = 12845056
    """Pictures keep their size, snapped to multiples of 28, between these."""
    pack: bool = True
    """Encode a picture once for all its conversations of a batch."""
    skip_bad: bool = False
    """Leave records out that can't be used; false: do not start."""

    # Pictures with facts: share of pictures drawn from each set.
    side_px: int = 112
    ucm: float = 0.0
    aid: float = 0.0
    vhr10: float = 0.0
    airports: float = 0.0
    scenes: float = 0.0
    scene_windows: int = 0
    """How many procedural windows are rendered before the run."""
    captions_only: bool = False
    """Of real pictures nothing but their captions is used."""
    reasoning: float = 0.0
    """Share of batches whose answers are reasoned, under the system prompt for it."""
    crop_min: float = 0.6
    """Least side of a random crop, share of the picture's."""
    jitter: float = 0.2
    """Strength of random brightness, contrast and colour."""
    blend: float = 0.5
    """Chance that a weak shadow of another picture lies over a picture."""
    suffix_tokens: int = 112
    """Most text tokens packed behind one picture; turns that do not fit are left out."""
    asked: int = 0
    """Pictures of a step that are asked; the others teach the vision tower by hints, at a third of the cost."""
    hint: float = 0.0
    """Weight of what the visual tokens say by themselves (`rsqa.train.hints`)."""
    ask_presence: float = _ASKED.presence
    """Chance that a picture gets a turn of a kind where its facts allow it; see `rsqa.train.turns.TurnShares`."""
    ask_never: float = _ASKED.never
    ask_class_free: float = _ASKED.class_free
    ask_class_of_list: float = _ASKED.class_of_list
    ask_is_this: float = _ASKED.is_this
    ask_caption: float = _ASKED.caption
    ask_count: float = _ASKED.count
    ask_more: float = _ASKED.more
    ask_area: float = _ASKED.area
    ask_main: float = _ASKED.main
    ask_written: float = _ASKED.written
    ask_box: float = _ASKED.box
    ask_every_box: float = _ASKED.every_box
    ask_where: float = _ASKED.where

    # The optimisation. A rate of 0 freezes a part.
    batch: int = 128
    """Pictures a step, over all processes."""
    micro: int = 0
    """Pictures at once in a process; 0: its whole share of the batch. The rest is accumulated."""
    steps: int = 0
    """0: as many as `epochs` take."""
    epochs: int = 1
    schedule: str = "cosine"
    """cosine: warm-up, then half a cosine to zero; stable: warm-up, constant, then linear to zero over `decay`."""
    warmup: int = 0
    """Steps; 0: the share `warmup_ratio`."""
    warmup_ratio: float = 0.03
    decay: int = 0
    lr_vision: float = 2e-6
    lr_merger: float = 1e-5
    lr_language: float = 1e-5
    lora_rank: int = 0
    """Train low-rank updates in place of weights (an adapter); 0: the weights themselves."""
    lora_alpha: int = 0
    """0: twice the rank."""
    lora_parts: tuple[str, ...] = ("language",)
    """Of language, merger and vision."""
    lora_words: bool = False
    """Train the word vectors too, as they are: for a base that never met the words of its task."""
    beta2: float = 0.999
    weight_decay: float = 0.1
    """Not of norms and biases."""
    clip: float = 1.0
    bf16: bool = True
    recompute: bool = False
    """Keep only what enters each layer, and compute the rest again in the backward pass."""
    compile: bool = False
    """Compile the network with torch.compile: half a minute at the start, needs a C++ compiler on a CPU."""

    # The watching.
    log_every: int = 20
    eval_every: int = 500
    eval_pictures: int = 128
    save_every: int = 250

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise RecipeError(f"stage {self.stage!r} is none of {', '.join(STAGES)}")
        if self.schedule not in SCHEDULES:
            raise RecipeError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}")
        if self.form not in ("sft", "chat"):
            raise RecipeError(f"form {self.form!r} is neither 'sft' nor 'chat'")
        if self.schedule == "stable" and self.warmup + self.decay > self.steps:
            raise RecipeError(f"warmup {self.warmup} + decay {self.decay} exceed steps {self.steps}; raise steps")
        for key in ("lr_vision", "lr_merger", "lr_language"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise RecipeError(f"{key} is {getattr(self, key)}; give a rate, or 0 to freeze the part")
        if self.asked > self.batch:
            raise RecipeError(f"asked {self.asked} exceeds batch {self.batch}; ask at most all pictures of a batch")
        if self.side_px % 28:
            raise RecipeError(f"side_px {self.side_px} must be a multiple of 28, the side of one visual token")
        if self.scenes > 0 and self.scene_windows <= 0:
            raise RecipeError("scenes has a share but scene_windows is 0; set scene_windows or scenes = 0")
        if self.lora_rank and not self.init:
            raise RecipeError("lora_rank tunes a model that is there; name it with init")
        if self.lora_words and not self.lora_rank:
            raise RecipeError("lora_words goes beside an adapter; set lora_rank, or leave it: all weights are trained")
        if self.weights and len(self.weights) != len(self.conversations):
            raise RecipeError(f"{len(self.weights)} weights for {len(self.conversations)} files of conversations")
        if not self.conversations and self.asked < 1:
            raise RecipeError("asked is 0: no picture has a question; set asked, at most batch")
        if not self.conversations and not self.steps:
            raise RecipeError("pictures with facts have no epochs; set steps")

    @property
    def turns(self) -> TurnShares:
        """How often each kind of question is asked."""
        return TurnShares(**{f.name: getattr(self, ASK + f.name) for f in fields(TurnShares)})


T = TypeVar("T")

_ALLOWED: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def recipe_from_toml(text: str, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Parse a recipe of one kind; `overrides`, applied last, are `key=value`, the value as TOML writes it or bare text.

    Raises RecipeError.
    """
    values = values_of(text, overrides)
    types = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - types.keys()):
        raise RecipeError(f"recipe has an unknown key {unknown[0]!r}; known are {', '.join(sorted(types))}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is MISSING:
            raise RecipeError(f'recipe has no {field.name}; add {field.name} = "…"')
    return kind(**{key: _checked(key, value, types[key]) for key, value in values.items()})


def values_of(text: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a recipe as they are written. Raises RecipeError."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number that is too long
        raise RecipeError(f"recipe is no flat TOML ({error}); write key = value, text in quotes") from error
    for override in overrides:
        values |= _changed(override)
    return values


def _changed(override: str) -> dict[str, Any]:
    """`key=value` of a command line, where a shell has taken the quotes away. Raises RecipeError."""
    key, equals, value = (part.strip() for part in override.partition("="))
    if not key or not equals:
        raise RecipeError(f"{override!r} changes nothing in a recipe; write KEY=VALUE")
    try:
        return tomllib.loads(override)
    except (ValueError, RecursionError):
        return {key: value}


def _checked(key: str, value: Any, kind: str) -> Any:
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").partition(",")[0]
        if not isinstance(value, list):
            raise RecipeError(f"recipe key {key!r} must be a list, got {value!r}")
        return tuple(_checked(key, one, inner) for one in value)
    if not isinstance(value, _ALLOWED[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise RecipeError(f"recipe key {key!r} must be {kind}, got {value!r}")
    return value


def read_recipe(path: Path) -> str:
    """The text of a recipe file. Raises RecipeError."""
    if not path.is_file():
        raise RecipeError(f"no recipe {path}; see recipes/README.md for those that ship")
    return path.read_text(encoding="utf-8")
