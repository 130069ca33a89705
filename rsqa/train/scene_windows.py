"""Windows of procedural scenes with their truth, rendered once and kept in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import COVERS, Box, Scene
from rsqa.scenes.truth import THEMES, Window, WindowTruth, describe, truth
from rsqa.train.data import Picture
from rsqa.train.turns import Facts
from rsqa.train.words import SCENE_NOUNS

SCENE_PX = 1536
PER_SCENE = 24
WINDOW_PX = (192, 480)
"""Range of window sides, source pixels."""
GSD_M = (0.3, 0.6)
FIRST_SEED = 1_000_000
"""Training scenes have the seeds from here up; the evaluation's are below."""

CELL_PRESENT, CELL_ABSENT = 0.12, 0.01
"""Share of a cell (or of a small object) from which a label stands in it, and up to which it does not."""
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


def cell_labels(scene: Scene, window: Window, grid: int) -> NDArray[np.int8]:
    """What stands in each cell of a window -> (grid, grid, labels) 1 there, 0 not, -1 too little to say."""
    row0, col0, row1, col1 = window
    cells = np.full((grid, grid, len(SCENE_NOUNS)), -1, np.int8)
    rows, cols = np.linspace(row0, row1, grid + 1), np.linspace(col0, col1, grid + 1)
    for i in range(grid):
        for j in range(grid):
            cell = (rows[i], cols[j], rows[i + 1], cols[j + 1])
            part = scene.cover[round(cell[0]) : round(cell[2]), round(cell[1]) : round(cell[3])]
            shares = np.bincount(part.ravel(), minlength=len(COVERS)) / part.size
            for k, label in enumerate(SCENE_NOUNS):
                if label in COVERS:
                    there, gone = shares[COVERS.index(label)], CELL_ABSENT
                else:
                    boxes = [thing.box for thing in scene.objects if thing.label == label]
                    there, gone = max((_overlap(box, cell) for box in boxes), default=0.0), 0.0
                cells[i, j, k] = 1 if there >= CELL_PRESENT else 0 if there <= gone else -1
    return cells


def _overlap(box: Box, cell: Box) -> float:
    """Shared area over the smaller of the two areas."""
    height = min(box[2], cell[2]) - max(box[0], cell[0])
    width = min(box[3], cell[3]) - max(box[1], cell[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]), (cell[2] - cell[0]) * (cell[3] - cell[1]))
    return max(0.0, height) * max(0.0, width) / smaller


@dataclass(frozen=True, slots=True)
class Windows:
    """n rendered windows."""

    pixels: NDArray[np.uint8]
    """(n, 3, side, side), resampled as the engine does."""
    cells: NDArray[np.int8]
    """(n, grid, grid, labels), see `cell_labels`."""
    facts: list[Facts]


def render_windows(n: int, side: int, first_seed: int, style: str) -> Windows:
    """`PER_SCENE` windows from each scene; one cell for each visual token."""
    grid = side // PIXELS_PER_TOKEN
    made = Windows(np.empty((n, 3, side, side), np.uint8), np.empty((n, grid, grid, len(SCENE_NOUNS)), np.int8), [])
    for first in range(0, n, PER_SCENE):
        seed = first_seed + first // PER_SCENE
        rng = np.random.default_rng([seed, 1])
        scene = make_scene(seed, SCENE_PX, SCENE_PX, gsd_m=float(rng.uniform(*GSD_M)), style=style)
        for number in range(first, min(first + PER_SCENE, n)):
            size = int(rng.integers(WINDOW_PX[0], WINDOW_PX[1] + 1))
            row, col = (int(v) for v in rng.integers(0, SCENE_PX - size + 1, 2))
            window = (row, col, row + size, col + size)
            chip = torch.from_numpy(scene.pixels[:, row : row + size, col : col + size].copy())
            made.pixels[number] = resample(chip[None], (side, side))[0].round().to(torch.uint8).numpy()
            made.cells[number] = cell_labels(scene, window, grid)
            made.facts.append(window_facts(truth(scene, window), rng))
    return made


def scene_windows(n: int, side: int, cache: Path) -> list[Picture]:
    """The first `n` training windows at `side`; rendered to `cache` unless they are there."""
    arrays_file, facts_file = cache / f"{n}-{side}.npz", cache / f"{n}-{side}.json"
    if not facts_file.is_file():  # written last
        cache.mkdir(parents=True, exist_ok=True)
        made = render_windows(n, side, FIRST_SEED, "train")
        np.savez(arrays_file, pixels=made.pixels, cells=made.cells)
        plain = [{k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(f).items()} for f in made.facts]
        part = facts_file.with_suffix(".part")
        part.write_text(json.dumps(plain), encoding="utf-8")
        part.replace(facts_file)
    with np.load(arrays_file) as arrays:
        pixels, cells = arrays["pixels"], arrays["cells"]
    return [
        Picture(f"scene {i}", pixels[i], _facts(raw), whole=True, cells=cells[i])
        for i, raw in enumerate(json.loads(facts_file.read_text(encoding="utf-8")))
    ]


def _facts(raw: dict[str, Any]) -> Facts:
    return Facts(
        present=frozenset(raw["present"]), absent=frozenset(raw["absent"]), counts=raw["counts"], urban=raw["urban"],
        main=raw["main"], main_options=tuple(raw["main_options"]), captions=tuple(raw["captions"]),
    )  # fmt: skip
