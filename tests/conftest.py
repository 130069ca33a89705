"""Fixtures for tests that use rsqa as its users do: from a shell."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import rsqa

ROOT = Path(__file__).parents[1]

# A busy machine is no failure. In CI the same examples every time: what is new there is the change, not the draw.
settings.register_profile("rsqa", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("rsqa")


@pytest.fixture
def unasked():
    """Host and port on this machine that nothing may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def shell(tmp_path):
    """Runs lines of bash in a fresh folder with `examples/` in it; a line that fails is an error.

    `rsqa` and `python` are those of this test run, whether rsqa is installed or not.
    """
    commands, work = tmp_path / "bin", tmp_path / "work"
    commands.mkdir()
    work.mkdir()
    for name, module in (("rsqa", "-m rsqa"), ("python", ""), ("rio", "-m rasterio.rio.main")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (commands / name).chmod(0o755)
    shutil.copytree(ROOT / "examples", work / "examples")
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(rsqa.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",
    }

    def run(lines: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines], cwd=work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run.work = work
    return run
