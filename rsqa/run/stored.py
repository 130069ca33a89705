"""The output of a run in an object store. The names there are those of a folder; see `rsqa.run.folder`.

Plan and parts are in the store alone, each written by one request. The driver has a temporary folder with a copy of
both, makes the tables and the cube there, and writes them to the store.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from rsqa.errors import OutputError
from rsqa.run import folder
from rsqa.run.lease import leased
from rsqa.run.plan import Plan
from rsqa.run.searches import Searches, read_searches, write_searches
from rsqa.sinks.objects import ObjectStore
from rsqa.sinks.part_reading import read_parts

KEPT = (folder.SOURCES, folder.SEARCHES, folder.PLAN, "run.json", "performance.parquet")
"""What a run reads of an earlier one, or leaves as it is, besides the parts."""
LOOK_S = 1.0
"""Between two looks for a part that is not seen yet."""


class StoredPlace:
    """See `rsqa.run.place.Place`."""

    def __init__(self, url: str) -> None:
        self._store = ObjectStore(url)
        self._copy: Path | None = None
        """Of the driver, while it holds the place."""
        self._tops: set[str] = set()
        """What lies there: names of files, and of folders."""

    @property
    def name(self) -> str:
        return self._store.url

    @property
    def shown(self) -> str:
        return self._store.url

    def out_of_reach(self) -> str:
        return ""  # made, so the package is there; the store itself may need what is known to a run's workers only

    @contextmanager
    def held(self) -> Iterator[Path]:
        with leased(self._store) as self._check, _scratch() as self._copy:
            (self._copy / folder.PARTS).mkdir()
            self._tops = {name.partition("/")[0] for name in self._store.names()}
            self._copy_stored(KEPT, self._copy)
            yield self._copy

    def has(self, name: str) -> bool:
        return name in self._tops or (self._driver / name).exists()

    def plan(self) -> Plan:
        with _scratch() as copy:
            self._copy_stored((folder.PLAN, folder.SOURCES), copy)
            return folder.read_plan(copy, self.shown)

    def stamp(self) -> Hashable:
        stored = self._store.get(folder.PLAN)
        return stored and sha256(stored).digest()

    def searches(self) -> Searches:
        with _scratch() as copy:
            self._copy_stored((folder.SEARCHES,), copy)
            return read_searches(copy / folder.SEARCHES)

    def write_plan(self, plan: Plan) -> None:
        folder.write_plan(self._driver, plan)
        for name in (folder.SOURCES, folder.PLAN):
            self._store.put(name, (self._driver / name).read_bytes())

    def write_searches(self, found: Searches) -> None:
        write_searches(self._driver / folder.SEARCHES, found)
        self._store.put(folder.SEARCHES, (self._driver / folder.SEARCHES).read_bytes())

    def clear(self) -> None:
        folder.clear(self._driver)
        self._store.delete([folder.PLAN])  # first, as in a folder
        ours = {folder.SOURCES, folder.SEARCHES, *folder.DERIVED, *folder.EXPORTS}
        names = self._store.names()
        self._store.delete([name for name in names if name.partition("/")[0] in ours or folder.is_part(name)])
        self._tops = set()

    def begun(self) -> bool:
        return any(map(folder.is_part, self._store.names(f"{folder.PARTS}/")))

    def commit(self, number: int, content: bytes | memoryview) -> None:
        self._store.put(folder.part_name(number), content)

    def fetch(self) -> None:
        self._store.each(self._fetch, filter(folder.is_part, self._store.names(f"{folder.PARTS}/")))

    def gather(self, numbers: Sequence[int], n_parts: int) -> None:
        deadline = time.monotonic() + folder.SEEN_S

        def come(number: int) -> None:  # asked for by name: what is written can be read before it is listed
            name = folder.part_name(number)
            while not self._fetch(name):
                if time.monotonic() > deadline:
                    raise OutputError(f"{self.shown}/{name} is damaged or missing; run the same command again")
                time.sleep(LOOK_S)

        self._store.each(come, numbers)

    def withdraw(self) -> None:
        for name in folder.WORD:
            (self._driver / name).unlink(missing_ok=True)
        self._check()
        self._store.delete(folder.WORD)

    def publish(self) -> None:
        made = {
            str(path.relative_to(self._driver))
            for name in folder.DERIVED
            for path in (self._driver / name, *(self._driver / name).rglob("*"))
            if path.is_file()
        }
        there = {name for name in self._store.names() if name.partition("/")[0] in folder.DERIVED}
        self._check()
        self._store.delete((*folder.WORD, *sorted(there - made)))
        self._store.upload(self._driver, sorted(made.difference(folder.WORD)))
        self._check()
        for name in reversed(folder.WORD):
            self._store.upload(self._driver, [name])

    @property
    def _driver(self) -> Path:
        assert self._copy is not None, "the place is not held"
        return self._copy

    def _copy_stored(self, names: Sequence[str], to: Path) -> None:
        """Those that are there."""
        for name, content in zip(names, self._store.each(self._store.get, names), strict=True):
            if content is not None:
                _write(to / name, content)

    def _fetch(self, name: str) -> bool:
        """Copy a part; -> whether it is there and every byte of it is what was written."""
        content, path = self._store.get(name), self._driver / name
        if content is None:
            return False
        _write(path, content)
        try:
            deque(read_parts([path], 1 << 16), maxlen=0)
        except OutputError:
            path.unlink()
            return False
        return True


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder. OutputError where there can be none."""
    try:
        made = TemporaryDirectory(prefix="rsqa-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(f"no temporary folder can be made ({error}); name another in TMPDIR") from error
    with made as folder_name:
        yield Path(folder_name)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror}; name a folder with more room in TMPDIR") from error
