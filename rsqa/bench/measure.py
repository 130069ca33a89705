"""Runs the sides against each other: a process each, all loaded, in turns A B C C B A, so that drift hits all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import rsqa
from rsqa.bench.sides import CEILING, OURS, REFERENCE, SIDES, SideKind
from rsqa.bench.work import Case, Setup, to_json

Say = Callable[[str], None]


class SideFailed(Exception):
    """A side can't go on; the message is for its row."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        """Whether it could not even begin, for want of a package."""


@dataclass(frozen=True, slots=True)
class Contest:
    """What to run."""

    setup: Setup
    cases: tuple[Case, ...]
    sides: tuple[str, ...]
    rounds: int
    sample: int
    """Tiles whose answers are held against the reference."""
    rival_tiles: int | None = None
    """Tiles for the sides that are not rsqa; None: all. Rates are per tile, and slow sides need not see thousands."""
    vllm_python: str | None = None

    def case_of(self, side: str, case: Case) -> Case:
        """The tiles that a side sees of a case."""
        if side in OURS or self.rival_tiles is None:
            return case
        return replace(case, n_tiles=min(case.n_tiles, self.rival_tiles))


@dataclass(slots=True)
class Row:
    """What one side did of one case."""

    side: str
    title: str
    case: Case
    state: Literal["ok", "not run", "failed"] = "ok"
    why: str = ""
    load: dict[str, Any] = field(default_factory=dict)
    warm_up: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)
    """One per round: wall_s, cpu_s, peak_mb and what the side adds."""
    compared: dict[str, Any] | None = None
    """What `compare` of the worker says; None: not asked."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A case, with its reference."""

    case: Case
    rows: tuple[Row, ...]
    ceiling: Row
    reference: Row | None


class SideProcess:
    """A side at the other end of a pipe."""

    def __init__(self, kind: SideKind, python: str, setup: Setup, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.kind, self._setup = kind, replace(setup, scratch=str(folder))
        self._log = folder / "log.txt"
        environment = os.environ | {
            "OMP_NUM_THREADS": str(setup.threads),
            "MKL_NUM_THREADS": str(setup.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its CPU time and memory are those of its process
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(Path(rsqa.__file__).parents[1]), os.environ.get("PYTHONPATH")))
            ),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", "rsqa.bench.worker", kind.target],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip

    def load(self) -> dict[str, Any]:
        """Import and read the weights."""
        return self.ask("load", setup=to_json(self._setup))

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """One request. SideFailed with the reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideFailed(self._epitaph())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise SideFailed(reply["error"], reply["missing"])
        return reply

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; safe to call twice."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _epitaph(self) -> str:
        code = self._process.wait()
        if code == -9:
            return "killed by the system, most likely for want of memory"
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"its process ended with {code}: {''.join(last)}"


class Sides:
    """All processes of a contest; a dead one is started anew for the next case."""

    def __init__(self, contest: Contest, folder: Path, say: Say) -> None:
        self._contest, self._folder, self._say = contest, folder, say
        self._loaded: dict[str, tuple[SideProcess, dict[str, Any]]] = {}
        self._started = 0

    def get(self, kind: SideKind) -> tuple[SideProcess, dict[str, Any]]:
        """-> a loaded side, and what loading it took. SideFailed when it can't be loaded."""
        if kind.name in self._loaded and not self._loaded[kind.name][0].alive:
            self.close(kind.name)
        if kind.name not in self._loaded:
            self._say(f"loading {kind.name}: {kind.title}")
            self._loaded[kind.name] = self._start(kind)
        return self._loaded[kind.name]

    def close(self, name: str) -> None:
        """End a side and free its memory; nothing when it is not there."""
        if held := self._loaded.pop(name, None):
            held[0].close()

    def close_all(self) -> None:
        """End them all."""
        for name in list(self._loaded):
            self.close(name)

    def _start(self, kind: SideKind) -> tuple[SideProcess, dict[str, Any]]:
        python, setup = sys.executable, self._contest.setup
        if kind.name == "d":
            if self._contest.vllm_python is None:
                raise SideFailed("no environment with vLLM; name its Python with --vllm-python", missing=True)
            python = self._contest.vllm_python
        if kind is REFERENCE:
            setup = replace(setup, dtype="float32")
        self._started += 1
        process = SideProcess(kind, python, setup, self._folder / f"side-{self._started}")
        try:
            return process, process.load()
        except BaseException:
            process.close()
            raise


@contextmanager
def open_sides(contest: Contest, say: Say) -> Iterator[Sides]:
    """All processes end with the block."""
    with tempfile.TemporaryDirectory(prefix="rsqa-bench-") as folder:
        sides = Sides(contest, Path(folder), say)
        try:
            yield sides
        finally:
            sides.close_all()


def measure(contest: Contest, say: Say) -> Iterator[Measured]:
    """Each case as soon as it is done. A side that fails becomes a row that says so."""
    with open_sides(contest, say) as sides:
        references = [_reference(sides, contest, case, say) for case in contest.cases]
        sides.close(REFERENCE.name)  # in float32 it may be the largest of all
        for case, reference in zip(contest.cases, references, strict=True):
            say(f"{case.name}: {case.n_tiles} tiles")
            kinds = [CEILING, *(SIDES[name] for name in contest.sides)]
            rows = [Row(kind.name, kind.title, contest.case_of(kind.name, case)) for kind in kinds]
            for kind, row in zip(kinds, rows, strict=True):
                _prepare(sides, kind, row, say)
            for number in range(contest.rounds):
                _round(sides, list(zip(kinds, rows, strict=True))[:: -1 if number % 2 else 1], number, say)
            if reference is not None and reference.state == "ok":
                for kind, row in zip(kinds, rows, strict=True):
                    _compare(sides, kind, row, contest.sample)
            yield Measured(case, tuple(rows[1:]), rows[0], reference)


def _reference(sides: Sides, contest: Contest, case: Case, say: Say) -> Row | None:
    if not contest.sample:
        return None
    row = Row(REFERENCE.name, REFERENCE.title, replace(case, n_tiles=min(case.n_tiles, contest.sample)))
    say(f"{case.name}: answers in float32 to compare with, {row.case.n_tiles} tiles")
    _prepare(sides, REFERENCE, row, say)
    _compare(sides, REFERENCE, row, contest.sample)
    return row if row.compared else replace(row, state="failed")


def _prepare(sides: Sides, kind: SideKind, row: Row, say: Say) -> None:
    with _guarded(row, say):
        process, row.load = sides.get(kind)
        row.warm_up = process.ask("prepare", case=to_json(row.case))
        say(f"  {kind.name}: ready after {row.warm_up['seconds']:.1f} s")


def _round(sides: Sides, turns: Sequence[tuple[SideKind, Row]], number: int, say: Say) -> None:
    for kind, row in turns:
        if row.state == "ok":
            with _guarded(row, say):
                row.runs.append(sides.get(kind)[0].ask("run"))
                say(f"  {kind.name}: round {number + 1}, {row.runs[-1]['wall_s']:.2f} s")


def _compare(sides: Sides, kind: SideKind, row: Row, n_tiles: int) -> None:
    if row.state == "ok":
        try:
            row.compared = sides.get(kind)[0].ask("compare", n_tiles=min(n_tiles, row.case.n_tiles))
        except SideFailed as error:  # what was timed was timed
            row.why = f"not compared: {error}"


@contextmanager
def _guarded(row: Row, say: Say) -> Iterator[None]:
    """A failure is noted in the row, and the others go on."""
    try:
        yield
    except SideFailed as error:
        row.state, row.why = ("not run" if error.missing else "failed"), str(error)
        say(f"  {row.side}: {row.state}: {row.why}")
