"""A tiny set in the published format, and a recipe that learns it: planted for tests of the supervised loop."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.tasks.prompts import PromptStyle
from rsqa.testing import write_random_checkpoint
from rsqa.train.recipe import Recipe

CARD = ModelCard("tiny", "Tiny", PromptStyle(closed_tag="{VQA} ", tail=" "), "Apache-2.0", side_px=None)
COLOURS = {"forest": (30, 90, 30), "water": (40, 60, 160), "desert": (200, 140, 60)}
SIZES = ((28, 28), (56, 28))
"""(width, height): batches of more than one shape."""
RATE = 2e-3

steady_adam = partial(torch.optim.AdamW, eps=1e-3)
"""AdamW that does not follow the sign of a gradient of noise around 0: the noise differs with the order of sums."""


def write_set(folder: Path) -> Path:
    """`init` (a checkpoint), `talk.json`, `held.json` and their pictures."""
    write_random_checkpoint(folder / "init", 1)
    (folder / "init" / CARD_FILE).write_text(card_to_json(CARD), encoding="utf-8")
    for name, first, n in (("talk", 0, 16), ("held", 100, 6)):
        records = [record for number in range(first, first + n) for record in _records(folder, number)]
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def _records(folder: Path, number: int) -> list[dict[str, object]]:
    """Two conversations about a picture; about every fourth number one without."""
    name = list(COLOURS)[number % len(COLOURS)]
    if number % 4 == 3:
        return [{"conversations": _said(f"What grows in a {name}?", f"The {name} knows.")}]
    rng = np.random.default_rng(number)
    width, height = SIZES[number // 4 % len(SIZES)]
    pixels = np.clip(rng.normal(COLOURS[name], 20, (height, width, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")
    asked = [("<image>\n{VQA} Is there water? ", "yes" if name == "water" else "no"), ("<image>\nWhat is this?", name)]
    return [{"image": f"{number}.png", "conversations": _said(*one)} for one in asked]


def _said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def recipe_of(folder: Path) -> Recipe:
    """Six steps; an epoch has fewer, and its last one is not full."""
    return Recipe(
        "tiny", "instruct", init=str(folder / "init"), conversations=("talk.json",), held=("held.json",),
        batch=8, micro=2, steps=6, warmup=1, lr_vision=RATE, lr_merger=RATE, lr_language=RATE, weight_decay=0.05,
        bf16=False, log_every=1, eval_every=3, eval_pictures=4, save_every=2,
    )  # fmt: skip


class KilledError(Exception):
    """Stands for a kill."""
