import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rsqa.errors import ExitCode, OutputError
from rsqa.sinks.whole import discard, sweep, write_whole, write_whole_bytes, write_whole_folder, write_whole_named


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_whole(path, write)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_a_writer_that_wants_the_name_gets_a_folder_of_its_own(tmp_path):
    path = tmp_path / "a.gpkg"
    path.write_text("old")

    def write(temporary: Path) -> None:
        assert temporary.name == "a.gpkg"
        temporary.with_name("a.gpkg-journal").write_text("left behind")
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_whole_named(path, write)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.gpkg"]


def raise_full(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, failing, raise_full)
    with pytest.raises(OutputError, match=r"can't write .*a\.json: No space left on device; free some space"):
        write_whole_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_failure_is_one_line_with_the_exit_code_of_outputs(tmp_path):
    with pytest.raises(OutputError) as caught:
        write_whole_bytes(tmp_path / "not there" / "a.json", b"new")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.OUTPUT == 5


def test_our_own_bugs_are_not_hidden(tmp_path):
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        write_whole(tmp_path / "a.json", write)
    assert names(tmp_path) == []


def test_umask_is_honoured(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole_bytes(tmp_path / "a.json", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("precious")
    (tmp_path / "a.json").symlink_to(target)
    write_whole_bytes(tmp_path / "a.json", b"new")
    assert target.read_text() == "precious"
    assert not (tmp_path / "a.json").is_symlink()


def fill(content: str):
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(content)

    return write


def test_a_folder_takes_the_place_of_a_folder_or_a_file(tmp_path):
    path = tmp_path / "tiles.zarr"
    path.write_text("a file")
    for content in ("one", "two"):
        write_whole_folder(path, fill(content))
        assert (path / "sub" / "file").read_text() == content
        assert names(tmp_path) == ["tiles.zarr"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "tiles.zarr"
    write_whole_folder(path, fill("old"))

    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise_full()

    with pytest.raises(OutputError):
        write_whole_folder(path, write)
    assert (path / "sub" / "file").read_text() == "old"
    assert names(tmp_path) == ["tiles.zarr"]


def test_discard_of_nothing_is_nothing(tmp_path):
    discard(tmp_path / "not there")
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from rsqa.sinks.whole import write_whole_bytes, write_whole_folder
calls = 0
def count(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
os.fsync, os.replace = count(os.fsync), count(os.replace)
out = Path(sys.argv[1])
write_whole_bytes(out / "a.json", b"new")
write_whole_folder(out / "b", lambda folder: (folder / "file").write_text("new"))
print("done")
"""


def test_killed_at_every_step_each_name_is_old_or_new_or_absent_and_the_rest_is_swept(tmp_path):
    for step in range(1, 30):
        out = tmp_path / str(step)
        out.mkdir()
        (out / "a.json").write_text("old")
        (out / "b").mkdir()
        (out / "b" / "file").write_text("old")
        command = [sys.executable, "-c", KILLED, out, str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=False).stdout == "done\n"
        sweep(out)
        assert set(names(out)) <= {"a.json", "b"}
        assert (out / "a.json").read_text() in {"old", "new"}
        assert not (out / "b").exists() or (out / "b" / "file").read_text() in {"old", "new"}
        if done:
            break
    assert done
    assert step > 5


def test_sweep_takes_what_the_dead_left_and_no_more(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    ours = [f".a.json.{host}.{dead.pid}.0a1b2c3d", f".tiles.zarr.{host}.{os.getpid()}.0a1b2c3d"]
    theirs = [
        f".a.json.{host}.1.0a1b2c3d",  # alive
        f".a.json.other-{host}.{dead.pid}.0a1b2c3d",
        ".rsqa.lock",
        "a.json",
        f"a.json.{host}.{dead.pid}.0a1b2c3d",
    ]
    for name in (ours[0], *theirs):
        (tmp_path / name).write_text("")
    write_whole_folder(tmp_path / ours[1], fill(""))
    assert sorted(path.name for path in sweep(tmp_path)) == sorted(ours)
    assert names(tmp_path) == sorted(theirs)
    assert sweep(tmp_path) == []
