"""Benchmark items from the shared pictures and from procedural scenes: a chip, a question, the right answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import LABELS
from rsqa.scenes.truth import truth
from rsqa.tasks.question import COUNTS, YES_NO, Question
from rsqa.train import words
from rsqa.train.data import Part, Picture, part_of, read_parquet, read_rows

CLASS_TEXT = "What kind of scene is this?"
SCENE_TILE_PX = 320
SCENE_PX = 1280
SCENES = 30
HELD_OUT_SEED = 1
"""Evaluation scenes have the seeds from here up, training scenes from a million."""

LABEL_QUESTIONS = {
    "airplane": "Is there an airplane?", "bare-soil": "Is there bare soil?", "buildings": "Is there a building?",
    "cars": "Is there a car?", "chaparral": "Is there chaparral?", "court": "Is there a court?",
    "dock": "Is there a dock?",
    "field": "Is there a field?", "grass": "Is there grass?", "mobile-home": "Is there a mobile home?",
    "pavement": "Is there pavement?", "sand": "Is there sand?", "sea": "Is there sea?", "ship": "Is there a ship?",
    "tanks": "Is there a storage tank?", "trees": "Is there a tree?", "water": "Is there water?",
}  # fmt: skip
SCENE_QUESTIONS = {
    "field": "Is there a field?", "forest": "Is there a forest?", "water": "Is there water?",
    "road": "Is there a road?",
    "building": "Is there a building?", "parking lot": "Is there a parking lot?", "ship": "Is there a ship?",
    "plane": "Is there a plane?", "storage tank": "Is there a storage tank?",
}  # fmt: skip


_KIND_SIGNS = {"theme": "theme", "location": "location", "count": "How many"}
"""Kind of an RSIVQA question -> the words it is told by."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one chip."""

    chip: int
    """Index into the set's chips."""
    question: Question
    gold: str


@dataclass(frozen=True, slots=True)
class ItemSet:
    """Items over common chips."""

    name: str
    chips: tuple[NDArray[np.uint8], ...]
    """(3, H, W) each; sizes may differ."""
    groups: tuple[str, ...]
    """What is resampled as one: the picture's id, or the scene."""
    items: tuple[Item, ...]


def label_presence(pictures: Sequence[Picture], labels: dict[str, frozenset[str]], seed: int = 0) -> ItemSet:
    """`labels` picture id -> its labels. As many "no" as "yes" for each of the 17 labels, drawn at random."""
    rng = np.random.default_rng(seed)
    items = []
    for number, (label, text) in enumerate(LABEL_QUESTIONS.items()):
        question = Question(f"q{number}", text, "yesno", YES_NO)
        there = [label in labels[picture.id] for picture in pictures]
        items += balanced(there, question, rng)
    return _item_set("UC Merced labels, balanced", pictures, items)


def balanced(there: Sequence[bool | None], question: Question, rng: np.random.Generator) -> list[Item]:
    """Equal numbers of chips with and without; None is left out."""
    yes = [chip for chip, known in enumerate(there) if known]
    no = [chip for chip, known in enumerate(there) if known is False]
    least = min(len(yes), len(no))
    sides = ((yes, "yes"), (no, "no"))
    return [Item(int(chip), question, gold) for side, gold in sides for chip in rng.permutation(side)[:least]]


def classes(name: str, pictures: Sequence[Picture]) -> ItemSet:
    """Which class, all class names of the data set as options."""
    question = Question("class", CLASS_TEXT, "choice", pictures[0].facts.family)
    return _item_set(name, pictures, [Item(i, question, picture.facts.name) for i, picture in enumerate(pictures)])


def human_questions(data: Path, part: Part) -> dict[str, ItemSet]:
    """RSIVQA's own questions by type: yes/no, theme, count (in digits), location."""
    pictures = read_parquet(data, "ucm", part)
    asked = {row["id"]: json.loads(row["vqa"] or "[]") for row in read_rows(data, "ucm") if part_of(row["id"]) == part}
    known: dict[tuple[str, str], Question] = {}
    items: dict[str, list[Item]] = {"yes/no": [], "theme": [], "count": [], "location": []}
    for chip, picture in enumerate(pictures):
        for pair in asked[picture.id]:
            text, gold = pair["question"], pair["answer"].strip().lower()
            kind = next((kind for kind, sign in _KIND_SIGNS.items() if sign in text), "yes/no")
            if kind == "count":
                gold = words.number_in_digits(gold) or gold
            shape = {"yes/no": ("yesno", YES_NO), "count": ("count", COUNTS)}.get(kind, ("open", ()))
            question = known.setdefault((kind, text), Question(f"q{len(known)}", text, *shape))  # type: ignore[arg-type]
            items[kind].append(Item(chip, question, gold))
    return {kind: _item_set(f"RSIVQA {kind}", pictures, made) for kind, made in items.items()}


def scene_presence(style: str, first_seed: int = HELD_OUT_SEED, n_scenes: int = SCENES) -> ItemSet:
    """Balanced presence of the 9 procedural labels on tiles of fresh scenes."""
    chips, groups, known = [], [], []
    for seed in range(first_seed, first_seed + n_scenes):
        scene = make_scene(seed, SCENE_PX, SCENE_PX, gsd_m=0.5, style=style)
        for row in range(0, SCENE_PX - SCENE_TILE_PX + 1, SCENE_TILE_PX):
            for col in range(0, SCENE_PX - SCENE_TILE_PX + 1, SCENE_TILE_PX):
                chips.append(scene.pixels[:, row : row + SCENE_TILE_PX, col : col + SCENE_TILE_PX].copy())
                groups.append(f"scene {seed}")
                known.append(truth(scene, (row, col, row + SCENE_TILE_PX, col + SCENE_TILE_PX)).present)
    rng = np.random.default_rng(0)
    items = []
    for number, label in enumerate(LABELS):
        question = Question(f"q{number}", SCENE_QUESTIONS[label], "yesno", YES_NO)
        items += balanced([present[label] for present in known], question, rng)
    return ItemSet(f"procedural presence, {style} styles", tuple(chips), tuple(groups), tuple(items))


def _item_set(name: str, pictures: Sequence[Picture], items: Sequence[Item]) -> ItemSet:
    return ItemSet(name, tuple(p.pixels for p in pictures), tuple(p.id for p in pictures), tuple(items))
