"""Tiles a second from uint8 pixels to what the first product reads: `python tests/bench/bench_preprocess.py [ROUNDS]`.

Sides, in turns, each on one core, in CPU seconds: the processor of transformers, a tile a call; and resampling with
patchify of rsqa, a batch as it is on a CPU. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rsqa.engines.cards import CARDS, MAX_PIXELS, MIN_PIXELS
from rsqa.engines.preprocess import resample
from rsqa.engines.sizing import MAX_PATCHES_CPU
from rsqa.models.vision import patchify


def compare(sides: list[int], n_tiles: int, rounds: int) -> dict[str, Any]:
    """-> per tile side the medians of tiles per CPU second."""
    torch.set_num_threads(1)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS})
    table = {}
    for side in sides:
        chips = np.random.default_rng(0).integers(0, 256, (n_tiles, 3, side, side), dtype=np.uint8)
        seen = CARDS["tinyrs"].model_side(side, side)

        def theirs(chips: np.ndarray = chips) -> None:
            for chip in chips:
                processor(images=np.moveaxis(chip, 0, 2), return_tensors="pt", input_data_format="channels_last")

        def ours(chips: np.ndarray = chips, seen: tuple[int, int] = seen) -> None:
            for some in torch.split(torch.from_numpy(chips), max(1, MAX_PATCHES_CPU * 14**2 // (seen[0] * seen[1]))):
                patchify((resample(some, seen) ^ 128).view(torch.int8), 14, 2, torch.float32)

        rates: dict[str, list[float]] = {"transformers": [], "rsqa": []}
        for turn in range(rounds + 1):
            for name, run in (("transformers", theirs), ("rsqa", ours)):
                start = time.process_time()
                run()
                if turn:  # the first is a warm-up
                    rates[name].append(n_tiles / (time.process_time() - start))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        table[str(side)] = {**medians, "seen_px": seen[0], "ratio": medians["rsqa"] / medians["transformers"]}
    return {"bench": "preprocess", "tiles": n_tiles, "rounds": rounds, "sides": table}


def show(result: dict[str, Any]) -> None:
    print(f"{'tile px':>8} {'seen px':>8} {'transformers/s':>15} {'rsqa/s':>8} {'ratio':>6}")
    for side, row in result["sides"].items():
        print(f"{side:>8} {row['seen_px']:>8} {row['transformers']:>15.0f} {row['rsqa']:>8.0f} {row['ratio']:>6.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    show(compare([224, 448, 512, 1008, 1024], 16, int(sys.argv[1]) if len(sys.argv) > 1 else 5))
