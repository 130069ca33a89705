"""From a recipe file to its run: stages 1 to 3 are supervised, stage 4 is GRPO; adapters are a stage of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsqa.train import grasp, grpo, sft
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.grpo_data import prompts_of
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.log import Watcher
from rsqa.train.recipe import Recipe, read_recipe, recipe_from_toml, values_of


def run(recipe: Path, overrides: Sequence[str], data: Path, out: Path, resume: bool, watcher: Watcher) -> Path:
    """Run a recipe on what is in `data` -> the model folder.

    Raises RecipeError, InputError for data that can't be used, OutputError and ModelError.
    """
    told = load(read_recipe(recipe), overrides)
    if isinstance(told, Recipe):
        return sft.train(told, data, out, resume, watcher)
    if isinstance(told, GraspRecipe):
        return grasp.train(told, data, out, resume, watcher)
    prompts, held = prompts_of(told, data, out, watcher.say)
    return grpo.train(told, prompts, held, out, resume, watcher)


def load(text: str, overrides: Sequence[str] = ()) -> Recipe | GrpoRecipe | GraspRecipe:
    """The recipe that a text holds, of the kind that its stage needs."""
    stage = values_of(text, overrides).get("stage")
    if stage == "grasp":
        return recipe_from_toml(text, GraspRecipe, overrides)
    if stage == "grpo":
        return recipe_from_toml(text, GrpoRecipe, overrides)
    return recipe_from_toml(text, Recipe, overrides)
