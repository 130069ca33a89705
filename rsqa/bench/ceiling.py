"""How fast this machine multiplies large matrices in the benchmark's precision: the ceiling of every side."""

from __future__ import annotations

import time

import torch

from rsqa.bench.work import Case, Setup
from rsqa.models.loading import DTYPES

LEAST_S = 0.1
"""One product should take as long, so that starting it does not count."""
LARGEST = 8192
"""Rows and columns, most: every accelerator is at its rate by then."""


class Ceiling:
    """A side that answers nothing."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._size = setup, 1024
        self._a, self._b = self._draw()

    def prepare(self, case: Case) -> list[str]:
        """Find the size; -> what was done."""
        while self._size < LARGEST and self._seconds() < LEAST_S:
            self._size *= 2
            self._a, self._b = self._draw()
        self._seconds()
        return [f"{self._size} x {self._size} times {self._size} x {self._size}, random numbers, {self._setup.dtype}"]

    def run(self) -> dict[str, float]:
        """-> FLOP/s of the best of five products."""
        return {"flop_per_s": 2 * self._size**3 / min(self._seconds() for _ in range(5))}

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        shape, device = (self._size, self._size), self._setup.device
        a, b = torch.rand(2, *shape, device=device).sub(0.5).to(DTYPES[self._setup.dtype])
        return a, b

    def _seconds(self) -> float:
        if self._setup.device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        self._a @ self._b
        if self._setup.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start
