"""How long does joining what tiles saw take, and how much memory? `python tests/bench/bench_merge.py BOXES SIDE`

Scatters things over a mosaic of SIDE pixels until its tiles (448 px, overlap 64) see about BOXES of them, a tenth of
them turned, and merges band after band as a run does. Prints a table and, as the last line, one JSON object. Memory is
what Python allocates at most while it merges the first bands, beside these themselves.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np

from rsqa.raster.grid import TileGrid
from rsqa.tasks.boxes import SaidBoxes, corners
from rsqa.tasks.merge import Band, Tiles, merge

TILE_PX, OVERLAP_PX, BAND_ROWS, LABELS = 448, 64, 4, 5
TRACED_BANDS = 6


def scatter(grid: TileGrid, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (n, 4) boxes, (n,) turns, (n,) labels; 6 to 60 pixels a side."""
    rng = np.random.default_rng(seed)
    half = rng.uniform(3, 30, (n, 2))
    middle = rng.uniform(60, np.array([grid.width, grid.height]) - 60, (n, 2))
    middle = middle[np.argsort(middle[:, 1])]
    turns = np.where(rng.random(n) < 0.1, rng.uniform(1, 89, n), 0)
    return np.hstack([middle - half, middle + half]), turns, rng.integers(0, LABELS, n)


def bands(grid: TileGrid, boxes: np.ndarray, turns: np.ndarray, labels: np.ndarray) -> Iterator[Band]:
    """Whole boxes in every tile whose window holds their middle."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    for row in range(0, grid.n_rows, BAND_ROWS):
        tiles = [grid.tile(r, c) for r in range(row, min(row + BAND_ROWS, grid.n_rows)) for c in range(grid.n_cols)]
        sides = [[(w.col, w.row, w.col_end, w.row_end) for w in (tile.core, tile.window)] for tile in tiles]
        core, window = np.array(sides, float).transpose(1, 0, 2)
        low, high = np.searchsorted(middle[:, 1], [window[0, 1], window[-1, 3]])
        seen, tile = [], []
        for dy in (-1, 0, 1):  # the tiles around the one that owns the middle
            for dx in (-1, 0, 1):
                r, c = middle[low:high, 1] // TILE_PX + dy - row, middle[low:high, 0] // TILE_PX + dx
                here = (r >= 0) & (r < len(tiles) // grid.n_cols) & (c >= 0) & (c < grid.n_cols)
                at = (r * grid.n_cols + c).astype(int) * here
                here &= ((middle[low:high] >= window[at, :2]) & (middle[low:high] < window[at, 2:])).all(axis=1)
                seen.append(np.flatnonzero(here) + low)
                tile.append(at[here])
        which, at = np.concatenate(seen), np.concatenate(tile)
        names = np.array([(1, tile.row, tile.col) for tile in tiles])
        score = np.full(len(which), 0.5, np.float32)
        quads = corners(SaidBoxes(tuple(map(tuple, boxes[which].tolist())), tuple(turns[which].tolist())))
        known = Tiles(names, core, window, np.ones((len(tiles), LABELS), bool))
        yield Band(known, at, labels[which], quads, score, score)


def measure(n_boxes: int, side: int) -> dict[str, Any]:
    grid = TileGrid(side, side, TILE_PX, OVERLAP_PX)
    n_things = round(n_boxes / (1 + OVERLAP_PX / TILE_PX) ** 2)
    things = scatter(grid, n_things, 0)
    made = list(bands(grid, *things))
    begun, cpu = time.perf_counter(), time.process_time()
    n_objects = sum(len(objects) for objects in merge(made, (side, side)))
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    tracemalloc.start()
    for _ in merge(made[:TRACED_BANDS], (side, side)):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "boxes": sum(len(band.tile) for band in made), "things": n_things, "objects": n_objects, "bands": len(made),
        "largest_band": max(len(band.tile) for band in made), "seconds": seconds, "cpu_s": cpu_s,
        "peak_mb": peak / 2**20,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        print(f"{name:>14} {value:>12,.1f}" if isinstance(value, float) else f"{name:>14} {value:>12,}")
    print(json.dumps(result))


if __name__ == "__main__":
    show(measure(int(sys.argv[1]), int(sys.argv[2])))
