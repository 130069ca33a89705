"""What does the machinery cost? `python tests/bench/bench_overhead.py [PARTS …]`

Four questions, the first with an engine that only waits as long as a 2B model on a fast GPU would and hashes its tiles:

* `rsqa ask` from a GeoTIFF to its committed parts, against a bare loop over the same engine with all pixels in memory;
* how many parts a second the loop and Dask can hand out and take back, with threads and with processes;
* the peak memory of a driver, scheduler included, that has seen so many PARTS;
* how long a run of a million parts, of which some are there, takes to begin, and to begin again.

Processor time is told beside wall time: on a busy machine it is what can be trusted. Prints a table and, as the last
line, one JSON object. With 10000 alone it takes some minutes; 100000 take ten times as long to hand out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from math import ceil, sqrt
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine

from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode
from rsqa.run.cluster import local_crew
from rsqa.run.draft import draft, settle
from rsqa.run.execute import Stop, run_tasks
from rsqa.run.folder import PARTS, part_path
from rsqa.run.ledger import Ledger
from rsqa.run.pipeline import ask, missing_parts
from rsqa.run.plan import Parts
from rsqa.run.request import Request
from rsqa.run.resident import peak_bytes
from rsqa.run.trace import Span
from rsqa.run.trial import Here
from rsqa.run.work import CacheUse, Done
from rsqa.sinks.part import Receipt
from rsqa.sinks.table import FORMAT, SCHEMA
from rsqa.tasks.question import Question

ENGINE = "rsqa.testing:EchoEngine"
TILE_PX = 448
BATCH = 32
TILE_S = 0.0057
"""A tile with 8 questions on an H200: 60 % of what its arithmetic allows, 294 tiles a second."""
ROUNDS = 3
MOST_PARTS = 1_000_000
"""Of a run that begins."""
MOST_WRITTEN = 10_000
"""Parts that are there when a run begins again."""
PART_TILES = 2048
"""About 12 s of that."""
QUESTIONS = tuple(Question(f"q{n}", f"Is there a thing of kind {n}?", "yesno", ("yes", "no")) for n in range(8))


def mosaic(path: Path, rows: int, cols: int) -> Path:
    """`rows` x `cols` tiles, all different, as easy to decode as an orthophoto is."""
    rng = np.random.default_rng(0)
    ground = np.cumsum(rng.integers(-1, 2, (3, TILE_PX, TILE_PX)), axis=2).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", height=rows * TILE_PX, width=cols * TILE_PX, count=3, dtype="uint8",
        crs="EPSG:32631", transform=Affine(0.3, 0, 5e5, 0, -0.3, 5e6), tiled=True, blockxsize=512, blockysize=512,
        compress="deflate", photometric="RGB", interleave="pixel",
    ) as file:  # fmt: skip
        for row in range(rows):
            line = np.concatenate([ground + np.uint8((row * cols + col) % 256) for col in range(cols)], axis=2)
            window = rasterio.windows.Window(0, row * TILE_PX, cols * TILE_PX, TILE_PX)
            file.write(line, window=window)
    return path


def bare(n_tiles: int) -> dict[str, float]:
    """Seconds of a loop over the engine: pixels in memory, nothing written."""
    session = load_engine(ENGINE, "cpu", "float32").prepare(QUESTIONS, (TILE_PX, TILE_PX), BATCH)
    chips = np.random.default_rng(0).integers(0, 256, (BATCH, 3, TILE_PX, TILE_PX), dtype=np.uint8)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(n_tiles // BATCH):
        session.answer(chips)
    return {"working_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def whole(raster: Path, out: Path, part_tiles: int) -> dict[str, float]:
    """Seconds of `rsqa ask`: all of it, and from the first part to the last commit."""
    request = Request(
        sources=(str(raster),), questions=QUESTIONS, out=out, tile_px=TILE_PX, batch_size=BATCH, device="cpu",
        model=ENGINE, part_tiles=part_tiles,
    )  # fmt: skip
    cpu = time.process_time()
    report = ask(request)
    cpu_s = time.process_time() - cpu
    assert report.exit_code == ExitCode.DONE
    run = json.loads((out / "run.json").read_text())
    return {"elapsed_s": report.elapsed_s, "working_s": run["working_s"], "cpu_s": cpu_s}


def overhead(rows: int, cols: int, part_tiles: int) -> dict[str, Any]:
    """The machinery against the bare loop, in turns: medians of ROUNDS each."""
    os.environ["RSQA_FAKE_DELAY_S"] = str(TILE_S * BATCH)
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            raster = mosaic(work / "mosaic.tif", rows, cols)
            turns = [(bare(rows * cols), whole(raster, work / f"{turn}.rsqa", part_tiles)) for turn in range(ROUNDS)]
    finally:
        del os.environ["RSQA_FAKE_DELAY_S"]
    loop, run = ({key: median(one[key] for one in side) for key in side[0]} for side in zip(*turns, strict=True))
    return {
        "tiles": rows * cols,
        "loop_s": loop["working_s"],
        "working_s": run["working_s"],
        "elapsed_s": run["elapsed_s"],
        "overhead": run["working_s"] / loop["working_s"] - 1,
        "cpu_ms_per_tile": 1000 * (run["cpu_s"] - loop["cpu_s"]) / (rows * cols),
    }


def nothing(number: int) -> Done:
    """A part that costs nothing, with a result as large as that of one that does."""
    now = time.time()
    spans = tuple(Span(stage, now, now, 1) for stage in ("read", "wait", "model", "write") for _ in range(4))
    receipt = Receipt(f"{number:08d}.parquet", 100_000, "0" * 64, 16_384, 2048, 0, 0)
    return Done(receipt=receipt, pixels=1, model_calls=64, halved=False, cache=CacheUse(), spans=spans)


def fit() -> str:
    """All workers are."""
    return ""


def ceiling(workers: int | None, n_parts: int) -> dict[str, float]:
    """Parts that are handed out, done in no time, and recorded: a second, and a second of this process's processor."""
    ledger = Ledger(lambda _: None)
    with local_crew(workers, "cpu", fit, print, None) as crew:
        list(run_tasks(nothing, range(10), crew, Stop()))
        start, cpu = time.perf_counter(), time.process_time()
        for number, result in run_tasks(nothing, range(n_parts), crew, Stop()):
            ledger.record(number, result)
        return {
            "per_s": n_parts / (time.perf_counter() - start),
            "per_cpu_s": n_parts / (time.process_time() - cpu),
        }


def memory(n_parts: int) -> dict[str, float]:
    """Peak memory, MB, of a process that drives so many parts with two workers, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--drive", str(n_parts)], capture_output=True, text=True, check=True
    )
    return {"peak_mb": float(done.stdout.split()[-1]), "seconds": time.perf_counter() - start}


def resume(n_parts: int, n_done: int) -> dict[str, float]:
    """Seconds until a run of so many parts knows what to do: its plan from headers alone, and which parts are there."""
    side = ceil(sqrt(n_parts))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        (out / PARTS).mkdir(parents=True)
        with rasterio.open(
            Path(folder, "a.tif"), "w", driver="GTiff", height=8 * side, width=8 * side, count=1, dtype="uint8",
            crs="EPSG:32631", transform=Affine(0.3, 0, 5e5, 0, -0.3, 5e6), tiled=True, blockxsize=1024, blockysize=1024,
            sparse_ok=True,
        ):  # fmt: skip
            pass
        start = time.perf_counter()
        request = Request(
            sources=(str(Path(folder, "a.tif")),), questions=QUESTIONS[:1], out=out, tile_px=8, batch_size=1,
            device="cpu", model=ENGINE, part_tiles=1,
        )  # fmt: skip
        plan = settle(request, draft(request), None, Here(1))
        parts, plan_id = Parts(plan), plan.plan_id
        planned = time.perf_counter()
        row = pa.table([pa.nulls(1, field.type) for field in SCHEMA], schema=SCHEMA)
        for number in range(n_done):
            facts = {"format": FORMAT, "plan_id": plan_id, "part": number, "n_rows": 1}
            pq.write_table(row.replace_schema_metadata({"rsqa": json.dumps(facts)}), part_path(out, number))
        written = time.perf_counter()
        todo = missing_parts(out, plan, parts, retry_errors=False)
        Ledger(lambda _: None).begin(parts, todo)
        assert len(todo) == len(parts) - n_done
        return {"parts": len(parts), "plan_s": planned - start, "listing_s": time.perf_counter() - written}


def main(
    part_counts: list[int], rows: int = 64, cols: int = 64, n_quick: int = 3000, n_begin: int = MOST_PARTS
) -> dict[str, Any]:
    """Measure all; -> the figures."""
    n_there = min(n_begin // 10, MOST_WRITTEN)
    figures: dict[str, Any] = {
        "overhead": overhead(rows, cols, min(PART_TILES, rows * cols // 2)),
        "parts": {"threads": ceiling(None, n_quick), "2 processes": ceiling(2, n_quick)},
        "memory": {str(n): memory(n) for n in part_counts},
        "begin": [resume(n_begin, 0), resume(n_begin, n_there)],
    }
    cost = figures["overhead"]
    print(f"{cost['tiles']} tiles: bare loop {cost['loop_s']:.1f} s, rsqa ask {cost['working_s']:.1f} s at work "
          f"({100 * cost['overhead']:+.1f} %), {cost['elapsed_s']:.1f} s with its start and tables; "
          f"{cost['cpu_ms_per_tile']:.2f} ms of processor a tile beside the engine")  # fmt: skip
    for how, rate in figures["parts"].items():
        print(f"{how:>12}: {rate['per_s']:.0f} parts/s, {rate['per_cpu_s']:.0f} a second of the driver's processor")
    for n, row in figures["memory"].items():
        print(f"{n:>12} parts: peak {row['peak_mb']:.0f} MB in {row['seconds']:.0f} s")
    for n_done, row in zip((0, n_there), figures["begin"], strict=True):
        print(f"{row['parts']:>12} parts, {n_done} there: plan {row['plan_s']:.1f} s, listing {row['listing_s']:.1f} s")
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        ceiling(2, int(sys.argv[2]))
        print((peak_bytes() or 0) / (1 << 20))
    else:
        main([int(n) for n in sys.argv[1:]] or [10_000, 100_000])
