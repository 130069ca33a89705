"""The recipes of tinyrs-nano one after another, each from what the one before it made: a tiny network, planted data."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsqa.engines.cards import load_card
from rsqa.errors import RecipeError
from rsqa.train import stages
from rsqa.train.facts import Facts
from rsqa.train.grpo_data import prompts_of
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.nano import Pictures
from rsqa.train.pictures import Picture
from rsqa.train.recipe import Recipe
from rsqa.train.rewards import REWARDS, Reward

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "nano").glob("*.toml"))
WINDOWS, HELD_WINDOWS, STEPS = 40, 20, 3
ALWAYS = (f"steps={STEPS}", f"scene_windows={WINDOWS}", "bf16=false", "eval_every=3", "save_every=3")
SUPERVISED = (
    *ALWAYS, "side_px=56", "batch=16", "asked=16", "warmup=1", "decay=1", "lr_language=4e-3", "compile=false",
    "log_every=1", "eval_pictures=8", "vocab_size=600", "vision_depth=1", "vision_width=32", "vision_heads=2",
    "hidden=64", "layers=2", "heads=2", "kv_heads=1", "intermediate=96",
)  # fmt: skip
REINFORCED = (
    *ALWAYS, f"held_windows={HELD_WINDOWS}", "prompts=2", "group=2", "max_new_tokens=8", "micro=2", "skip_limit=0",
)  # fmt: skip


def picture(colour):
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(stream, "PNG")
    return stream.getvalue()


def write_pictures(folder):
    """The four sets that recipes name. What a picture shows follows from its colour."""
    green, white = picture((30, 90, 30)), picture((220, 220, 220))
    things = json.dumps([{"label": "airplane", "box": [4, 4, 16, 16]}])
    ucm = {"cls": "forest", "labels": ["trees"], "vqa": "[]", "captions": ["Many trees ."]}
    rows = {
        "ucm": [{"image": green, **ucm}, {"image": white, **ucm, "cls": "runway", "labels": ["pavement"]}],
        "aid": [
            {"image": green, "cls": "Forest", "captions": ["It is a forest ."]},
            {"image": white, "cls": "Airport", "captions": ["It is an airport ."]},
        ],
        "vhr10": [{"image": white, "objects": things}],
        "airports": [{"image": white, "objects": things}],
    }
    for name, kinds in rows.items():
        table = [{"id": f"{name} {i}", **kinds[i % len(kinds)]} for i in range(60)]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")


def letters(text, asked, judge):
    """A reward that differs between texts that nobody taught: the share of letters up to m."""
    low = sum("a" <= letter <= "m" for letter in text.lower()) / max(1, len(text))
    return Reward(low, low, 1.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Recipe -> folder of its run."""
    top, before = tmp_path_factory.mktemp("nano"), None
    write_pictures(top)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsqa.train.nano.HELD_WINDOWS", HELD_WINDOWS)
        patch.setitem(REWARDS, "gated", letters)
        draw = Pictures.draw
        patch.setattr(
            Pictures, "draw", lambda supply, step, n_micro: draw(supply, 0, n_micro)
        )  # one batch, again and again
        for recipe in RECIPES:
            out = top / recipe.stem
            if before is not None:
                shutil.copytree(before / "scenes", out / "scenes")  # rendered once
            told = [] if before is None else [f"init={json.dumps(str(before / 'model'))}"]
            kind = SUPERVISED if isinstance(stages.load(recipe.read_text(encoding="utf-8")), Recipe) else REINFORCED
            stages.run(recipe, [*kind, *told], top, out, resume=False, watcher=stages.Watcher())
            made[recipe] = before = out
    return made


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_on_what_the_one_before_it_made(runs, recipe):
    steps = [line for line in lines(runs[recipe]) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in steps)
    if isinstance(stages.load(recipe.read_text(encoding="utf-8")), Recipe):
        assert steps[-1]["loss"] < 0.99 * steps[0]["loss"]
    else:
        assert all(0 <= line["reward"] <= 1 for line in steps)
        assert any(line["norm"] > 0 for line in steps)
    assert [line["step"] for line in lines(runs[recipe]) if line.get("validation")][-1] == STEPS
    assert load_card(str(runs[recipe] / "model")).side_px == 56


def test_windows_that_can_not_be_asked_are_no_data(monkeypatch, tmp_path):
    empty = Picture("empty", np.zeros((3, 56, 56), np.uint8), Facts(), whole=True)
    monkeypatch.setattr("rsqa.train.grpo_data.scene_windows", lambda n, *_: [empty] * n)
    recipe = GrpoRecipe("none", "tinyrs-nano", scene_windows=5, held_windows=5, tasks=("count", "box"), steps=1)
    with pytest.raises(RecipeError, match="none of 5 windows can be asked count, box; raise scene_windows"):
        prompts_of(recipe, tmp_path, tmp_path, print)


def test_the_recipes_are_the_four_stages():
    assert [stages.load(recipe.read_text(encoding="utf-8")).stage for recipe in RECIPES] == [
        "pretrain", "instruct", "cot", "grpo"
    ]  # fmt: skip
