"""Chips a second from files to labels: `python tests/bench/bench_classify.py [CHIPS] [ROUNDS]`.

Sides, in turns, with the same model, labels and files, in wall and CPU seconds: `rsqa classify` over the folder, its
start and end included; and a loop that has the model loaded and opens, predicts and writes file by file. Chips are
AID's where RSQA_TEST_DATA names the folder that has them, else noise. Prints a table, how often both agree, with AID
the accuracy over the validation part with its interval, and as the last line one JSON object.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rsqa.engines.base import Engine, Session
from rsqa.engines.registry import find_model, load_engine
from rsqa.evaluate.metrics import interval
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.labels import class_questions
from rsqa.tasks.parse import answers
from rsqa.tasks.schemes import AID_NAMES, SCHEMES
from rsqa.tasks.task import Classify

QUESTIONS = class_questions(SCHEMES["aid"])


def write_chips(folder: Path, n: int) -> dict[str, str]:
    """Fill the folder. -> name of a chip -> its true label, where it is known."""
    if not (data := os.environ.get("RSQA_TEST_DATA")):
        rng = np.random.default_rng(0)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)).save(folder / f"{i:05d}.png")
        return {}
    truth = {}
    for row in pq.read_table(Path(data) / "aid.parquet", columns=["id", "image", "cls"]).slice(0, n).to_pylist():
        name = f"{row['id'].rsplit('.', 1)[0]}.webp"
        (folder / name).write_bytes(row["image"])
        if zlib.crc32(row["id"].encode()) % 100 < 15:
            truth[name] = AID_NAMES[row["cls"]]
    return truth


def whole(folder: Path, out: Path, model: str | None) -> dict[str, str | None]:
    """`rsqa classify`. -> name -> label."""
    request = Request(
        sources=(str(folder),), questions=QUESTIONS, task=Classify(), out=out, tile_px=None, model=model, device="cpu"
    )
    ask(request)
    table = pq.read_table(out / "classes.parquet", columns=["source", "label"])
    return dict(zip(*table.to_pydict().values(), strict=True))


def one_by_one(folder: Path, out: Path, engine: Engine) -> dict[str, str | None]:
    """A loop as it is written in an afternoon; sessions are kept by chip size."""
    sessions: dict[tuple[int, int], Session] = {}
    labels = {}
    card = engine.card
    with out.open("w", newline="") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        writer = csv.writer(file)
        for path in sorted(folder.iterdir()):
            with rasterio.open(path) as raster:
                pixels = raster.read([1, 2, 3])
            shape = pixels.shape[1:]
            if shape not in sessions:
                sessions[shape] = engine.prepare(QUESTIONS, shape, 1)
            [reply] = sessions[shape].answer(pixels[None])
            said = answers(QUESTIONS[0], reply, mass_floor=card.mass_floor)
            labels[path.name] = said.value[0]
            writer.writerow([path.name, said.value[0], said.confidence[0]])
            file.flush()
    return labels


def compare(n: int, rounds: int, model: str | None = None) -> dict[str, Any]:
    """-> chips per second of both sides, by wall and by CPU; the median of the rounds."""
    engine = load_engine(find_model(model, None), "cpu", "float32")
    rates: dict[str, list[tuple[float, float]]] = {"rsqa": [], "loop": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "chips"
        folder.mkdir()
        truth = write_chips(folder, n)
        for turn in range(rounds):
            sides = (
                ("rsqa", lambda turn=turn: whole(folder, Path(scratch) / f"{turn}.rsqa", model)),
                ("loop", lambda turn=turn: one_by_one(folder, Path(scratch) / f"{turn}.csv", engine)),
            )
            found = {}
            for name, run in sides:
                start, busy = time.perf_counter(), time.process_time()
                found[name] = run()
                rates[name].append((n / (time.perf_counter() - start), n / (time.process_time() - busy)))
    medians = {name: [statistics.median(side) for side in zip(*values, strict=True)] for name, values in rates.items()}
    right = np.array([found["rsqa"][name] == label for name, label in truth.items()], float)
    return {
        "bench": "classify",
        "chips": n,
        "rounds": rounds,
        "per_s": {name: wall for name, (wall, _) in medians.items()},
        "per_cpu_s": {name: cpu for name, (_, cpu) in medians.items()},
        "agree": sum(found["rsqa"][name] == label for name, label in found["loop"].items()) / n,
        "accuracy": _accuracy(right) if len(right) else None,
    }


def _accuracy(right: np.ndarray) -> dict[str, float]:
    low, high = interval(right, [str(i) for i in range(len(right))])
    return {"value": float(right.mean()), "low": low, "high": high, "n": len(right)}


def show(result: dict[str, Any]) -> None:
    print(f"{'side':<6} {'chips/s':>8} {'chips/CPU s':>12}")
    for side in ("rsqa", "loop"):
        print(f"{side:<6} {result['per_s'][side]:>8.1f} {result['per_cpu_s'][side]:>12.1f}")
    print(f"both agree on {result['agree']:.1%} of {result['chips']} chips")
    if accuracy := result["accuracy"]:
        print("accuracy {value:.3f} ({low:.3f} to {high:.3f}, n = {n}), validation part of AID".format(**accuracy))
    print(json.dumps(result))


if __name__ == "__main__":
    n_chips, n_rounds = (int(argument) for argument in [*sys.argv[1:], *("500", "3")[len(sys.argv) - 1 :]])
    show(compare(n_chips, n_rounds))
