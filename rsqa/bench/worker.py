"""The process of one side: `python -m rsqa.bench.worker TARGET`, one JSON object per line in, one out.

    {"do": "load", "setup": …}      -> {"seconds", "peak_mb"}
    {"do": "prepare", "case": …}    -> {"seconds", "notes"}; from here on memory is counted anew
    {"do": "run"}                   -> {"wall_s", "cpu_s", "peak_mb", …what the side adds}
    {"do": "compare", "n_tiles": n} -> {"tokens", "option_logprobs"}; null where the side has none

A request that fails is answered by {"error", "missing"}; `missing`: a package is not installed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsqa.bench.sides import Side, make_side
from rsqa.bench.work import Setup, case_from_json, setup_from_json


def main(target: str) -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    worker = _Worker(target)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = worker.do[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            reason = str(error).strip().splitlines() or [""]
            reply = {"error": f"{type(error).__name__}: {reason[0]}", "missing": isinstance(error, ImportError)}
        print(json.dumps(reply), file=answers)


COMPARED = ("tokens", "option_logprobs")
"""What a side may offer for comparison; see `Side`."""


class _Worker:
    """One side through its cases."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._side: Side | None = None
        self._cuda = False
        self.do: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self.load, "prepare": self.prepare, "run": self.run, "compare": self.compare
        }  # fmt: skip

    def load(self, setup: dict[str, Any]) -> dict[str, Any]:
        """Import the side and read its weights."""
        start, told = time.perf_counter(), setup_from_json(setup)
        self._start_torch(told)
        self._side = make_side(self._target, told)
        return {"seconds": time.perf_counter() - start, "peak_mb": self._peak_mb()}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Ready a case and warm up."""
        start = time.perf_counter()
        notes = self._loaded().prepare(case_from_json(case))
        seconds = time.perf_counter() - start
        gc.collect()
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        return {"seconds": seconds, "notes": notes, "peak_is_of_the_case": self._cuda or _reset_peak()}

    def run(self) -> dict[str, Any]:
        """Answer the case, timed."""
        side = self._loaded()
        self._wait_for_gpu()
        start, cpu = time.perf_counter(), time.process_time()
        facts = side.run()
        self._wait_for_gpu()
        spent = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
        return spent | {"peak_mb": self._peak_mb()} | facts

    def compare(self, n_tiles: int) -> dict[str, Any]:
        """What is held against the reference, untimed."""
        side: Any = self._loaded()
        return {name: getattr(side, name)(n_tiles) if hasattr(side, name) else None for name in COMPARED}

    def _loaded(self) -> Side:
        if self._side is None:
            raise RuntimeError("the side was not loaded")
        return self._side

    def _start_torch(self, setup: Setup) -> None:
        import torch

        torch.set_num_threads(setup.threads)
        self._cuda = setup.device != "cpu"
        if self._cuda:
            torch.cuda.set_device(setup.device if ":" in setup.device else f"{setup.device}:0")

    def _wait_for_gpu(self) -> None:
        if self._cuda:
            import torch

            torch.cuda.synchronize()

    def _peak_mb(self) -> float:
        """Of the GPU's memory where there is one, else of the process."""
        if self._cuda:
            import torch

            return torch.cuda.max_memory_allocated() / 1e6
        [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024 / 1e6


def _reset_peak() -> bool:
    """Let the kernel count this process's peak memory from now on. -> False where it does not offer that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1])
