"""Recipes: flat TOML in, a frozen dataclass out; a key we do not know is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rsqa.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Recipe:
    """One supervised run from scratch or from `init`."""

    name: str
    seed: int = 0
    init: str = ""
    """Folder of weights to start from; empty: random ones."""

    # The network (Qwen2-VL).
    vocab_size: int = 2048
    vision_depth: int = 5
    vision_width: int = 192
    vision_heads: int = 6
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    intermediate: int = 512
    side_px: int = 112

    # The data: share of pictures drawn from each set.
    ucm: float = 0.34
    aid: float = 0.40
    vhr10: float = 0.04
    airports: float = 0.02
    scenes: float = 0.20
    scene_windows: int = 0
    """How many procedural windows are rendered before the run."""
    crop_min: float = 0.6
    """Least side of a random crop, share of the picture's."""
    jitter: float = 0.2
    """Strength of random brightness, contrast and colour."""
    blend: float = 0.5
    """Chance that a weak shadow of another picture lies over a picture."""
    suffix_tokens: int = 112
    """Most text tokens packed behind one picture; turns that do not fit are left out."""

    # The optimisation.
    batch: int = 96
    """Pictures a step."""
    asked: int = 36
    """Those of them that are asked questions; the others teach the vision tower by hints, at a third of the cost."""
    steps: int = 3000
    warmup: int = 150
    decay: int = 600
    """Last steps, in which the rate falls to zero; stable before."""
    lr_vision: float = 8e-4
    lr_merger: float = 8e-4
    lr_language: float = 1.2e-3
    hint: float = 1.0
    """Weight of what the visual tokens say by themselves (`rsqa.train.hints`)."""
    weight_decay: float = 0.05
    clip: float = 1.0
    bf16: bool = True
    compile: bool = False
    """Compile the network with torch.compile: half a minute at the start, needs a C++ compiler on a CPU."""

    # The watching.
    log_every: int = 20
    eval_every: int = 200
    eval_pictures: int = 256
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.warmup + self.decay > self.steps:
            raise RecipeError(f"warmup {self.warmup} + decay {self.decay} exceed steps {self.steps}; raise steps")
        if self.asked > self.batch:
            raise RecipeError(f"asked {self.asked} exceeds batch {self.batch}; ask at most all pictures of a batch")
        if self.side_px % 28:
            raise RecipeError(f"side_px {self.side_px} must be a multiple of 28, the side of one visual token")
        if self.scenes > 0 and self.scene_windows <= 0:
            raise RecipeError("scenes has a share but scene_windows is 0; set scene_windows or scenes = 0")


def recipe_from_toml(text: str, overrides: Sequence[str] = ()) -> Recipe:
    """Parse a recipe; `overrides` are `key=value` with TOML values, applied last. Raises RecipeError."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
        for override in overrides:
            values |= tomllib.loads(override)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe is no flat TOML ({error}); write key = value, text in quotes") from error
    kinds = {f.name: f.type for f in fields(Recipe)}
    if unknown := sorted(values.keys() - kinds.keys()):
        raise RecipeError(f"recipe has an unknown key {unknown[0]!r}; known are {', '.join(sorted(kinds))}")
    for key, value in values.items():
        allowed = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[str(kinds[key])]
        if not isinstance(value, allowed) or (isinstance(value, bool) and kinds[key] != "bool"):
            raise RecipeError(f"recipe key {key!r} must be {kinds[key]}, got {value!r}")
    if "name" not in values:
        raise RecipeError('recipe has no name; add name = "…"')
    return Recipe(**values)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file."""
    if not path.is_file():
        raise RecipeError(f"no recipe {path}; see recipes/README.md for those that ship")
    return recipe_from_toml(path.read_text(encoding="utf-8"), overrides)
