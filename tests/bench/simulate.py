"""Where does a run on 1 to 1,000 GPUs lose time? `python tests/bench/simulate.py [NAME=VALUE …]`

A simulation by events of ten million tiles: every worker has two slots that take turns in its model; a slot fetches a
portion of a part from the shared storage, decodes it, asks, and at the end writes the part; the driver hands out parts
one after another. Costs are the fields of `Costs`, measured where that was possible, and can be named on the command
line. Prints a table for each archive and, as the last line, one JSON object.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

SLOTS = 2
SIZES = (1, 10, 100, 300, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What things cost. Seconds, bytes, tiles of 448 px."""

    tiles: float = 1e7
    part_tiles: float = 2048
    portion_tiles: float = 222
    """Tiles of a block, 128 MB of pixels: what is read at once."""
    model_s: float = 0.0057
    """A tile with 8 questions on an H200, at 60 % of what its arithmetic allows (computed)."""
    decode_s: float = 0.0022
    """A tile of deflate on one core: 93 Mpx/s (published for GDAL's GTiff driver)."""
    tile_bytes: float = 3e5
    """Of the file: uint8 RGB, compressed two to one."""
    row_bytes: float = 480
    """Written for a tile with 8 questions, 60 an answer (measured)."""
    storage_bytes_per_s: float = 5e9
    """What the shared storage gives to all together; 5 GB/s is a common parallel file system."""
    link_bytes_per_s: float = 1e9
    """What it gives to one worker."""
    request_s: float = 0.01
    """Until the first byte of a portion comes."""
    commit_s: float = 0.02
    """Flush and rename of a part."""
    start_s: float = 20.0
    """Imports and set-up of a worker, beside the weights."""
    weight_bytes: float = 4.4e9
    """Read by each worker at its start, from the same storage."""
    dispatch_s: float = 0.004
    """Of the driver for a part: `bench_overhead.py` hands out 240 a second on two cores (measured)."""


class Queue:
    """Something that does one thing after another."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy_s = 0.0

    def take(self, now: float, seconds: float) -> float:
        """-> when it is done with this."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy_s += seconds
        return self.free_at


class Run:
    """One run on `n_workers` GPUs."""

    def __init__(self, costs: Costs, n_workers: int) -> None:
        self.costs, self.n_workers = costs, n_workers
        self.n_parts = round(costs.tiles / costs.part_tiles)
        self._left = self.n_parts
        self.done = 0
        self.storage, self.driver = Queue(), Queue()
        self._models = [Queue() for _ in range(n_workers)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._n_events = 0
        self._moved: Counter[str] = Counter()
        """What -> bytes to and from the storage."""
        self.decode_s = self.end = 0.0

    def go(self) -> dict[str, Any]:
        """-> hours, and what was busy for how much of them."""
        for worker in range(self.n_workers):
            ready = self._fetch(0.0, self.costs.weight_bytes, "weights") + self.costs.start_s
            for _ in range(SLOTS):
                self._at(ready, lambda now, worker=worker: self._next_part(now, worker))
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            happens(now)
        model_s = sum(model.busy_s for model in self._models)
        shares = {
            "model": model_s / self.n_workers / self.end,
            "storage": self.storage.busy_s / self.end,
            "driver": self.driver.busy_s / self.end,
            "decoding": self.decode_s / SLOTS / self.n_workers / self.end,
        }
        return {
            "gpus": self.n_workers,
            "parts": self.n_parts,
            "hours": self.end / 3600,
            "tiles_per_s": self.costs.tiles / self.end,
            "efficiency": self.costs.tiles * self.costs.model_s / self.n_workers / self.end,
            **{name: min(share, 1.0) for name, share in shares.items()},
            "binds": self._binds(shares),
        }

    def _binds(self, shares: dict[str, float]) -> str:
        """What is busy nearly always; else the start, or too few parts for so many workers."""
        name = max(shares, key=lambda name: shares[name])
        if shares[name] > 0.85:
            return f"storage: {max(self._moved, key=lambda what: self._moved[what])}" if name == "storage" else name
        return "start and end" if self.n_parts < 30 * self.n_workers else "waiting"

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (when, self._n_events, happens))

    def _fetch(self, now: float, n_bytes: float, what: str) -> float:
        """-> when the bytes are there: as fast as the storage gives them to all, and the link to one."""
        self._moved[what] += n_bytes
        shared = self.storage.take(now, n_bytes / self.costs.storage_bytes_per_s)
        return max(shared, now + n_bytes / self.costs.link_bytes_per_s) + self.costs.request_s

    def _next_part(self, now: float, worker: int) -> None:
        self.end = max(self.end, now)
        if not self._left:
            return
        self._left -= 1
        # A worker has one part more in hand than slots: the driver is waited for only where it is behind.
        handed = self.driver.take(now, self.costs.dispatch_s)
        behind = handed - now - self.costs.part_tiles * self.costs.model_s
        self._at(now + max(0.0, behind), lambda at: self._portion(at, worker, self.costs.part_tiles))

    def _portion(self, now: float, worker: int, tiles_left: float) -> None:
        """Fetch, decode and ask a portion, then the next; at last write."""
        if tiles_left <= 0:
            self._write(now, worker)
            return
        tiles = min(self.costs.portion_tiles, tiles_left)
        decoding = tiles * self.costs.decode_s
        self.decode_s += decoding
        decoded = self._fetch(now, tiles * self.costs.tile_bytes, "pixels") + decoding

        def answer(at: float) -> None:
            answered = self._models[worker].take(at, tiles * self.costs.model_s)
            self._at(answered, lambda then: self._portion(then, worker, tiles_left - tiles))

        self._at(decoded, answer)

    def _write(self, now: float, worker: int) -> None:
        written = self._fetch(now, self.costs.part_tiles * self.costs.row_bytes, "answers") + self.costs.commit_s

        def finish(at: float) -> None:
            self.done += 1
            self._next_part(at, worker)

        self._at(written, finish)


ARCHIVES: dict[str, dict[str, float]] = {
    "parallel file system, 5 GB/s": {},
    "NFS of one server, 1 GB/s": {"storage_bytes_per_s": 1e9},
    "object store, 100 GB/s, 50 ms": {"storage_bytes_per_s": 1e11, "link_bytes_per_s": 5e8, "request_s": 0.05},
    "parallel file system, 5 GB/s, weights on the disk of each machine": {"weight_bytes": 0.0},
    "the same, and parts of 256 tiles": {"weight_bytes": 0.0, "part_tiles": 256.0},
    "object store, weights on the disk of each machine, parts of 256 tiles": {
        "storage_bytes_per_s": 1e11,
        "link_bytes_per_s": 5e8,
        "request_s": 0.05,
        "weight_bytes": 0.0,
        "part_tiles": 256.0,
    },
}
"""What is stored where, against `Costs`."""


def simulate(costs: Costs, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """A row per number of GPUs."""
    return [Run(costs, n).go() for n in sizes]


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    print(f"\n{name}")
    print(f"{'GPUs':>5} {'parts':>7} {'hours':>8} {'tiles/s':>9} {'of ideal':>9} {'GPU':>5} {'storage':>8} "
          f"{'driver':>7} {'decode':>7}  binds")  # fmt: skip
    for row in rows:
        print(f"{row['gpus']:>5} {row['parts']:>7} {row['hours']:>8.3f} {row['tiles_per_s']:>9.0f} "
              f"{row['efficiency']:>9.0%} {row['model']:>5.0%} {row['storage']:>8.0%} {row['driver']:>7.1%} "
              f"{row['decoding']:>7.0%}  {row['binds']}")  # fmt: skip


if __name__ == "__main__":
    named = {name: float(value) for name, value in (argument.split("=", 1) for argument in sys.argv[1:])}
    measured = replace(Costs(), **named)
    tables = {name: simulate(replace(measured, **change)) for name, change in ARCHIVES.items()}
    for archive, table in tables.items():
        show(archive, table)
    print(json.dumps({"costs": asdict(measured), "tables": tables}))
