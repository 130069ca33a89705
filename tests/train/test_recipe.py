from __future__ import annotations

from pathlib import Path

import pytest

from rsqa.errors import RecipeError
from rsqa.train.recipe import Recipe, read_recipe, recipe_from_toml
from rsqa.train.stages import load
from rsqa.train.turns import TurnShares

NAMED = 'name = "x"\nstage = "instruct"\n'
RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    assert load(read_recipe(path)).name


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NAMED + "learning_rate = 1", "unknown key 'learning_rate'"),
        (NAMED + 'steps = "many"', "'steps' must be int"),
        (NAMED + "steps = true", "'steps' must be int"),
        (NAMED + 'conversations = "a.json"', "'conversations' must be a list"),
        (NAMED + "conversations = [1]", "'conversations' must be str"),
        (NAMED + 'conversations = ["a.json"]\nweights = [1.0, 2.0]', "2 weights for 1 files"),
        (NAMED + 'schedule = "stable"\nsteps = 10\nwarmup = 20', "exceed steps 10"),
        (NAMED + 'schedule = "cosin"', "none of stable, cosine"),
        (NAMED + "steps = 10\nside_px = 100", "multiple of 28"),
        (NAMED + "steps = 10\nscenes = 0.5\nscene_windows = 0", "scene_windows is 0"),
        (NAMED + "asked = 1\nscenes = 0.5\nscene_windows = 10", "set steps"),
        (NAMED + "steps = 10", "asked is 0"),
        ('name = "x"\nstage = "first"\nsteps = 1', "none of pretrain, instruct, cot"),
        ('stage = "cot"\nsteps = 4000', "no name"),
        ('name = "x"\nsteps = 4000', "no stage"),
        ("name = ", "flat TOML"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_reason(text, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from_toml(text, Recipe)


def test_overrides_come_last():
    recipe = recipe_from_toml(NAMED + "asked = 1\nsteps = 4000", Recipe, ["steps=5000", "lr_vision=0.5"])
    assert (recipe.steps, recipe.lr_vision) == (5000, 0.5)


def test_text_of_the_command_line_needs_no_quotes():
    for given in ("init=runs/first", 'init="runs/first"', "init = runs/first"):
        assert recipe_from_toml(NAMED + "asked = 1\nsteps = 1", Recipe, [given]).init == "runs/first"
    with pytest.raises(RecipeError, match="'steps' must be int, got 'many'"):
        recipe_from_toml(NAMED + "asked = 1", Recipe, ["steps=many"])
    with pytest.raises(RecipeError, match="write KEY=VALUE"):
        recipe_from_toml(NAMED + "asked = 1", Recipe, ["steps"])


@pytest.mark.parametrize("stage", ["grpo", "grasp"])
def test_what_a_recipe_must_name_is_asked_for(stage):
    with pytest.raises(RecipeError, match="recipe has no init"):
        load(f'name = "x"\nstage = "{stage}"\n')


def test_each_kind_of_question_has_a_key_and_one_default():
    kinds = TurnShares.__slots__
    assert {f"ask_{kind}" for kind in kinds} == {key for key in Recipe.__slots__ if key.startswith("ask_")}
    assert recipe_from_toml(NAMED + "asked = 1\nsteps = 1", Recipe).turns == TurnShares()
    given = {kind: (number + 1) / 100 for number, kind in enumerate(kinds)}
    text = "".join(f"ask_{kind} = {share}\n" for kind, share in given.items())
    assert recipe_from_toml(NAMED + "asked = 1\nsteps = 1\n" + text, Recipe).turns == TurnShares(**given)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.toml"):
        read_recipe(tmp_path / "gone.toml")
