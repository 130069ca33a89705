"""Windows of procedural scenes with their truth, rendered once and kept in the run's folder."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional as F

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import COVERS, Scene
from rsqa.scenes.styles import TRAIN_STYLES
from rsqa.scenes.truth import THEMES, WindowTruth, describe, truth
from rsqa.train.data import CELLS_PER_TOKEN, Picture
from rsqa.train.turns import Facts
from rsqa.train.words import GROUND, SCENE_NOUNS

SCENE_PX = 768
PER_SCENE = 20
WINDOW_PX = (192, 480)
"""Range of window sides, source pixels."""
GSD_M = (0.3, 0.6)
FIRST_SEED = 1_000_000
"""Training scenes have the seeds from here up; the evaluation's are below."""

_ELSEWHERE = frozenset({
    "baseball-field", "stadium", "track", "basketball-court", "railway", "church", "golf-course", "desert", "beach",
    "bridge",
    "overpass", "mountain", "chaparral", "mobile-home", "court", "pool",
})  # fmt: skip
"""Nouns that no procedural scene holds."""


def window_facts(known: WindowTruth, rng: np.random.Generator) -> Facts:
    """The truth of a window in the corpus' words; what is too close to call stays unknown."""
    present = {SCENE_NOUNS[label] for label, there in known.present.items() if there}
    absent = {SCENE_NOUNS[label] for label, there in known.present.items() if there is False}
    if "forest" in present or known.counts.get("building"):
        absent -= {"trees"}
    counts = {SCENE_NOUNS[label]: n for label, n in known.counts.items() if n is not None}
    return Facts(
        present=frozenset(present),
        absent=frozenset(absent) | _ELSEWHERE,
        counts={noun: n for noun, n in counts.items() if n},
        urban=known.urban,
        main=known.main or "",
        main_options=THEMES if known.main else (),
        captions=(describe(known, rng).lower(),),
    )


def ground_map(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) index into `words.GROUND`: the cover, with ships, planes and tanks drawn into it as their boxes."""
    image = Image.fromarray(scene.cover)
    draw = ImageDraw.Draw(image)
    for thing in scene.objects:
        if thing.label not in COVERS:
            draw.polygon([(col, row) for row, col in thing.corners], fill=GROUND.index(thing.label))
    return np.asarray(image)


def ground_shares(ground: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """(h, w) of `ground_map` -> (grid, grid, kinds) share of each kind in each cell, in 255ths."""
    one_hot = torch.from_numpy(ground[None] == np.arange(len(GROUND), dtype=np.uint8)[:, None, None])
    shares = F.adaptive_avg_pool2d(one_hot.float()[None], grid)[0]
    return (shares.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@dataclass(frozen=True, slots=True)
class Windows:
    """n rendered windows."""

    pixels: NDArray[np.uint8]
    """(n, 3, side, side), resampled as the engine does."""
    ground: NDArray[np.uint8]
    """(n, grid, grid, kinds), see `ground_shares`."""
    facts: list[Facts]


def render_scene(seed: int, n: int, side: int, style: str) -> Windows:
    """`n` windows of one scene."""
    grid = side // PIXELS_PER_TOKEN * CELLS_PER_TOKEN
    made = Windows(np.empty((n, 3, side, side), np.uint8), np.empty((n, grid, grid, len(GROUND)), np.uint8), [])
    rng = np.random.default_rng([seed, 1])
    scene = make_scene(seed, SCENE_PX, SCENE_PX, gsd_m=float(rng.uniform(*GSD_M)), style=style)
    ground = ground_map(scene)
    for number in range(n):
        size = int(rng.integers(WINDOW_PX[0], WINDOW_PX[1] + 1))
        row, col = (int(v) for v in rng.integers(0, SCENE_PX - size + 1, 2))
        chip = torch.from_numpy(scene.pixels[:, row : row + size, col : col + size].copy())
        made.pixels[number] = resample(chip[None], (side, side))[0].numpy()
        made.ground[number] = ground_shares(ground[row : row + size, col : col + size], grid)
        made.facts.append(window_facts(truth(scene, (row, col, row + size, col + size)), rng))
    return made


def render_windows(n: int, side: int, first_seed: int, style: str) -> Windows:
    """`PER_SCENE` windows from each scene, the scenes drawn by all cores."""
    sizes = [min(PER_SCENE, n - first) for first in range(0, n, PER_SCENE)]
    seeds = range(first_seed, first_seed + len(sizes))
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        made = list(pool.map(render_scene, seeds, sizes, repeat(side), repeat(style)))
    return Windows(
        np.concatenate([piece.pixels for piece in made]),
        np.concatenate([piece.ground for piece in made]),
        [facts for piece in made for facts in piece.facts],
    )


def scene_windows(n: int, side: int, cache: Path) -> list[Picture]:
    """The first `n` training windows at `side`; rendered to `cache` unless they are there."""
    looks = sha256(repr((SCENE_PX, PER_SCENE, WINDOW_PX, GSD_M, FIRST_SEED, TRAIN_STYLES)).encode()).hexdigest()[:8]
    arrays_file, facts_file = cache / f"{n}-{side}-{looks}.npz", cache / f"{n}-{side}-{looks}.json"
    if not facts_file.is_file():  # written last
        cache.mkdir(parents=True, exist_ok=True)
        made = render_windows(n, side, FIRST_SEED, "train")
        np.savez(arrays_file, pixels=made.pixels, ground=made.ground)
        plain = [{k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(f).items()} for f in made.facts]
        part = facts_file.with_suffix(".part")
        part.write_text(json.dumps(plain), encoding="utf-8")
        part.replace(facts_file)
    with np.load(arrays_file) as arrays:
        pixels, ground = arrays["pixels"], arrays["ground"]
    return [
        Picture(f"scene {i}", pixels[i], _facts(raw), whole=True, ground=ground[i])
        for i, raw in enumerate(json.loads(facts_file.read_text(encoding="utf-8")))
    ]


def _facts(raw: dict[str, Any]) -> Facts:
    return Facts(
        present=frozenset(raw["present"]), absent=frozenset(raw["absent"]), counts=raw["counts"], urban=raw["urban"],
        main=raw["main"], main_options=tuple(raw["main_options"]), captions=tuple(raw["captions"]),
    )  # fmt: skip
