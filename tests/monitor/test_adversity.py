"""What goes wrong around a monitor: a full disk, one that can't be written, clocks, limits, an edited WATCH.toml."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from painted_scenes import when
from watched import Watched

from rsqa.errors import ExitCode, OutputError, RsqaError
from rsqa.monitor.state import read_state

DAY = 86_400


def two_nights(folder: Path, **sections) -> Watched:
    """A mark vanishes and another one appears."""
    watched = Watched(folder, **{"change": "confirmations = 1"} | sections)
    watched.scene("a.tif", [(0, 0)], night=0)
    watched.scene("b.tif", [(1, 1)], night=1)
    return watched


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What passes leave that nothing disturbs."""
    watched = two_nights(tmp_path_factory.mktemp("undisturbed") / "w")
    report = watched.run(change_code=True)
    assert (report.exit_code, report.observed, report.changes) == (ExitCode.CHANGED, 2, 2)
    return watched.bytes()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != ".rsqa.lock"]


def goes_on(watched: Watched, undisturbed) -> None:
    """What the next pass makes of it is what nothing disturbed."""
    assert watched.run().exit_code == ExitCode.DONE
    assert watched.bytes() == undisturbed
    assert leftovers(watched.folder / "port.monitor") == []


class Fault:
    """`os.fsync`, which every file of a monitor goes through, failing from the n-th time on."""

    def __init__(self, monkeypatch, first: int, code: int) -> None:
        self.calls, self.first, self.code, self.real = 0, first, code, os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls >= self.first:
            raise OSError(self.code, os.strerror(self.code))
        self.real(descriptor)


def fails_at(folder: Path, undisturbed, monkeypatch, first: int, code: int) -> bool:
    """Whether a pass fails of a disk that is so from its n-th write on; the next pass must make up for it."""
    watched = two_nights(folder)
    with monkeypatch.context() as patched:
        Fault(patched, first, code)
        try:
            watched.run()
        except OutputError:
            pass
        else:
            return False
    goes_on(watched, undisturbed)
    return True


@pytest.mark.parametrize(("first", "code"), [(1, errno.EROFS), (9, errno.ENOSPC), (21, errno.ENOSPC), (30, errno.EIO)])
def test_a_disk_that_fails_in_the_middle(tmp_path, undisturbed, monkeypatch, first, code):
    assert fails_at(tmp_path / "w", undisturbed, monkeypatch, first, code)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_disk_that_is_full_at_every_write(tmp_path, undisturbed, monkeypatch):
    first = 1
    while fails_at(tmp_path / f"w{first}", undisturbed, monkeypatch, first, errno.ENOSPC):
        first += 1
    assert first > 30


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def on(disk: Path, folder: Path) -> Watched:
    """The scenes lie elsewhere."""
    watched = two_nights(folder)
    text = (folder / "WATCH.toml").read_text().replace('out = "port.monitor"', f'out = "{disk}/port.monitor"')
    (folder / "WATCH.toml").write_text(text)
    return watched


def stored(watched: Watched) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in watched.watch.out.rglob("*.parquet")}


@pytest.mark.parametrize("free_kb", [20, 150, 210, 250, 420])
def test_a_full_disk(disk, tmp_path, undisturbed, monkeypatch, free_kb):
    """Also where it fills up after it was looked at."""
    monkeypatch.setattr("rsqa.monitor.observe._check_room", lambda *_: None)
    watched = on(disk, tmp_path / "w")
    (disk / "filler").write_bytes(bytes((1024 - free_kb) * 1024))
    with pytest.raises(OutputError, match=r"(?i)no space|is the disk full"):
        watched.run()
    (disk / "filler").unlink()
    monkeypatch.undo()
    assert watched.run().exit_code == ExitCode.DONE
    assert stored(watched) == undisturbed


def test_room_is_asked_for_before_a_scene_is_begun(disk, tmp_path):
    watched = on(disk, tmp_path / "w")
    (disk / "filler").write_bytes(bytes(700 * 1024))
    with pytest.raises(OutputError, match="are free at"):
        watched.run()
    assert not list((disk / "port.monitor").rglob("scene.tif"))


def test_a_disk_that_is_mounted_to_be_read(disk, tmp_path, undisturbed):
    watched = on(disk, tmp_path / "w")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OutputError, match="Read-only file system"):
        watched.run()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    watched.run()
    before = stored(watched)
    assert before == undisturbed
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OutputError, match="Read-only file system"):
        watched.run()
    assert stored(watched) == before


def test_a_clock_that_was_moved_backwards_loses_nothing(tmp_path, undisturbed):
    now = time.time()
    watched = two_nights(tmp_path / "w", limits="keep_days = 30")
    late = watched.folder / "b.tif"
    shutil.move(watched.folder / "incoming/b.tif", late)
    (watched.folder / "incoming/bad.tif").write_bytes(b"II*\0 no tiff")
    assert watched.run(clock=lambda: now + 400 * DAY).observed == 1
    assert watched.run(clock=lambda: now + 400 * DAY + 1).failed == 0  # waits for its next try
    shutil.move(late, watched.folder / "incoming")
    report = watched.run(clock=lambda: now)
    assert (report.observed, report.changes, report.failed) == (1, 2, 1)
    assert watched.run(clock=lambda: 0.0).observed == 0
    assert [run.observed for run in read_state(watched.watch.out).runs] == [1, 0, 1, 0]
    assert {name: of for name, of in watched.bytes().items() if "T" in name} == {
        name: of for name, of in undisturbed.items() if "T" in name
    }


def test_a_pass_that_has_no_more_time_stops_cleanly(tmp_path, undisturbed, monkeypatch):
    watched = two_nights(tmp_path / "w", limits="max_minutes = 10")
    real, later = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + later[0])
    watched.on_say = lambda event: later.__setitem__(0, 3600.0)  # the first scene took an hour
    report = watched.run(change_code=True)
    assert (report.exit_code, report.observed, report.pending) == (ExitCode.OUT_OF_TIME, 1, 1)
    watched.on_say = lambda event: None
    monkeypatch.undo()
    goes_on(watched, undisturbed)


def test_time_that_is_up_within_a_scene(tmp_path, undisturbed):
    watched = two_nights(tmp_path / "w", limits="max_minutes = 0.00001")
    report = watched.run()
    assert (report.exit_code, report.observed, report.pending) == (ExitCode.OUT_OF_TIME, 0, 2)
    watched.write(change="confirmations = 1")
    goes_on(watched, undisturbed)


NEW = 'labels = ["magenta", "green"]'


def asked(watched: Watched, question: str) -> list[bool]:
    """Whether each night was asked a question, of tile 0/0."""
    wanted = (ds.field("tile_id") == "0/0") & (ds.field("question_id") == question)
    table = ds.dataset(watched.watch.out / "observations").to_table(filter=wanted)
    moments = table["acquired"].to_pylist()
    assert len(set(moments)) == len(moments)
    return [when(night) in moments for night in range(3)]


@pytest.mark.parametrize(("back_fill", "nights"), [("false", [False, False, True]), ("true", [True, True, True])])
def test_a_question_that_is_new(tmp_path, back_fill, nights):
    watched = two_nights(tmp_path / "w")
    watched.run()
    before = watched.bytes()
    watched.write(change="confirmations = 1", ask=f"back_fill = {back_fill}\n{NEW}")
    report = watched.run()
    assert report.observed == (2 if back_fill == "true" else 0)
    assert before.keys() - {"changes.parquet"} <= watched.bytes().keys()
    assert all(watched.bytes()[name] == of for name, of in before.items() if name != "changes.parquet")
    watched.scene("c.tif", [(1, 1)], night=2)
    watched.run()
    assert asked(watched, "class") == nights
    assert asked(watched, "mark") == [True, True, True]
    watched.write(change="confirmations = 1", ask=f"back_fill = {back_fill}")  # the question is dropped again
    assert watched.run().observed == 0
    assert asked(watched, "class") == nights


def test_files_are_as_private_as_the_umask_wants(tmp_path):
    watched = two_nights(tmp_path / "w", tell='metrics = "m.prom"\nheartbeat = "alive"')
    before = os.umask(0o027)
    try:
        watched.run()
    finally:
        os.umask(before)
    made = [watched.folder / "m.prom", watched.folder / "alive", *watched.watch.out.rglob("*")]
    assert len(made) > 8
    assert {path.name: path.stat().st_mode & 0o027 for path in made if path.stat().st_mode & 0o027} == {}
    assert (watched.folder / "m.prom").stat().st_mode & 0o640 == 0o640  # and no more than it wants


def test_a_watch_that_is_broken_in_between_is_told_and_mended(tmp_path, undisturbed):
    watched = two_nights(tmp_path / "w")
    text = (watched.folder / "WATCH.toml").read_text()
    (watched.folder / "WATCH.toml").write_text(text.replace("[grid]", "[gird]"))
    with pytest.raises(RsqaError, match="did you mean 'grid'"):
        watched.run()
    (watched.folder / "WATCH.toml").write_text(text)
    goes_on(watched, undisturbed)
