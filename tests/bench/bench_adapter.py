"""What a prompt costs: `python tests/bench/bench_adapter.py SHAPE DEVICE DTYPE [SIDE_PX] [TILES] [ROUNDS]`.

    python tests/bench/bench_adapter.py 2b cpu float32       # random weights, 10 GB of memory, a minute a tile
    python tests/bench/bench_adapter.py nano cpu float32 128 64

SHAPE: nano, 2b or the folder of a model. Eight closed questions about the same tiles are answered in turns by the base
alone and with GRASP behind the image (`robust`), before it (`paper`: each question reads the image anew), and with a
static prompt, all around the same weights. Prints for each the median seconds of a tile, the median over the rounds of
its ratio to the base in the same round, and the ratio of the multiplications; as the last line one JSON object. Needs
no raster library.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from rsqa.bench.checkpoint import bench_checkpoint
from rsqa.bench.machine import machine, versions
from rsqa.engines.base import Session
from rsqa.engines.grasp import Guide
from rsqa.engines.qwen2vl import Qwen2VLEngine
from rsqa.engines.registry import find_model, load_engine
from rsqa.models.prompt_adapter import PromptShape
from rsqa.models.rivals import prompter_of
from rsqa.tasks.question import YES_NO, Question

BASE = "base"
THINGS = ("water", "a road", "a building", "a ship", "an airplane", "a tree", "sand", "a car")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a way to answer."""

    way: str
    tile_s: float
    """Median over the rounds."""
    ratio: float
    """Of its time to that of the base in the same round, median over the rounds."""
    work: float
    """Ratio of the multiplications of matrices."""


def sessions(engine: Qwen2VLEngine, side_px: int, tiles: int) -> dict[str, Session]:
    """The ways to answer, the base first. They share the weights of the engine."""
    width = engine.language.words.shape[1]
    shapes = {"robust": PromptShape(width), "paper": PromptShape.paper(width), "static": PromptShape(width, "static")}
    asked = [Question(f"q{i}", f"Is there {thing}?", "yesno", YES_NO) for i, thing in enumerate(THINGS)]
    found = {BASE: engine.prepare(asked, (side_px, side_px), tiles)}
    for name, shape in shapes.items():
        torch.manual_seed(0)
        prompted = copy(engine)
        prompted.guide = Guide(prompter_of(shape).requires_grad_(False), engine.language, engine.words)
        found[name] = prompted.prepare(asked, (side_px, side_px), tiles)
    return found


def seconds(session: Session, chips: NDArray[np.uint8]) -> float:
    """Wall time of an answer, the device waited for."""
    start = time.perf_counter()
    session.answer(chips)  # -> arrays on the processor
    return time.perf_counter() - start


def work(session: Session, chips: NDArray[np.uint8]) -> int:
    with FlopCounterMode(display=False) as counter:
        session.answer(chips)
    return counter.get_total_flops()


def measure(ways: Mapping[str, Session], side_px: int, tiles: int, rounds: int) -> list[Cost]:
    """In turns, so that a noisy machine is noisy for all. Counting the work is the warm-up."""
    chips = np.random.default_rng(0).integers(0, 256, (tiles, 3, side_px, side_px), dtype=np.uint8)
    done = {name: work(session, chips) for name, session in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, session in ways.items():
            taken[name].append(seconds(session, chips))
    costs = []
    for name, spent in taken.items():
        ratios = [one / base for one, base in zip(spent, taken[BASE], strict=True)]
        costs.append(
            Cost(name, statistics.median(spent) / tiles, statistics.median(ratios), done[name] / done[BASE])
        )  # fmt: skip
        print("{way:8}{tile_s:>10.4f} s a tile  {ratio:>6.3f} of the base  work {work:.3f}".format(**asdict(costs[-1])))
    return costs


def run(shape: str, device: str, dtype: str, side_px: int, tiles: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        engine = load_engine(find_model(str(bench_checkpoint(shape, Path(folder, "model")))), device, dtype)
        assert isinstance(engine, Qwen2VLEngine)
        costs = measure(sessions(engine, side_px, tiles), side_px, tiles, rounds)
    return {
        "bench": "adapter", "shape": shape, "dtype": dtype, "side_px": side_px, "tiles": tiles, "rounds": rounds,
        "questions": len(THINGS), "machine": machine(device), "versions": versions(),
        "ways": [asdict(cost) for cost in costs],
    }  # fmt: skip


if __name__ == "__main__":
    shape, device, dtype, *sizes = sys.argv[1:]
    side_px, tiles, rounds = (int(told) for told in (*sizes, *("448", "1", "5")[len(sizes) :]))
    print(json.dumps(run(shape, device, dtype, side_px, tiles, rounds)))
