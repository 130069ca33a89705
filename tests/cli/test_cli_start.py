"""The program as a process: how it starts, what it leaves behind, what it does without terminal and environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rsqa

ROOT = str(Path(rsqa.__file__).parents[1])
HEAVY = ("torch", "transformers", "rasterio", "geopandas", "distributed", "dask", "zarr", "pyarrow", "numpy", "shapely")


def rsqa_process(*arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
    environment = {"PYTHONPATH": ROOT, "PATH": os.environ["PATH"]} if env is None else env
    command = [sys.executable, "-m", "rsqa", *arguments]
    kept = {"capture_output": True} | options
    return subprocess.run(command, env=environment, timeout=120, **kept)


def test_help_imports_nothing_heavy():
    code = (
        "import sys, rsqa.cli\n"
        "rsqa.cli.run(['--help']); rsqa.cli.run(['ask', '--help'])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ROOT}, capture_output=True, check=True)
    assert done.stderr.decode().strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "ask",
        "plan",
        "classify",
        "caption",
        "show",
        "finish",
        "export",
        "report",
        "demo",
        "models",
        "doctor",
        "train",
        "eval",
        "bench",
        "data",
    ],
)
def test_every_command_is_listed_and_explained(command):
    assert f" {command} ".encode() in rsqa_process("--help").stdout
    done = rsqa_process(command, "--help")
    assert done.returncode == 0
    assert not done.stderr


def test_version():
    done = rsqa_process("--version")
    assert done.stdout.decode() == f"rsqa {rsqa.__version__}\n"


def test_an_empty_environment_is_enough():
    done = rsqa_process("ask", "none.tif", "-q", "café?\x1b[31m", env={"PYTHONPATH": ROOT})
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"rsqa: error: --question 1, byte 7: character U+001B")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_went_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = rsqa_process("--version", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_of_messages_that_went_away_stops_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    done = rsqa_process("models", capture_output=False, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert done.returncode == 0
    assert b"tinyrs-r1" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_output_error():
    with open("/dev/full", "wb") as full:
        done = rsqa_process("--version", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 5
    assert done.stderr.decode() == (
        "rsqa: error: can't write to standard output: No space left on device; redirect it elsewhere\n"
    )


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_standard_files_are_never_written_to(closed, tmp_path):
    """A file that is opened later must not get the number of a closed stdout or stderr."""
    code = (
        "import os, sys\n"
        f"[os.close(n) for n in {closed!r}]\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'rsqa', 'show', {str(tmp_path)!r}, '--quiet'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ROOT}, capture_output=True)
    assert done.returncode == 4
    assert done.stdout == b""
