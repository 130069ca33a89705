"""The sides by name: what each one is called, and the class or function that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from rsqa.bench.work import Case, Setup


class Side(Protocol):
    """One way to answer a case. Lives in a process of its own.

    Beside these two verbs a side may have `tokens(n_tiles)`, per tile and question the tokens that it generates, and
    `option_logprobs(n_tiles)`, per tile, question and option a log-probability: those are compared with the reference.
    """

    def prepare(self, case: Case) -> list[str]:
        """Everything that is not timed, warming up included -> what was done, in words."""
        ...

    def run(self) -> dict[str, float]:
        """Answer the whole case -> what only the side itself knows of the run."""
        ...


@dataclass(frozen=True, slots=True)
class SideKind:
    """A side that can be asked for."""

    name: str
    title: str
    target: str
    """`module:maker` in rsqa.bench."""


CEILING = SideKind("ceiling", "matrix product, the ceiling", "ceiling:Ceiling")
REFERENCE = SideKind("reference", "transformers in float32", "rivals:reference")
SIDES = {
    kind.name: kind
    for kind in (
        SideKind("a", "transformers, one by one", "rivals:one_by_one"),
        SideKind("b", "transformers, batched", "rivals:batched"),
        SideKind("b'", "transformers, batched, image cached", "rivals:cached"),
        SideKind("c", "TinyRS loop, re-enacted", "rivals:FromFiles"),
        SideKind("d", "vLLM", "vllm:Vllm"),
        SideKind("e", "rsqa, model only", "ours:Ours"),
        SideKind("e'", "rsqa, asked again, features kept", "ours:Again"),
        SideKind("file", "rsqa, file to GeoParquet", "files:FileToTable"),
    )
}
OURS = ("e", "e'", "file")


def make_side(target: str, setup: Setup) -> Side:
    """Import and load a side; this is where a missing package shows."""
    module, _, name = target.partition(":")
    return cast(Side, getattr(import_module(f"rsqa.bench.{module}"), name)(setup))
