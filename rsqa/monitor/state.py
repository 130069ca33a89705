"""What a monitor remembers beside its dataset: files that it opened, what failed, how the last passes went.

`state.json` is a convenience: without it files are opened again and failures are tried anew, nothing else is lost.
What was observed is told by the dataset alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rsqa.monitor.scenes import Found, Scene
from rsqa.sinks.whole import write_whole_bytes

STATE = "state.json"
FORMAT = 1
RUNS = 50
"""Passes that are remembered."""
FIRST_WAIT_S, LONGEST_WAIT_S = 600.0, 86_400.0
FREE_KILLS = 2
"""Passes that were killed over a scene and make it wait no longer: a reboot is not the scene's fault."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something is not done yet."""

    reason: str
    tries: int
    last: float
    """Seconds since 1970."""
    refused: bool
    """Whether the file itself is at fault: only then it is given up after some tries."""
    killed: bool = False
    """Begun and not ended: stands while a scene is observed, and when the pass was killed meanwhile."""

    def waits_s(self) -> float:
        """10 minutes, 20, 40, … a day."""
        if self.killed:
            return 0.0 if self.tries <= FREE_KILLS else self._doubling(self.tries - FREE_KILLS)
        return self._doubling(self.tries)

    def _doubling(self, tries: int) -> float:
        return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries - 1, 20)))

    def due(self, now: float) -> bool:
        """Whether it is time to try again; also when the clock was moved backwards."""
        return not self.last <= now < self.last + self.waits_s()

    def given_up(self, tries: int) -> bool:
        """Whether it is in quarantine."""
        return self.refused and self.tries >= tries


@dataclass(frozen=True, slots=True)
class PassFacts:
    """What a pass came to."""

    started: str
    """UTC."""
    seconds: float
    exit_code: int
    observed: int
    """Acquisitions."""
    changes: int
    """That were told."""
    failed: int
    pending: int


@dataclass(slots=True)
class State:
    """See the module. Failures are keyed by the name of a file, or by the id of an acquisition."""

    seen: dict[str, tuple[int, int, str, str]] = field(default_factory=dict)
    """Name of a file -> size, mtime_ns, fingerprint, acquired."""
    failures: dict[str, tuple[str, Failure]] = field(default_factory=dict)
    """Key -> what it was about (a file's size and time, an acquisition's content), and the failure."""
    sizes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Settings -> verb of a run -> batch and tiles per part of the first scene that was asked so."""
    processing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Settings -> question id -> processing id, as the model was when last looked at."""
    runs: list[PassFacts] = field(default_factory=list)
    """The last ones, oldest first."""

    def scene(self, found: Found) -> Scene | None:
        """What is known of a file, if it is still the one that was opened."""
        size, mtime_ns, fingerprint, acquired = self.seen.get(found.name, (-1, -1, "", ""))
        if (size, mtime_ns) != (found.size, found.mtime_ns):
            return None
        return Scene(found, fingerprint, datetime.fromisoformat(acquired))

    def remember(self, scene: Scene) -> None:
        """The file need not be opened again."""
        found = scene.found
        self.seen[found.name] = found.size, found.mtime_ns, scene.fingerprint, scene.acquired.isoformat()
        self.failures.pop(found.name, None)

    def failure(self, key: str, about: str) -> Failure | None:
        """Why this is not done, if it is still the same."""
        known, failure = self.failures.get(key, ("", None))
        return failure if known == about else None

    def begin(self, key: str, about: str, now: float) -> Failure | None:
        """Note that it is tried now, should that end the process; -> how it had failed before."""
        before = self.failure(key, about)
        tries = before.tries if before else 0
        self.failures[key] = about, Failure("the pass was killed over it", tries + 1, now, refused=False, killed=True)
        return before

    def fail(self, key: str, about: str, before: Failure | None, reason: str, now: float, *, refused: bool) -> Failure:
        """Note that it failed; `before`: how it had failed the last time."""
        same = before if before is not None and not before.killed else None
        failure = Failure(reason, (same.tries if same else 0) + 1, now, refused)
        self.failures[key] = about, failure
        return failure

    def put_back(self, key: str, about: str, before: Failure | None) -> None:
        """It was interrupted on purpose: as if it had not been begun."""
        if before is None:
            self.failures.pop(key, None)
        else:
            self.failures[key] = about, before

    def ended(self, facts: PassFacts) -> None:
        """Add a pass to the last ones."""
        self.runs = [*self.runs, facts][-RUNS:]

    def forget(self, names: set[str]) -> None:
        """Drop what is known of files that are not among `names` any more."""
        self.seen = {name: known for name, known in self.seen.items() if name in names}


def read_state(out: Path) -> State:
    """What the last pass left; an empty one when there is none that can be read."""
    try:
        raw: Mapping[str, Any] = json.loads((out / STATE).read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            return State()
        return State(
            seen={name: (int(s), int(m), str(f), str(a)) for name, (s, m, f, a) in raw["seen"].items()},
            failures={key: (about, Failure(**failure)) for key, (about, failure) in raw["failures"].items()},
            sizes={key: {verb: (int(batch), int(tiles)) for verb, (batch, tiles) in runs.items()}
                   for key, runs in raw["sizes"].items()},
            processing={key: dict(ids) for key, ids in raw["processing"].items()},
            runs=[PassFacts(**run) for run in raw["runs"]],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return State()


def write_state(out: Path, state: State) -> None:
    """Whole or not at all. OutputError when that can't be done."""
    text = json.dumps({"format": FORMAT, **asdict(state)}, separators=(",", ":"))
    write_whole_bytes(out / STATE, text.encode())
