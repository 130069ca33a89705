"""Where the prompts of GRPO come from: records in the published format, or windows of procedural scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rsqa.engines.registry import find_model
from rsqa.errors import RecipeError
from rsqa.tasks.prompts import query
from rsqa.train import turns as making
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.grpo_records import read_gold
from rsqa.train.nano import NANO_REASONING
from rsqa.train.pictures import Picture
from rsqa.train.prompts import BOX, EXACT, Prompt, Prompts, Shuffled
from rsqa.train.scene_windows import FIRST_HELD_SEED, scene_windows
from rsqa.train.turns import Turn

TURNS_SEED = 11
MOST_COUNTED = 12


def prompts_of(recipe: GrpoRecipe, data: Path, out: Path, say: Callable[[str], None]) -> tuple[Prompts, list[Prompt]]:
    """-> what is learned from, and what it is evaluated by. Raises InputError for records that can't be used."""
    if recipe.records:
        given, held = ([_gold(recipe, data, name) for name in names] for names in (recipe.records, recipe.held))
        learned = [prompt for one in given for prompt in one]
        say(f"{sum(map(len, given)):,} records")
        return Shuffled(lambda i: learned[i](), len(learned), recipe.seed), [read() for one in held for read in one]
    side = find_model(recipe.init).card.side_px
    if side is None:
        raise RecipeError(f"{recipe.init!r} sees pictures at their own size; windows of scenes need one side")
    say(f"rendering {recipe.scene_windows} procedural windows, unless they are there")
    windows = asked_windows(scene_windows(recipe.scene_windows, side, out / "scenes"), recipe.tasks)
    fresh = asked_windows(scene_windows(recipe.held_windows, side, out / "scenes", FIRST_HELD_SEED), recipe.tasks)
    if not windows or not fresh:
        asked = ", ".join(recipe.tasks)
        raise RecipeError(f"none of {recipe.scene_windows} windows can be asked {asked}; raise scene_windows")
    say(f"{len(windows):,} prompts of scenes, {len(fresh):,} held back")
    return Shuffled(lambda i: _of_window(*windows[i]), len(windows), recipe.seed), [_of_window(*one) for one in fresh]


def _gold(recipe: GrpoRecipe, data: Path, name: str) -> list[Callable[[], Prompt]]:
    gold = read_gold(data / name, data / recipe.images, recipe.skip_bad)

    def read(number: int) -> Prompt:
        asked = gold.questions[number]
        return Prompt(gold.pixels(number), asked.question, asked.answer_type, asked.answer)

    return [lambda number=number: read(number) for number in range(len(gold))]  # type: ignore[misc]


def asked_windows(windows: Sequence[Picture], tasks: Sequence[str]) -> list[tuple[Picture, Turn]]:
    """Each window with one question of each task that its facts allow."""
    asked = []
    for number, window in enumerate(windows):
        rng = np.random.default_rng([TURNS_SEED, number])
        for task in tasks:
            if turn := _turn(task, window, rng):
                asked.append((window, turn))
    return asked


def _turn(task: str, window: Picture, rng: np.random.Generator) -> Turn | None:
    facts = window.facts
    if task == "count" and max(facts.counts.values(), default=0) <= MOST_COUNTED:
        return making.count(rng, facts)
    if task == "box":
        return making.box(rng, facts)
    if task == "main" and facts.main:
        return making.main_cover(rng, facts)
    if task == "more":
        turn = making.more(rng, facts)
        return turn if turn and turn.trace else None
    return None


def _of_window(window: Picture, turn: Turn) -> Prompt:
    kind = BOX if turn.question.kind == "box" else EXACT
    return Prompt(np.array(window.pixels), query(turn.question, NANO_REASONING), kind, turn.answer)
