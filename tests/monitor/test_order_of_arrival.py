"""Scenes, copies of them and others of the same moment arrive in every order: the dataset is the same bytes."""

from __future__ import annotations

import shutil
from itertools import permutations
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from painted_scenes import write_scene
from watched import Watched

from rsqa.monitor import dataset

SCENE, COPY, OTHER = "m.tif", "c.tif", "k.tif"
"""By name the copy lies above the other file of its moment, and the scene itself below."""


class Killed(BaseException):
    """As good as kill -9: nothing in a pass catches it."""


class Port(Watched):
    """A monitor at which scenes of an archive arrive."""

    def __init__(self, folder: Path, archive: Path):
        super().__init__(folder, change="confirmations = 1")
        self.archive = archive

    def arrive(self, *names: str):
        for name in names:
            shutil.copy2(self.archive / name, self.folder / "incoming")
        return self.run()

    def stored(self) -> list[Path]:
        """The dataset and all changes."""
        return [*sorted(self.watch.out.glob("observations/*/*")), self.watch.out / "changes.parquet"]

    def bytes(self):
        return {path.name: path.read_bytes() for path in self.stored()}

    def sources(self):
        """Of the second night, and of what changed in it."""
        return [set(pq.read_table(path, columns=["source"])["source"].to_pylist()) for path in self.stored()[1:]]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """-> a new monitor that has seen the night before, each time.

    To come are a scene, a copy of it, and another file of the same moment with other things on the same ground.
    """
    archive, made = (tmp_path_factory.mktemp(name) for name in ("archive", "made"))
    write_scene(archive / SCENE, [(0, 0), (1, 2)], night=1)
    shutil.copy(archive / SCENE, archive / COPY)
    write_scene(archive / OTHER, [(0, 0), (3, 3)], night=1, shift_px=(10, 20))
    begun = Port(made / "begun", archive)
    begun.scene("before.tif", night=0)
    begun.run()

    def make() -> Port:
        new = Port(made / str(len(list(made.iterdir()))), archive)
        shutil.copytree(begun.folder, new.folder, dirs_exist_ok=True)
        return new

    return make


@pytest.fixture(scope="module")
def at_once(port) -> dict[str, bytes]:
    """What is left when all arrive together."""
    once = port()
    assert once.arrive(SCENE, COPY, OTHER).observed == 1
    assert once.sources() == [{"incoming/c.tif and 1 more"}] * 2
    return once.bytes()


def test_every_order_gives_the_same_bytes(port, at_once):
    for order in permutations((SCENE, COPY, OTHER)):
        watched = port()
        for name in order:
            watched.arrive(name)
        assert watched.bytes() == at_once, order


def test_a_copy_under_an_earlier_name_renames_and_asks_nothing(port, monkeypatch):
    watched = port()
    watched.arrive(SCENE)
    before = watched.bytes()
    assert watched.sources() == [{"incoming/m.tif"}] * 2
    monkeypatch.setattr("rsqa.monitor.run.observe", None)
    report = watched.arrive(COPY)
    assert (report.observed, report.changes) == (0, 0)
    assert watched.sources() == [{"incoming/c.tif"}] * 2
    assert watched.bytes().keys() == before.keys()
    (watched.folder / "incoming" / COPY).unlink()  # what it was called stays
    after = watched.bytes()
    watched.run()
    assert watched.bytes() == after


@pytest.mark.parametrize(("step", "number"), [("discard", 1), ("write_file", 1), ("write_file", 2), ("write_file", 3)])
def test_killed_while_one_replaces_another(port, at_once, monkeypatch, step, number):
    """Killed before: the copy's name is noted, the new rows are committed, the old ones go, that is noted."""
    watched = port()
    watched.arrive(SCENE)
    done, times = getattr(dataset, step), iter(range(1, number))

    def killed(*arguments):
        if next(times, None) is None:
            raise Killed
        return done(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(dataset, step, killed)
        with pytest.raises(Killed):
            watched.arrive(COPY, OTHER)
    watched.run()
    assert watched.bytes() == at_once
