from __future__ import annotations

from pathlib import Path

import pytest

from rsqa.errors import RecipeError
from rsqa.train.recipe import load_recipe, recipe_from_toml

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    assert load_recipe(path).name


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nscenes = 0.0\nlearning_rate = 1', "unknown key 'learning_rate'"),
        ('name = "x"\nscenes = 0.0\nsteps = "many"', "'steps' must be int"),
        ('name = "x"\nscenes = 0.0\nsteps = true', "'steps' must be int"),
        ('name = "x"\nscenes = 0.0\nsteps = 10', "exceed steps 10"),
        ('name = "x"\nscenes = 0.0\nside_px = 100', "multiple of 28"),
        ('name = "x"\nscenes = 0.5\nscene_windows = 0', "scene_windows is 0"),
        ("steps = 4000\nscenes = 0.0", "no name"),
        ("name = ", "flat TOML"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_reason(text, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from_toml(text)


def test_overrides_come_last():
    recipe = recipe_from_toml('name = "x"\nscenes = 0.0\nsteps = 4000', ["steps=5000", "lr_vision=0.5"])
    assert (recipe.steps, recipe.lr_vision) == (5000, 0.5)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.toml"):
        load_recipe(tmp_path / "gone.toml")
