"""Where the output of a run lies: a folder, or an object store.

The driver works in a folder whatever the place: the output itself, or a copy of what the store holds. Workers know the
place by its name alone, and write nothing but parts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from rsqa.run import folder
from rsqa.run.plan import Plan
from rsqa.run.searches import Searches, read_searches, write_searches
from rsqa.run.stored import StoredPlace
from rsqa.sinks.objects import is_url
from rsqa.sinks.whole import discard, write_whole_bytes


class Place(Protocol):
    """What a run does with its output. Every method raises OutputError where it can't be read or written."""

    @property
    def name(self) -> str:
        """What `place_at` finds it by, from any machine: an absolute path, or an address."""

    @property
    def shown(self) -> Path | str:
        """What the user called it."""

    def out_of_reach(self) -> str:
        """Why this process can't use it; empty when it can. Asks no network."""

    def held(self) -> AbstractContextManager[Path]:
        """Hold it, and -> the folder where the driver works. OutputLocked when another run holds it."""

    def has(self, name: str) -> bool:
        """Whether a file or folder of that name was there when it was held, or is in the driver's folder by now."""

    def plan(self) -> Plan:
        """The stored plan."""

    def stamp(self) -> Hashable:
        """Another one when another plan is stored."""

    def searches(self) -> Searches:
        """What searches found for the stored plan; empty without."""

    def write_plan(self, plan: Plan) -> None:
        """Store the plan; parts that are there from now on belong to it."""

    def write_searches(self, found: Searches) -> None:
        """Keep what searches found; before the plan."""

    def clear(self) -> None:
        """Remove what runs wrote, and nothing else."""

    def begun(self) -> bool:
        """Whether a part is committed."""

    def commit(self, number: int, content: bytes | memoryview) -> None:
        """Write a part: whole, or not at all."""

    def fetch(self) -> None:
        """Bring the parts that are committed into the driver's folder, those that are damaged left out."""

    def gather(self, numbers: Sequence[int], n_parts: int) -> None:
        """The same for parts that workers have just committed, all of which must come; `n_parts`: of the plan."""

    def withdraw(self) -> None:
        """Take back the word that the outputs are whole, before anything in them changes."""

    def publish(self) -> None:
        """Write what the driver derived in its folder to the place; the word that it is whole comes last."""


def place_at(name: str) -> Place:
    """UsageError for an address that no output can have."""
    return StoredPlace(name) if is_url(name) else FolderPlace(Path(name))


class FolderPlace:
    """See `Place`; all is where the driver works."""

    def __init__(self, out: Path) -> None:
        self._out = out

    @property
    def name(self) -> str:
        return str(self._out.absolute())

    @property
    def shown(self) -> Path:
        return self._out

    def out_of_reach(self) -> str:
        there = self._out.is_dir()
        return "" if there else f"it does not see {str(self._out)!r}; choose an --out that all machines share"

    def held(self) -> AbstractContextManager[Path]:
        return folder.locked(self._out)

    def has(self, name: str) -> bool:
        return (self._out / name).exists()

    def plan(self) -> Plan:
        return folder.read_plan(self._out)

    def stamp(self) -> Hashable:
        try:
            stored = (self._out / folder.PLAN).stat()
        except OSError:
            return None
        return stored.st_ino, stored.st_mtime_ns

    def searches(self) -> Searches:
        return read_searches(self._out / folder.SEARCHES) if self.has(folder.PLAN) else {}

    def write_plan(self, plan: Plan) -> None:
        folder.write_plan(self._out, plan)

    def write_searches(self, found: Searches) -> None:
        write_searches(self._out / folder.SEARCHES, found)

    def clear(self) -> None:
        folder.clear(self._out)

    def begun(self) -> bool:
        return folder.begun(self._out)

    def commit(self, number: int, content: bytes | memoryview) -> None:
        write_whole_bytes(folder.part_path(self._out, number), content)

    def fetch(self) -> None:
        pass

    def gather(self, numbers: Sequence[int], n_parts: int) -> None:
        folder.await_parts(self._out, n_parts)

    def withdraw(self) -> None:
        for name in folder.WORD:
            discard(self._out / name)

    def publish(self) -> None:
        pass
