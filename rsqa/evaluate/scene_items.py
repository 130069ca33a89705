"""Questions about tiles of procedural scenes, whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rsqa.evaluate.items import Item, ItemSet, Picture
from rsqa.evaluate.pictures import bytes_picture, to_png
from rsqa.evaluate.reading import count_gold, question_of
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import LABELS, OBJECTS
from rsqa.scenes.truth import WindowTruth, truth
from rsqa.tasks.detect import the_only
from rsqa.tasks.question import COUNTS, YES_NO, Question

TILE_PX = 320
SCENE_PX = 1280
AREA_TEXT = "Is it a rural or an urban area?"
PRESENCE_TEXTS = {
    "field": "Is there a field?", "forest": "Is there a forest?", "water": "Is there water?",
    "road": "Is there a road?", "building": "Is there a building?", "parking lot": "Is there a parking lot?",
    "ship": "Is there a ship?", "plane": "Is there a plane?", "storage tank": "Is there a storage tank?",
}  # fmt: skip

Tile = tuple[str, WindowTruth]
"""(id of the picture, what is true of it)."""


def scene_tiles(style: str, first_seed: int, n_scenes: int) -> tuple[dict[str, Picture], list[Tile]]:
    """All tiles of fresh scenes; only their compressed bytes are kept, as drawing one again takes seconds."""
    pictures: dict[str, Picture] = {}
    tiles: list[Tile] = []
    for seed in range(first_seed, first_seed + n_scenes):
        scene = make_scene(seed, SCENE_PX, SCENE_PX, gsd_m=0.5, style=style)
        for row, col in _corners():
            name = f"{style} scene {seed} row {row} col {col}"
            content = to_png(scene.pixels[:, row : row + TILE_PX, col : col + TILE_PX])
            pictures[name] = bytes_picture(name, content, f"{style} scene {seed}")
            tiles.append((name, truth(scene, (row, col, row + TILE_PX, col + TILE_PX))))
    return pictures, tiles


def _corners() -> Iterator[tuple[int, int]]:
    places = range(0, SCENE_PX - TILE_PX + 1, TILE_PX)
    return ((row, col) for row in places for col in places)


def balanced(
    known: Sequence[tuple[str, bool | None]], question: Question, type_: str, rng: np.random.Generator
) -> list[Item]:
    """(picture, whether the first option holds) -> as many items of the first as of the second; None is left out."""
    sides = [[name for name, holds in known if holds is side] for side in (True, False)]
    least = min(map(len, sides))
    return [
        Item(side[int(place)], question, (type_,), (gold,))
        for side, gold in zip(sides, question.options, strict=True)
        for place in rng.permutation(len(side))[:least]
    ]


def presence_items(tiles: Sequence[Tile], type_: str) -> list[Item]:
    """Balanced presence of each label."""
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for label in LABELS:
        known = [(name, told.present[label]) for name, told in tiles]
        items += balanced(known, question_of(PRESENCE_TEXTS[label], "yesno", YES_NO), type_, rng)
    return items


def area_items(tiles: Sequence[Tile], type_: str) -> list[Item]:
    """Rural or urban, balanced."""
    known = [(name, None if told.urban is None else not told.urban) for name, told in tiles]
    question = question_of(AREA_TEXT, "choice", ("rural", "urban"))
    return balanced(known, question, type_, np.random.default_rng(0))


def count_items(tiles: Sequence[Tile], type_: str) -> list[Item]:
    """How many objects; tiles with none only as often as tiles with one. Each number counts exactly and in buckets."""
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for label in OBJECTS:
        question = question_of(f"How many {label}s are there?", "count", COUNTS)
        known = [(name, told.counts[label]) for name, told in tiles]
        none = [name for name, n in known if n == 0]
        fewer = [none[i] for i in rng.permutation(len(none))[: sum(n == 1 for _, n in known)]]
        for name, n in [*((name, n) for name, n in known if n), *((name, 0) for name in fewer)]:
            items += counted(Item(name, question, (type_,), (count_gold(str(n)),)))
    return items


def counted(item: Item) -> list[Item]:
    """A count, and the same answer judged by its bucket."""
    return [item, Item(item.picture, item.question, (f"{item.types[0]}, bucketed",), item.gold, "bucket")]


def box_items(tiles: Sequence[Tile], type_: str) -> list[Item]:
    """Where the only object of its kind is."""
    items = []
    for name, told in tiles:
        for label in OBJECTS:
            if told.counts[label] == 1:
                (row0, col0, row1, col1), *_ = (box for other, *box in told.boxes if other == label)
                question = question_of(the_only(label), "box")
                items.append(
                    Item(name, question, (type_,), measure="box", boxes=((col0, row0, col1, row1),), label=label)
                )
    return items


def scene_presence(style: str, first_seed: int, n_scenes: int) -> ItemSet:
    """Presence alone, for probes and tests."""
    pictures, tiles = scene_tiles(style, first_seed, n_scenes)
    return ItemSet(pictures, tuple(presence_items(tiles, presence_type(style))))


def presence_type(style: str) -> str:
    """Line of the report."""
    return f"procedural presence, {style} styles"
