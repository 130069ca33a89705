"""A step that is launched as one: on a GPU its kernels are recorded once and replayed, on a CPU it is simply run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Recorded:
    """A step without arguments but a size, which works on tensors that keep their place.

    A decode step of a small model is some thousand kernels of microseconds: launched one by one, the launching takes
    ten times as long as the work.
    """

    def __init__(self, step: Callable[[int], None], state: Sequence[Tensor]) -> None:
        """`state`: what the step changes and must not have changed twice when it is first recorded."""
        self._step, self._state = step, tuple(state)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, size: int) -> None:
        """One step."""
        if not self._state[0].is_cuda:
            self._step(size)
            return
        if size not in self._graphs:
            self._graphs[size] = self._record(size)
        self._graphs[size].replay()

    def forget(self) -> None:
        """Other tensors of the step have moved."""
        self._graphs.clear()

    def _record(self, size: int) -> torch.cuda.CUDAGraph:
        before = [tensor.clone() for tensor in self._state]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._step(size)  # compiles what is to be compiled, and lets libraries take their memory
        torch.cuda.current_stream().wait_stream(aside)
        for tensor, kept in zip(self._state, before, strict=True):
            tensor.copy_(kept)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # records, runs nothing
            self._step(size)
        return graph
