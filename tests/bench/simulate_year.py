"""Does a monitor tell what happened in a year, and nothing else? `python tests/bench/simulate_year.py --nights 365`

A procedural port of 4 x 4 tiles whose truth is known: buildings (magenta) are raised and torn down, ships (cyan) come
for weeks or for a night or two. A scene a night, each on its own pixel grid, brightness and noise, a quarter of its
tiles below clouds; one file is corrupt, one has a damaged block, one comes twice, one comes five nights late. Asked
with an engine that tells the truth of colours but for a share of wrong answers, or with a model, by the default rule.

The monitor is the command `rsqa monitor run`, a process for each night: forked from one that has imported everything,
as that takes longer than the pass, and every 30th by a fresh interpreter as cron starts it. Then the same scenes arrive
at once, in another order, and with kill -9 in between. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))

from painted_scenes import LEFT, PIXEL, SIDE, START, TILE_PX, TOP, damage_last_block, ground, watch_text, when

import rsqa.cli
import rsqa.monitor.run  # imported here once for all passes

NOISE = 1.2
"""Standard deviation of log odds of 3.5 that makes 2 % of answers wrong: 3.5 / (1.2 √2) is 2.06 of them."""
CLOUDY = 0.25
LASTING = 10
"""Nights that a building or a ship stays at least, but for short visits."""
COLOUR = {"mark": (255, 0, 255), "ship": (0, 255, 255)}
SEED = 11


@dataclass(frozen=True)
class Event:
    """A lasting change of the truth."""

    question: str
    tile: tuple[int, int]
    there: bool
    night: int
    until: int
    """The next one, or the end."""


def make_truth(rng: np.random.Generator, nights: int) -> tuple[dict[str, np.ndarray], list[Event]]:
    """-> question -> (nights, SIDE, SIDE) whether it is there, and the lasting changes."""
    there = {name: np.zeros((nights, SIDE, SIDE), bool) for name in COLOUR}
    events: list[Event] = []
    for question, (least, most) in {"mark": (60, 200), "ship": (LASTING, 45)}.items():
        for tile in np.ndindex(SIDE, SIDE):
            state, night, turns = bool(rng.random() < 0.15), 0, []
            while night < nights:
                length = int(rng.integers(least, most))
                if nights - night - length < LASTING:  # a change at the very end could not be told
                    length = nights - night
                there[question][night : night + length, *tile] = state
                turns.append((state, night))
                night, state = night + length, not state
            ends = [night for _, night in turns[1:]] + [nights]
            events += [Event(question, tile, s, n, end) for (s, n), end in zip(turns, ends, strict=True) if n]
    for tile in np.ndindex(SIDE, SIDE):  # visits that are too short to be told
        for night in rng.integers(0, nights, nights // 40):
            ship = there["ship"][:, *tile]
            if not ship[max(0, night - LASTING) : night + LASTING].any():
                ship[night : night + int(rng.integers(1, 3))] = True
    return there, events


def render(path: Path, night: int, there: dict[str, np.ndarray], clouds: np.ndarray, rng: np.random.Generator) -> None:
    """A night's scene: shifted by up to six pixels and a third of one, darker or brighter, with noise."""
    pixels = ground().astype(np.float64)
    mask = np.full(pixels.shape[1:], 255, np.uint8)
    for row, col in np.ndindex(SIDE, SIDE):
        y, x = (row + 1) * TILE_PX, (col + 1) * TILE_PX
        for n, (question, colour) in enumerate(COLOUR.items()):
            if there[question][night, row, col]:
                at = slice(y + 8 + 24 * n, y + 24 + 24 * n), slice(x + 8 + 24 * n, x + 24 + 24 * n)
                pixels[:, *at] = np.array(colour)[:, None, None]
        if clouds[row, col]:
            mask[y : y + TILE_PX, x : x + TILE_PX] = 0
    pixels = pixels * rng.uniform(0.85, 1.0) + rng.normal(0, 2, pixels.shape)
    down, right = rng.integers(-6, 7, 2)
    part = rng.uniform(-0.33, 0.33, 2)
    y, x = TILE_PX + down, TILE_PX + right
    area = slice(y, y + SIDE * TILE_PX), slice(x, x + SIDE * TILE_PX)
    transform = from_origin(LEFT + (right + part[1]) * PIXEL, TOP - (down + part[0]) * PIXEL, PIXEL, PIXEL)
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE * TILE_PX, width=SIDE * TILE_PX, count=4, dtype="uint8",
        crs="EPSG:32631", transform=transform, photometric="RGB", alpha="YES", compress="deflate", tiled=True,
        blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(np.concatenate([pixels.clip(0, 255).round().astype(np.uint8)[:, *area], mask[None][:, *area]]))
        file.update_tags(TIFFTAG_DATETIME=f"{when(night):%Y:%m:%d %H:%M:%S}")


def make_year(folder: Path, nights: int) -> tuple[dict[str, np.ndarray], list[Event], list[list[str]]]:
    """Render all scenes; -> the truth, and the files that arrive each night."""
    rng = np.random.default_rng(SEED)
    there, events = make_truth(rng, nights)
    folder.mkdir()
    names = [f"{when(night):%Y%m%d}.tif" for night in range(nights)]
    for night, name in enumerate(names):
        render(folder / name, night, there, rng.random((SIDE, SIDE)) < CLOUDY, rng)
    arrivals = [[name] for name in names]
    (folder / names[nights // 3]).write_bytes((folder / names[nights // 3]).read_bytes()[:3000])  # cut short
    damage_last_block(folder / names[nights // 4])
    shutil.copy(folder / names[nights // 2], folder / f"copy of {names[nights // 2]}")
    arrivals[nights // 2 + 1].append(f"copy of {names[nights // 2]}")
    late = nights // 2 + 2
    arrivals[late + 5].append(arrivals[late].pop())
    return there, events, arrivals


class Port:
    """A folder that is watched."""

    def __init__(self, folder: Path, archive: Path, model: str | None) -> None:
        self.folder, self.archive, self.n_passes = folder, archive, 0
        (folder / "incoming").mkdir(parents=True)
        text = watch_text(ask="" if model else 'question_file = "q.txt"')
        (folder / "q.txt").write_text("ship: Is there cyan?\n")
        if model:
            words = '"mark: Is there a magenta square?", "ship: Is there a cyan square?"'
            text = text.replace('"mark: Is there magenta?"', words).replace("rsqa.testing:ColourEngine", model)
        (folder / "WATCH.toml").write_text(text)

    def arrive(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.copy2(self.archive / name, self.folder / "incoming")

    def run(self, *, kill_after_s: float | None = None) -> int:
        """A pass; -> its exit code. Every 30th one by a fresh interpreter."""
        arguments = ["monitor", "run", str(self.folder / "WATCH.toml"), "--exit-code"]
        self.n_passes += 1
        if kill_after_s is None and self.n_passes % 30 == 1:
            root = str(Path(rsqa.cli.__file__).parents[2])
            environment = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "RSQA_FAKE_NOISE": str(NOISE)}
            return subprocess.run([sys.executable, "-m", "rsqa", *arguments], env=environment, check=False).returncode
        child = os.fork()
        if not child:
            os._exit(_command(arguments))
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @property
    def out(self) -> Path:
        return self.folder / "port.monitor"

    def files(self) -> dict[str, bytes]:
        """The dataset and all changes, not the reports of single passes."""
        observed = sorted((self.out / "observations").rglob("*.parquet"))
        return {path.name: path.read_bytes() for path in [*observed, self.out / "changes.parquet"]}

    def told(self) -> list[dict[str, Any]]:
        """The changes that were told, whenever that was."""
        return [
            row for path in sorted((self.out / "changes").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
        ]


def _command(arguments: Sequence[str]) -> int:
    """`rsqa` in a process that was forked; -> its exit code."""
    sys.argv = ["rsqa", *arguments]
    try:
        rsqa.cli.main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


FINE = (0, 3, 11)
"""Exit codes of passes that did all that could be done; 3: a scene failed."""


def nightly(port: Port, arrivals: Sequence[Sequence[str]]) -> list[float]:
    """A pass each night; -> seconds of each."""
    seconds = []
    for names in arrivals:
        port.arrive(names)
        began = time.perf_counter()
        code = port.run()
        assert code in FINE, code
        seconds.append(time.perf_counter() - began)
    return seconds


def with_kills(port: Port, arrivals: Sequence[Sequence[str]], pass_s: float) -> int:
    """Some nights at a time, the first pass over them killed -9 at a random moment; -> passes that were killed."""
    rng = np.random.default_rng(SEED)
    n_killed, night = 0, 0
    while night < len(arrivals):
        ahead = int(rng.integers(1, 15))
        for names in arrivals[night : night + ahead]:
            port.arrive(names)
        night += ahead
        n_killed += port.run(kill_after_s=rng.uniform(0, pass_s * ahead)) == -signal.SIGKILL
        assert port.run() in FINE
    return n_killed


def score(told: Sequence[dict[str, Any]], events: Sequence[Event], there: dict[str, np.ndarray]) -> dict[str, Any]:
    """Each event of the truth is met by at most one change that was told while it lasted."""
    left = list(events)
    delays, n_false = [], 0
    for row in told:
        night = round((row["confirmed"] - START).total_seconds() / 86_400)
        tile, is_there = (row["tile_row"], row["tile_col"]), row["value_after"] == "yes"
        met = next(
            (e for e in left if (e.question, e.tile, e.there) == (row["question_id"], tile, is_there)
             and e.night <= night < e.until), None,
        )  # fmt: skip
        if met is None:
            n_false += 1
        else:
            left.remove(met)
            delays.append(night - met.night)
    n_pairs = sum(int((same[1:] == same[:-1]).sum()) for same in there.values())
    return {
        "changes": len(events), "told": len(told), "false": n_false, "missed": len(left), "unchanged_pairs": n_pairs,
        "precision": round(len(delays) / max(1, len(told)), 4), "recall": round(len(delays) / max(1, len(events)), 4),
        "nights_until_told": float(np.median(delays)) if delays else None,
    }  # fmt: skip


def wrong_answers(port: Port, there: dict[str, np.ndarray]) -> tuple[int, int]:
    """(wrong, all) known answers of the dataset, each against the truth of its night."""
    wrong = known = 0
    columns = ["tile_row", "tile_col", "question_id", "value", "status", "acquired"]
    for path in (port.out / "observations").rglob("*.parquet"):
        for row in pq.read_table(path, columns=columns).to_pylist():
            inside = 0 <= row["tile_row"] < SIDE and 0 <= row["tile_col"] < SIDE
            if row["status"] == "ok" and inside:
                night = round((row["acquired"] - START).total_seconds() / 86_400)
                known += 1
                wrong += (row["value"] == "yes") != there[row["question_id"]][night, row["tile_row"], row["tile_col"]]
    return int(wrong), known


def simulate(folder: Path, nights: int, model: str | None, compare: bool) -> dict[str, Any]:
    """`compare`: also let the scenes arrive in other ways."""
    os.environ["RSQA_FAKE_NOISE"] = str(NOISE)
    there, events, arrivals = make_year(folder / "archive", nights)
    port = Port(folder / "nightly", folder / "archive", model)
    seconds = nightly(port, arrivals)
    wrong, known = wrong_answers(port, there)
    result = {"engine": model or "colours", "nights": nights, "tiles": SIDE * SIDE, "answers": known,
              "wrong_answers": round(wrong / known, 4), **score(port.told(), events, there),
              "pass_s": round(float(np.median(seconds)), 2)}  # fmt: skip
    if compare:
        expected = port.files()
        once = Port(folder / "once", folder / "archive", model)
        once.arrive(name for names in arrivals for name in names)
        assert once.run() in FINE
        mixed = Port(folder / "mixed", folder / "archive", model)
        order = np.random.default_rng(SEED).permutation(nights)
        for some in np.array_split(order, min(10, nights)):
            mixed.arrive(sorted((name for n in some for name in arrivals[n]), reverse=True))
            assert mixed.run() in FINE
        killed = Port(folder / "killed", folder / "archive", model)
        n_killed = with_kills(killed, arrivals, float(np.median(seconds)))
        result |= {
            "same_at_once": once.files() == expected, "same_in_any_order": mixed.files() == expected,
            "same_with_kills": killed.files() == expected, "kills": n_killed,
        }  # fmt: skip
    return result


def show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        print(f"{name:18} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nights", type=int, default=365, help="at least 16")
    parser.add_argument("--model", help="asked instead of the engine that knows colours, as tinyrs-nano")
    parser.add_argument("--only-nightly", action="store_true", help="leave out the other ways in which scenes arrive")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        show(simulate(Path(temporary), asked.nights, asked.model, not asked.only_nightly))
