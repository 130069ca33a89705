"""Does `rsqa plan` tell the truth? `python tests/bench/bench_plan.py [SIDE [OPTION …]]`

Plans and then asks rasters of many kinds, SIDE pixels wide, with the options named, and holds what was told against
what came: seconds and peak memory of the process, bytes read of the sources, bytes of the output. Reads are counted by
strace, where there is one, in a run of their own. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import Affine
from spent import spent

TILE_PX = 224
TILED = {"tiled": True, "blockxsize": 512, "blockysize": 512}
ASK = ("ask", "-q", "Is there water?", "-q", "Are there buildings?", "--tile-px", str(TILE_PX))
DETECT = ("detect", "--phrase", "building", "--tile-px", str(TILE_PX), "--overlap", "56")


def ground(path: Path, side: int, count: int = 3, dtype: str = "uint8", **layout: Any) -> Path:
    """Fields of one colour with noise on them, about as hard to compress as an orthophoto."""
    rng = np.random.default_rng(sum(path.name.encode()))
    factor = 30 if dtype == "uint16" else 1
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=count, dtype=dtype, crs="EPSG:32631",
        transform=Affine(0.3, 0, 5e5, 0, -0.3, 5e6), **{"compress": "deflate", **layout},
    ) as file:  # fmt: skip
        for row in range(0, side, 512):
            height = min(512, side - row)
            fields = rng.integers(0, 256, (count, -(-height // 64), -(-side // 64))).repeat(64, 1).repeat(64, 2)
            noise = rng.integers(-6, 7, (count, height, side))
            pixels = np.clip(fields[:, :height, :side] + noise, 1, 255) * factor
            file.write(pixels.astype(dtype), window=rasterio.windows.Window(0, row, side, height))
    return path


def cloud_optimised(path: Path, side: int) -> Path:
    plain = ground(path.with_suffix(".plain.tif"), side, **TILED)
    rasterio.shutil.copy(plain, path, driver="COG", compress="deflate", overview_resampling="average")
    plain.unlink()
    return path


def folder_of(path: Path, n: int) -> Path:
    path.mkdir()
    for number in range(n):
        ground(path / f"{number:05d}.tif", 256)
    return path


CASES: dict[str, tuple[Callable[[Path, int], Path], tuple[str, ...]]] = {
    "tiled": (lambda folder, side: ground(folder / "tiled.tif", side, photometric="RGB", **TILED), ASK),
    "strips": (lambda folder, side: ground(folder / "strips.tif", side, photometric="RGB"), ASK),
    "4 bands of uint16": (
        lambda folder, side: ground(folder / "wide.tif", side, 4, "uint16", compress="lzw", nodata=0, **TILED),
        ASK,
    ),
    "overview of a COG": (
        lambda folder, side: cloud_optimised(folder / "cog.tif", 2 * side),
        (*ASK, "--gsd", "1.2"),
    ),
    "detect, overlap": (lambda folder, side: ground(folder / "detect.tif", side, photometric="RGB", **TILED), DETECT),
    "many small files": (lambda folder, side: folder_of(folder / "many", max(2, side // 16)), ASK),
    "one tiny file": (lambda folder, side: ground(folder / "tiny.tif", 300), ASK),
}


def told(raster: Path, task: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
    """What a run is expected to take."""
    verb, *rest = task
    command = ["plan", *rest] if verb == "ask" else [verb, *rest, "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "rsqa", *command, str(raster), "--json", *options],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report["expected"] | {"tiles": report["n_tiles"], "parts": report["n_parts"]}


def came(raster: Path, out: Path, task: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
    """What it took."""
    verb, *rest = task
    command = [
        sys.executable, "-m", "rsqa", verb, *rest, str(raster), "--out", str(out), "--json", "--no-progress", *options,
    ]  # fmt: skip
    took = spent(command)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    shutil.rmtree(out)
    n_read = bytes_read(command, raster)
    shutil.rmtree(out, ignore_errors=True)
    return {
        "seconds": json.loads(took.output)["elapsed_s"],
        "memory_bytes": took.peak_bytes,
        "read_bytes": n_read,
        "output_bytes": size,
    }


def bytes_read(command: list[str], below: Path) -> int | None:
    """Bytes that reads of files at or below a path gave in a run of the command; None without strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.NamedTemporaryFile() as log:
        calls = ("-e", "trace=read,pread64,readv,preadv")
        subprocess.run([strace, "-f", "-y", "--seccomp-bpf", *calls, "-o", log.name, *command],
                       capture_output=True, check=True)  # fmt: skip
        with open(log.name, encoding="utf-8", errors="replace") as lines:
            return total_read(lines, str(below.resolve()))


def total_read(lines: Iterable[str], path: str) -> int:
    """Of strace's lines: `12 read(5</a/b.tif>, "..", 9) = 9`, or in two lines when another thread came in between."""
    begun: dict[str, bool] = {}
    total = 0
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.lstrip()
        resumed = call.startswith("<... ")
        mine = begun.pop(thread, False) if resumed else re.match(rf"\w+\(\d+<{re.escape(path)}[>/]", call) is not None
        if call.rstrip().endswith("<unfinished ...>"):
            begun[thread] = mine
        elif mine and (found := re.search(r"= (\d+)$", call.rstrip())):
            total += int(found[1])
    return total


def compare(side: int, names: list[str], *options: str) -> dict[str, Any]:
    """-> what was told and what came, of each case."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            make, task = CASES[name]
            raster = make(Path(folder), side)
            found[name] = {
                "told": told(raster, task, options),
                "came": came(raster, Path(folder, "out"), task, options),
            }
            show(name, found[name])
    return found


def show(name: str, case: dict[str, Any]) -> None:
    """A line for each figure: told, came, and their ratio."""
    units = {"seconds": (1, "s"), "memory_bytes": (1e6, "MB"), "read_bytes": (1e6, "MB"), "output_bytes": (1e3, "kB")}
    told, came = case["told"], case["came"]
    print(f"{name}: {told['tiles']} tiles in {told['parts']} parts, bound by {told['bound_by']}", flush=True)
    for key, (unit, word) in units.items():
        if told[key] is not None and came[key]:
            ratio = told[key] / came[key]
            print(f"  {key:<14} told {told[key] / unit:9.1f}  came {came[key] / unit:9.1f} {word:<3} {ratio:6.2f}")


if __name__ == "__main__":
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 4480
    print(json.dumps(compare(side, list(CASES), *sys.argv[2:])))
