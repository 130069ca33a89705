"""Faults put under a run in this process: every step that can fail fails once, and the same command mends it."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from zarr.storage import LocalStore

from rsqa.errors import ExitCode, InputError, OutputError, RsqaError, SourceChanged
from rsqa.raster import read
from rsqa.run import folder, trace
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.question import YES_NO, Question

N_PARTS = 6


@pytest.fixture(scope="module")
def request_for(raster):
    """request_for(out) -> a run of six parts."""

    def make(out: Path) -> Request:
        return Request(
            sources=(str(raster),), questions=(Question("water", "Is there water?", "yesno", YES_NO),), out=out,
            tile_px=56, model="rsqa.testing:EchoEngine", device="cpu", part_tiles=12, batch_size=4,
        )  # fmt: skip

    return make


def files(out: Path) -> dict[str, bytes]:
    """All that a run promises to be the same."""
    volatile = ("run.json", "performance.parquet", ".rsqa.lock")
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in volatile)
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def right(request_for, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run without faults."""
    report = ask(request_for(tmp_path_factory.mktemp("right") / "out"))
    assert report.n_parts == N_PARTS
    return files(report.out)


def assert_mended(request: Request, right: dict[str, bytes]) -> None:
    assert ask(request).exit_code == ExitCode.DONE
    assert files(request.out) == right


def counted(real: Callable) -> tuple[Callable, list[int]]:
    calls: list[int] = []

    def call(*arguments, **options):
        calls.append(1)
        return real(*arguments, **options)

    return call, calls


@pytest.fixture(scope="module")
def n_calls(request_for, tmp_path_factory) -> dict[str, int]:
    """How often a run without faults does what can fail."""
    with pytest.MonkeyPatch.context() as patch:
        seen = {}
        for name in ("fsync", "replace"):
            call, seen[name] = counted(getattr(os, name))
            patch.setattr(os, name, call)
        ask(request_for(tmp_path_factory.mktemp("counted") / "out"))
    return {name: len(calls) for name, calls in seen.items()}


def fail_once(patch: pytest.MonkeyPatch, owner: object, name: str, number: int, error: Exception) -> None:
    real, calls = getattr(owner, name), itertools.count(1)

    def call(*arguments, **options):
        if next(calls) == number:
            raise error
        return real(*arguments, **options)

    patch.setattr(owner, name, call)


def refused_write(request: Request, patch: pytest.MonkeyPatch, name: str, number: int, code: int) -> None:
    """The `number`-th call of a system call fails: one line with its exit code, and no run.json."""
    fail_once(patch, os, name, number, OSError(code, os.strerror(code)))
    with pytest.raises(OutputError) as caught:
        ask(request)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (request.out / "run.json").exists()
    patch.undo()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "code"), [("fsync", errno.ENOSPC), ("replace", errno.EROFS)])
def test_a_write_that_fails_is_one_line_and_the_next_run_mends_it(
    request_for, right, n_calls, tmp_path, monkeypatch, name, code, share
):
    request = request_for(tmp_path / "out")
    refused_write(request, monkeypatch, name, 1 + round(share * (n_calls[name] - 2)), code)
    assert_mended(request, right)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "code"), [("fsync", errno.EIO), ("fsync", errno.EDQUOT), ("replace", errno.ENOSPC)])
def test_every_write_that_fails(request_for, right, n_calls, tmp_path, monkeypatch, name, code):
    for number in range(1, n_calls[name]):  # the last one is run.json's: what it stands for is there then
        request = request_for(tmp_path / str(number))
        refused_write(request, monkeypatch, name, number, code)
        assert_mended(request, right)


@pytest.mark.parametrize(("owner", "name"), [(pq, "write_table"), (LocalStore, "set")])
def test_a_full_disk_within_a_library_is_one_line(request_for, right, tmp_path, monkeypatch, owner, name):
    request = request_for(tmp_path / "out")
    fail_once(monkeypatch, owner, name, 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        ask(request)
    monkeypatch.undo()
    assert_mended(request, right)


def test_a_part_that_lost_its_end_behind_our_back_is_found_and_done_again(request_for, right, tmp_path, monkeypatch):
    """A write that was acknowledged and is not there: a power cut, a server that lied, half an upload."""
    request, real = request_for(tmp_path / "out"), os.replace

    def replace(source, target):
        real(source, target)
        if Path(target).name == "00000003.parquet":
            os.truncate(target, os.path.getsize(target) // 2)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match=r"00000003.parquet is damaged or missing"):
        ask(request)
    assert not (request.out / "run.json").exists()
    monkeypatch.undo()
    assert_mended(request, right)


@pytest.mark.parametrize("jump_s", [-50 * 365 * 86_400.0, 80 * 365 * 86_400.0])
def test_a_clock_that_jumps_changes_no_file(request_for, right, tmp_path, monkeypatch, jump_s):
    """To before 1980, and beyond 2100; from the third block on, in this code and not in Dask's."""
    real, read_window, calls = time.time, read.read_window, itertools.count(1)

    def jump(*arguments):
        if next(calls) == 3:
            monkeypatch.setattr(trace, "time", SimpleNamespace(time=lambda: real() + jump_s))
        return read_window(*arguments)

    monkeypatch.setattr(read, "read_window", jump)
    assert_mended(request_for(tmp_path / "out"), right)


def test_memory_that_ends_in_one_part_costs_that_part_a_second_try(request_for, right, tmp_path, monkeypatch):
    """Not the model's memory, which has a rule of its own."""
    fail_once(monkeypatch, read, "read_window", 3, MemoryError())
    assert_mended(request_for(tmp_path / "out"), right)


def test_memory_that_ends_for_good_is_one_line_and_keeps_the_others(request_for, right, tmp_path, monkeypatch):
    request, real = request_for(tmp_path / "out"), read.read_window

    def read_window(source, window, factor):
        if window.row <= 200 < window.row_end:
            raise MemoryError
        return real(source, window, factor)

    monkeypatch.setattr(read, "read_window", read_window)
    with pytest.raises(RsqaError, match=r"MemoryError.*parts were committed") as caught:
        ask(request)
    assert caught.value.exit_code == ExitCode.UNEXPECTED
    monkeypatch.undo()
    assert_mended(request, right)


def test_a_source_that_vanishes_under_the_run_is_named_and_what_was_done_stays(
    request_for, right, raster, tmp_path, monkeypatch
):
    request, aside, real = request_for(tmp_path / "out"), tmp_path / "aside.tif", read.read_window
    calls = itertools.count(1)

    def read_window(*arguments):
        if next(calls) == 4:
            raster.rename(aside)
        return real(*arguments)

    monkeypatch.setattr(read, "read_window", read_window)
    try:
        with pytest.raises(InputError, match=r"noise\.tif") as caught:
            ask(request)
    finally:
        monkeypatch.undo()
        aside.rename(raster)
    assert isinstance(caught.value, SourceChanged | InputError)
    assert not (request.out / "run.json").exists()
    assert_mended(request, right)


def test_a_slow_disk_changes_nothing(request_for, right, tmp_path, monkeypatch):
    real = read.read_window

    def read_window(*arguments):
        time.sleep(0.1)
        return real(*arguments)

    monkeypatch.setattr(read, "read_window", read_window)
    assert_mended(request_for(tmp_path / "out"), right)


def test_parts_that_another_machine_wrote_are_waited_for(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr(folder, "SEEN_S", 30.0)
    late = threading.Timer(0.3, lambda: folder.part_path(tmp_path, 0).touch())
    late.start()
    folder.await_parts(tmp_path, 1)
    assert folder.part_path(tmp_path, 0).exists()
    monkeypatch.setattr(folder, "SEEN_S", 0.0)
    folder.await_parts(tmp_path, 2)  # whoever reads them finds out
    late.join()
