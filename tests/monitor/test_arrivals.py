"""Which files are scenes, when they are taken, and what is asked of them."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from painted_scenes import watch_text, when, write_scene

from rsqa.errors import InputError
from rsqa.monitor.dataset import Observation, Stored
from rsqa.monitor.scenes import discover, settled
from rsqa.monitor.state import State, read_state, write_state
from rsqa.monitor.todo import arrived, todos
from rsqa.monitor.watch import read_watch
from rsqa.tasks.question import YES_NO, Question

MARK = Question("mark", "Is there magenta?", "yesno", YES_NO)
SHIP = Question("ship", "Is there a ship?", "yesno", YES_NO)
IDS = {"mark": "m1", "ship": "s1"}


@pytest.fixture
def watch(tmp_path):
    def make(**sections):
        (tmp_path / "WATCH.toml").write_text(watch_text(**sections))
        (tmp_path / "incoming").mkdir(exist_ok=True)
        return read_watch(tmp_path / "WATCH.toml")

    return make


def look(watch, state=None, now=None):
    said = []
    now = time.time() if now is None else now
    there = arrived(watch, discover(watch, now), state or State(), now, said.append)
    return there, [event.text for event in said]


def observed(acquisition, *asked, files=None):
    """A file of the dataset that says so."""
    names = tuple((scene.found.name, scene.fingerprint) for scene in acquisition.scenes) if files is None else files
    asked_ids = tuple((question.id, IDS[question.id]) for question in asked)
    return Stored(None, (Observation(acquired=acquisition.acquired, files=names, asked=asked_ids, questions=()),))


def test_scenes_are_found_by_name_and_previews_are_not(watch, tmp_path):
    watch = watch()
    write_scene(tmp_path / "incoming/b.tif", night=1)
    write_scene(tmp_path / "incoming/2026/a.TIFF", night=2)
    (tmp_path / "incoming/b.png").write_bytes(b"preview")
    (tmp_path / "incoming/.c.tif.part").write_bytes(b"half")
    assert [found.name for found in discover(watch, time.time())] == ["incoming/2026/a.TIFF", "incoming/b.tif"]


def test_a_pattern_and_a_folder_that_is_not_there(watch, tmp_path):
    one = watch()
    write_scene(tmp_path / "incoming/deep/b_visual.tif", night=1)
    text = (tmp_path / "WATCH.toml").read_text()
    (tmp_path / "WATCH.toml").write_text(text.replace('"incoming"', '"incoming/**/*_visual.tif"'))
    found = discover(read_watch(tmp_path / "WATCH.toml"), time.time())
    assert [file.name for file in found] == ["incoming/deep/b_visual.tif"]
    shutil.rmtree(tmp_path / "incoming")
    with pytest.raises(InputError, match="is it mounted"):
        discover(one, time.time())


def test_a_file_that_is_written_to_waits_and_a_clock_that_was_moved_does_not_hide_it(watch, tmp_path):
    watch = watch()
    [found] = (write_scene(tmp_path / "incoming/a.tif"), *discover(watch, time.time()))[1:]
    written = found.mtime_ns / 1e9
    assert not settled(found, 60, written + 59)
    assert settled(found, 60, written + 60)
    assert settled(found, 60, written - 3600)


def test_files_of_one_moment_belong_together_and_copies_count_once(watch, tmp_path):
    watch = watch()
    write_scene(tmp_path / "incoming/west.tif", night=1, shift_px=(0, -20))
    write_scene(tmp_path / "incoming/east.tif", night=1, shift_px=(0, 20))
    shutil.copy(tmp_path / "incoming/east.tif", tmp_path / "incoming/copy of east.tif")
    write_scene(tmp_path / "incoming/early.tif", night=0)
    there, said = look(watch)
    assert said == []
    early, both = there.acquisitions
    assert early.label == "incoming/early.tif"
    assert {scene.found.name for scene in both.scenes} == {"incoming/copy of east.tif", "incoming/west.tif"}
    assert (both.label, both.acquired) == ("incoming/copy of east.tif and 1 more", when(1))
    east, west = (next(s.fingerprint for s in both.scenes if side in s.found.name) for side in ("east", "west"))
    assert [scene.fingerprint for scene in both.scenes] == sorted([east, west])  # whatever they are called


def test_a_file_is_opened_once(watch, tmp_path, monkeypatch):
    watch, state = watch(), State()
    write_scene(tmp_path / "incoming/a.tif")
    first, _ = look(watch, state)
    monkeypatch.setattr("rsqa.monitor.todo.open_scene", None)
    assert look(watch, state)[0] == first
    write_state(tmp_path, state)
    assert look(watch, read_state(tmp_path))[0] == first
    (tmp_path / "state.json").write_text("{ torn")
    assert read_state(tmp_path) == State()


def test_what_is_refused_waits_longer_each_time_and_is_given_up(watch, tmp_path):
    watch, state, now = watch(), State(), 1e9
    (tmp_path / "incoming/bad.tif").write_bytes(b"II*\0 no tiff")
    tries = []
    for minute in range(0, 400, 5):
        there, said = look(watch, state, now + 60 * minute)
        assert len(said) == there.n_refused
        if there.n_refused:
            tries.append(minute)
    assert tries == [0, 10, 30, 70, 150]
    assert state.failures["incoming/bad.tif"][1].given_up(watch.limits.tries)
    (tmp_path / "incoming/bad.tif").unlink()
    write_scene(tmp_path / "incoming/bad.tif")  # another file under that name is another matter
    os.utime(tmp_path / "incoming/bad.tif", (5, 5))
    assert len(look(watch, state, now)[0].acquisitions) == 1
    assert state.failures == {}


def test_a_scene_that_is_cut_short_or_has_no_time_is_refused(watch, tmp_path):
    watch = watch()
    cut = write_scene(tmp_path / "incoming/cut.tif")
    cut.write_bytes(cut.read_bytes()[:-4000])
    write_scene(tmp_path / "incoming/timeless.tif", tag=False)
    there, said = look(watch)
    assert there.acquisitions == []
    assert sorted("past the end" in text for text in said) == [False, True]
    assert any("does not tell when it was taken" in text for text in said)


def test_nothing_is_asked_twice(watch, tmp_path):
    only_new = watch()
    for night in range(3):
        write_scene(tmp_path / f"incoming/{night}.tif", night=night)
    acquisitions = look(only_new)[0].acquisitions
    stored = [observed(acquisitions[1], MARK)]
    left = todos(only_new, acquisitions, stored, (MARK,), IDS)
    assert [todo.acquisition.acquired for todo in left] == [when(0), when(2)]
    assert todos(only_new, acquisitions, [observed(a, MARK) for a in acquisitions], (MARK, SHIP), IDS) == []
    back = watch(ask="back_fill = true")
    left = todos(back, acquisitions, [observed(a, MARK) for a in acquisitions], (MARK, SHIP), IDS)
    assert [todo.questions for todo in left] == [(SHIP,)] * 3
    left = todos(back, acquisitions, [observed(a, MARK) for a in acquisitions], (MARK,), {"mark": "m2"})
    assert [todo.questions for todo in left] == [(MARK,)] * 3


def test_a_file_that_was_replaced_replaces_its_rows_and_one_that_came_late_joins(watch, tmp_path):
    watch = watch()
    write_scene(tmp_path / "incoming/a.tif", night=1)
    [before] = look(watch)[0].acquisitions
    old = observed(before, MARK)
    write_scene(tmp_path / "incoming/a.tif", [(1, 1)], night=1)
    [after] = look(watch)[0].acquisitions
    [todo] = todos(watch, [after], [old], (MARK,), IDS)
    assert todo.replaces == (old.observations[0].id,)
    write_scene(tmp_path / "incoming/b.tif", night=1, shift_px=(4, 4))
    [both] = look(watch)[0].acquisitions
    [todo] = todos(watch, [both], [observed(after, MARK)], (MARK,), IDS)
    assert todo.replaces == (observed(after, MARK).observations[0].id,)
    gone = observed(before, MARK, files=(("incoming/gone.tif", "0" * 64),))  # cleaned away: what it said stays
    [todo] = todos(watch, [after], [gone], (MARK,), IDS)
    assert todo.replaces == ()
    assert todos(watch, [after], [observed(both, MARK)], (MARK,), IDS) == []
