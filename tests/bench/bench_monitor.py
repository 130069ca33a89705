"""What does a pass with nothing to do cost? `python tests/bench/bench_monitor.py SCENES SIDE`

Makes a monitor that has observed so many scenes of SIDE x SIDE tiles (one small file under many names), then times
`rsqa monitor run` as cron starts it, by the clock and in seconds of a core, its peak memory, and the replay of all
changes. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))

from made_dataset import grid, write_answers
from painted_scenes import watch_text, write_scene
from spent import spent

from rsqa.monitor.changes import replay
from rsqa.monitor.dataset import ledger
from rsqa.monitor.scenes import discover, open_scene
from rsqa.monitor.state import State, write_state
from rsqa.monitor.watch import Rule, read_watch
from rsqa.raster.describe import open_source

START = datetime(2020, 1, 1, tzinfo=UTC)


def make(folder: Path, scenes: int, side: int) -> Path:
    """A monitor that has seen everything that is there."""
    file = folder / "WATCH.toml"
    file.write_text(watch_text(scenes='acquired = "%Y%m%d.tif"'))
    first = write_scene(folder / "incoming" / f"{START:%Y%m%d}.tif")
    fingerprint = open_source(str(first), name=first.name).fingerprint
    rng = np.random.default_rng(0)
    for night in range(scenes):
        when = START + timedelta(days=night)
        name = f"incoming/{when:%Y%m%d}.tif"
        if night:
            os.link(first, folder / name)
        shares = rng.choice([0.05, 0.95], (side, side))
        write_answers(folder / "port.monitor", when, shares, name=name, fingerprint=fingerprint)
    state = State()
    watch = read_watch(file)
    for found in discover(watch, time.time()):
        state.remember(open_scene(found, watch.scenes))
    write_state(watch.out, state)
    return file


def idle_pass(file: Path) -> tuple[float, float, float]:
    """-> seconds, seconds of a core and peak MB of a process that finds nothing to do."""
    began = time.perf_counter()
    took = spent([sys.executable, "-m", "rsqa", "monitor", "run", str(file), "-v"])
    return time.perf_counter() - began, took.core_s, took.peak_bytes / (1 << 20)


def measure(scenes: int, side: int, folder: Path) -> dict[str, Any]:
    file = make(folder, scenes, side)
    idle_pass(file)  # writes changes.parquet once
    passes = [idle_pass(file) for _ in range(3)]
    out = read_watch(file).out
    began = time.perf_counter()
    stored = ledger(out)
    ledger_s = time.perf_counter() - began
    began = time.perf_counter()
    changes = replay(stored, Rule(), grid()).num_rows
    return {
        "scenes": scenes, "tiles": side * side, "idle_s": round(min(s for s, _, _ in passes), 2),
        "core_s": round(min(s for _, s, _ in passes), 2), "peak_mb": round(max(mb for _, _, mb in passes)),
        "ledger_s": round(ledger_s, 3),
        "replay_s": round(time.perf_counter() - began, 2), "changes": changes,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        print(f"{name:10} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        show(measure(int(sys.argv[1]), int(sys.argv[2]), Path(temporary)))
