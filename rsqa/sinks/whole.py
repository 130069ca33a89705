"""Files and folders that are there whole or not at all.

Everything is written beside its name as `.NAME.HOST.PID.RANDOM`, flushed to disk and moved into place. The name says
whose it was, so that a later run on the same host can sweep what a killed process left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import ArrowException

from rsqa.errors import OutputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
STILL_WRITTEN_S = (0.05, 0.2, 1.0)
"""Pauses between tries to remove a folder: where one write of zarr failed, its other threads may go on for a while."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file and move it to `path`; the file it replaces stays until then.

    Raises OutputError when the disk is full or the folder can't be written; nothing is left behind then.
    """
    temporary = _temporary_name(path)
    with _output_errors(path):
        try:
            write(temporary)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # the new name, not only the bytes, must survive a power cut
        finally:
            _delete(temporary)


def write_whole_bytes(path: Path, content: bytes | memoryview) -> None:
    """`write_whole` for what is in memory already."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)


def write_whole_named(path: Path, write: Callable[[Path], None]) -> None:
    """`write_whole` for libraries that look at a file's suffix, or keep a journal beside it.

    `write` gets the final name, in a temporary folder.
    """
    folder = _temporary_name(path)
    with _output_errors(path):
        try:
            folder.mkdir()
            write(folder / path.name)
            _sync(folder / path.name)
            os.replace(folder / path.name, path)
            _sync(path.parent)
        finally:
            _delete(folder)


def write_whole_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder and move it to `path`.

    No system call swaps two folders everywhere, so a crash may leave neither the old nor the new one under the name,
    never a mixture.
    """
    temporary = _temporary_name(path)
    with _output_errors(path):
        try:
            temporary.mkdir()
            write(temporary)
            for folder, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            discard(path)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            _delete(temporary)


def discard(path: Path) -> None:
    """Remove a file or a whole folder; there is never half of one under its name."""
    with _output_errors(path):
        doomed = _temporary_name(path)
        try:
            os.replace(path, doomed)
        except FileNotFoundError:
            return
        _sync(path.parent)
        _delete(doomed)


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes of this host left in `folder`; -> what was removed.

    Call it while holding the output's lock and before anything is written: a name with our own process number is
    then an earlier process's (containers count from 1 again).
    """
    pattern = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.[0-9a-f]{{8}}")
    swept = []
    with _output_errors(folder):
        for path in sorted(folder.iterdir()):
            match = pattern.fullmatch(path.name)
            if match and not lives(int(match[1])):
                _delete(path)
                swept.append(path)
    return swept


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")


def lives(pid: int) -> bool:
    """Whether another process of this number is running."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    """Remove a file or folder if it is there; a failure here must not hide the one that led here."""
    if path.is_dir() and not path.is_symlink():
        for pause_s in STILL_WRITTEN_S:
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(pause_s)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn what the system and pyarrow raise into one line for the user."""
    try:
        yield
    except (OSError, ArrowException) as error:
        code = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(code) if code else (str(error).splitlines() or [type(error).__name__])[0]
        remedy = (
            "free some space and run the same command again" if code in FULL else "choose a place that can be written"
        )
        raise OutputError(f"can't write {path}: {reason}; {remedy}") from error
