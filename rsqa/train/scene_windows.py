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
from accelerate import PartialState
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional as F

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import COVERS, Scene
from rsqa.scenes.styles import HELD_OUT_STYLES, TRAIN_STYLES
from rsqa.scenes.truth import THEMES, WindowTruth, describe, truth
from rsqa.train.facts import Facts
from rsqa.train.pictures import CELLS_PER_TOKEN, Picture
from rsqa.train.words import GROUND, SCENE_NOUNS

SCENE_PX = 768
PER_SCENE = 20
WINDOW_PX = (192, 480)
"""Range of window sides, source pixels."""
GSD_M = (0.3, 0.6)
FIRST_SEED = 1_000_000
"""Training scenes have the seeds from here up; the evaluation's are below."""
FIRST_HELD_SEED = 800_000
"""Scenes that are watched during training: held-out styles, seeds of no other use."""

_ELSEWHERE = frozenset({
    "baseball-field", "stadium", "track", "basketball-court", "railway", "church", "golf-course", "desert", "beach",
    "bridge",
    "overpass", "mountain", "chaparral", "mobile-home", "court", "pool",
})  # fmt: skip
"""Nouns that no procedural scene holds."""


def window_facts(known: WindowTruth, side: int, rng: np.random.Generator) -> Facts:
    """The truth of a window of `side` pixels in the corpus' words; what is too close to call stays unknown."""
    present = {SCENE_NOUNS[label] for label, there in known.present.items() if there}
    absent = {SCENE_NOUNS[label] for label, there in known.present.items() if there is False}
    if "forest" in present or known.counts.get("building"):
        absent -= {"trees"}
    counts = {SCENE_NOUNS[label]: n for label, n in known.counts.items() if n is not None}
    boxes = (
        (SCENE_NOUNS[label], (col0 / side, row0 / side, col1 / side, row1 / side))
        for label, row0, col0, row1, col1 in known.boxes
    )
    return Facts(
        present=frozenset(present),
        absent=frozenset(absent) | _ELSEWHERE,
        counts={noun: n for noun, n in counts.items() if n},
        boxes=tuple((noun, box) for noun, box in boxes if noun in counts),
        boxed=frozenset(counts),
        shares=known.fractions,
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
        made.facts.append(window_facts(truth(scene, (row, col, row + size, col + size)), size, rng))
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


def scene_windows(n: int, side: int, cache: Path, first_seed: int = FIRST_SEED) -> list[Picture]:
    """The first `n` windows at `side`, training ones or held back; rendered to `cache` unless they are there."""
    style, styles = ("held-out", HELD_OUT_STYLES) if first_seed == FIRST_HELD_SEED else ("train", TRAIN_STYLES)
    looks = sha256(repr((SCENE_PX, PER_SCENE, WINDOW_PX, GSD_M, first_seed, styles)).encode()).hexdigest()[:8]
    name = f"{n}-{side}-{looks}"
    files = {what: cache / f"{name}-{what}.npy" for what in ("pixels", "ground")}
    facts_file = cache / f"{name}.json"
    with PartialState().main_process_first():  # the others find what it wrote
        if not facts_file.is_file():  # written last
            cache.mkdir(parents=True, exist_ok=True)
            made = render_windows(n, side, first_seed, style)
            for what, array in (("pixels", made.pixels), ("ground", made.ground)):
                part = cache / f"{name}-{what}.part.npy"
                np.save(part, array)
                part.replace(files[what])
            plain = [
                {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(f).items()} for f in made.facts
            ]
            part = facts_file.with_suffix(".part")
            part.write_text(json.dumps(plain), encoding="utf-8")
            part.replace(facts_file)
    # Mapped, so that processes share one copy.
    pixels, ground = (np.load(files[what], mmap_mode="r") for what in ("pixels", "ground"))
    return [
        Picture(f"scene {i}", pixels[i], _facts(raw), whole=True, ground=ground[i])
        for i, raw in enumerate(json.loads(facts_file.read_text(encoding="utf-8")))
    ]


def _facts(raw: dict[str, Any]) -> Facts:
    """The inverse of what `scene_windows` writes."""
    return Facts(
        present=frozenset(raw["present"]), absent=frozenset(raw["absent"]), counts=raw["counts"],
        boxes=tuple((noun, (box[0], box[1], box[2], box[3])) for noun, box in raw["boxes"]),
        boxed=frozenset(raw["boxed"]), shares=raw["shares"], urban=raw["urban"], main=raw["main"],
        main_options=tuple(raw["main_options"]), captions=tuple(raw["captions"]),
    )  # fmt: skip
