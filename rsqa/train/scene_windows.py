"""Windows of procedural scenes with their truth, rendered once and kept in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsqa.engines.preprocess import resample
from rsqa.scenes.compose import make_scene
from rsqa.scenes.truth import THEMES, WindowTruth, describe, truth
from rsqa.train.data import Picture
from rsqa.train.turns import Facts

SCENE_PX = 1536
PER_SCENE = 24
WINDOW_PX = (192, 480)
"""Range of window sides, source pixels."""
GSD_M = (0.3, 0.6)
FIRST_SEED = 1_000_000
"""Training scenes have the seeds from here up; the evaluation's are below."""

NOUN_OF = {
    "field": "field", "forest": "forest", "water": "water", "road": "road", "building": "buildings",
    "parking lot": "parking-lot", "ship": "ship", "plane": "airplane", "storage tank": "tanks",
}  # fmt: skip
"""Scene label -> key of words.NOUNS."""
_ELSEWHERE = frozenset({
    "baseball-field", "stadium", "track", "basketball-court", "railway", "church", "golf-course", "desert", "beach",
    "bridge",
    "overpass", "mountain", "chaparral", "mobile-home", "court", "pool",
})  # fmt: skip
"""Nouns that no procedural scene holds."""


def window_facts(known: WindowTruth, rng: np.random.Generator) -> Facts:
    """The truth of a window in the corpus' words; what is too close to call stays unknown."""
    present = {NOUN_OF[label] for label, there in known.present.items() if there}
    absent = {NOUN_OF[label] for label, there in known.present.items() if there is False}
    if "forest" in present or known.counts.get("building"):
        absent -= {"trees"}
    counts = {NOUN_OF[label]: n for label, n in known.counts.items() if n is not None}
    return Facts(
        present=frozenset(present),
        absent=frozenset(absent) | _ELSEWHERE,
        counts={noun: n for noun, n in counts.items() if n},
        urban=known.urban,
        main=known.main or "",
        main_options=THEMES if known.main else (),
        captions=(describe(known, rng).lower(),),
    )


def render_windows(n: int, side: int, first_seed: int, style: str) -> tuple[NDArray[np.uint8], list[Facts]]:
    """-> (n, 3, side, side) resampled windows and their facts; `PER_SCENE` from each scene."""
    pixels = np.empty((n, 3, side, side), dtype=np.uint8)
    facts = []
    for first in range(0, n, PER_SCENE):
        seed = first_seed + first // PER_SCENE
        rng = np.random.default_rng([seed, 1])
        scene = make_scene(seed, SCENE_PX, SCENE_PX, gsd_m=float(rng.uniform(*GSD_M)), style=style)
        for number in range(first, min(first + PER_SCENE, n)):
            size = int(rng.integers(WINDOW_PX[0], WINDOW_PX[1] + 1))
            row, col = (int(v) for v in rng.integers(0, SCENE_PX - size + 1, 2))
            chip = torch.from_numpy(scene.pixels[:, row : row + size, col : col + size].copy())
            pixels[number] = resample(chip[None], (side, side))[0].round().to(torch.uint8).numpy()
            facts.append(window_facts(truth(scene, (row, col, row + size, col + size)), rng))
    return pixels, facts


def scene_windows(n: int, side: int, cache: Path) -> list[Picture]:
    """The first `n` training windows at `side`; rendered to `cache` unless they are there."""
    pixels_file, facts_file = cache / f"{n}-{side}.npy", cache / f"{n}-{side}.json"
    if not facts_file.is_file():  # written last
        cache.mkdir(parents=True, exist_ok=True)
        pixels, facts = render_windows(n, side, FIRST_SEED, "train")
        np.save(pixels_file, pixels)
        plain = [{k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(f).items()} for f in facts]
        part = facts_file.with_suffix(".part")
        part.write_text(json.dumps(plain), encoding="utf-8")
        part.replace(facts_file)
    pixels = np.load(pixels_file, mmap_mode="r+")
    return [
        Picture(f"scene {i}", pixels[i], _facts(raw), whole=True)
        for i, raw in enumerate(json.loads(facts_file.read_text(encoding="utf-8")))
    ]


def _facts(raw: dict[str, Any]) -> Facts:
    return Facts(
        present=frozenset(raw["present"]), absent=frozenset(raw["absent"]), counts=raw["counts"], urban=raw["urban"],
        main=raw["main"], main_options=tuple(raw["main_options"]), captions=tuple(raw["captions"]),
    )  # fmt: skip
