"""Does speed or memory depend on the size of the mosaic? `python tests/bench/bench_scale.py SOURCE SIDE SIDE…`

Repeats a real raster to mosaics of several sides, asks each the same eight questions with the embedded model, in
turns, and adds a sparse mosaic of the largest side, which must cost no call of the model. Prints a table and, as the
last line, one JSON object. Peak memory is that of the whole process, from the kernel.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import rasterio
from mosaic import repeat
from spent import spent

QUESTIONS = (
    "Is there a road?", "Are there any buildings?", "Is there water?", "Are there trees?", "Are there any airplanes?",
    "Is it a rural or an urban area?", "How many ships are there?", "Which is it? [choice: farmland|forest|city|water]",
)  # fmt: skip


def measure(raster: Path, out: Path, *options: str) -> dict[str, Any]:
    """Ask `raster`; -> the report of the run with the peak memory of its process, MB."""
    questions = out.with_suffix(".txt")
    questions.write_text("\n".join(QUESTIONS))
    command = [
        sys.executable, "-m", "rsqa", "ask", str(raster), "--question-file", str(questions), "--out", str(out),
        "--json", "--no-progress", *options,
    ]  # fmt: skip
    took = spent(command)
    return {**json.loads(took.output), "peak_mb": took.peak_bytes / (1 << 20)}


def sparse(like: Path, out: Path, side: int) -> Path:
    """A mosaic that declares all its blocks absent."""
    with rasterio.open(like) as file:
        profile = {**file.profile, "height": side, "width": side, "compress": "deflate", "driver": "GTiff"}
    profile |= {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "photometric": "RGB",
        "nodata": 0,
        "BIGTIFF": "YES",
    }
    with rasterio.open(out, "w", **profile, SPARSE_OK=True):
        pass
    return out


def compare(source: Path, sides: list[int], rounds: int, *options: str) -> dict[str, Any]:
    """Run every side `rounds` times, in turns; -> medians by side."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rasters = {str(side): repeat(source, work / f"{side}.tif", side) for side in sides}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in rasters}
        for turn in range(rounds):
            for name, raster in rasters.items():
                runs[name].append(measure(raster, work / f"{name}-{turn}", *options))
        empty = measure(sparse(source, work / "sparse.tif", max(sides)), work / "sparse", *options)
    table = {
        name: {
            "tiles": done[0]["n_tiles"],
            "engine_calls": done[0]["engine_calls"],
            "tiles_per_s": statistics.median(run["tiles_per_s"] for run in done),
            "peak_mb": statistics.median(run["peak_mb"] for run in done),
        }
        for name, done in runs.items()
    }
    keys = ("engine_calls", "elapsed_s", "peak_mb")
    return {"mosaics": table, "sparse": {"tiles": empty["n_tiles"], **{key: empty[key] for key in keys}}}


def show(result: dict[str, Any]) -> None:
    print(f"{'side':>8} {'tiles':>8} {'calls':>6} {'tiles/s':>9} {'peak MB':>9}")
    for side, row in result["mosaics"].items():
        print(f"{side:>8} {row['tiles']:>8} {row['engine_calls']:>6} {row['tiles_per_s']:>9.1f} {row['peak_mb']:>9.0f}")
    empty = result["sparse"]
    print(f"{'sparse':>8} {empty['tiles']:>8} {empty['engine_calls']:>6} {'':>9} {empty['peak_mb']:>9.0f}")
    print(json.dumps(result))


if __name__ == "__main__":
    show(compare(Path(sys.argv[1]), [int(side) for side in sys.argv[2:]], rounds=2))
