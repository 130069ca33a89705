"""Fewer launches on a GPU: kernels fused by torch.compile, and whole steps recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def fused(function: F, dynamic: bool = True) -> F:
    """`function` with fused kernels between its products: compiled when first called, once for all layers.

    `dynamic`: sizes are symbols; a size of one, another rank or another mask is compiled apart, so a handful of times
    in all. Otherwise once for each size, which on a CPU makes kernels several times as fast.
    """
    import torch._dynamo  # a second to import, and only GPUs need it

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return cast(F, torch.compile(function, fullgraph=True, dynamic=dynamic))


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
