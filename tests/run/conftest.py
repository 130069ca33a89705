"""A raster, and `rsqa ask` on it in a process of its own with the fake engine."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
VOLATILE = {"run.json", "performance.parquet", ".rsqa.lock"}
QUESTIONS = ("-q", "Is there water?", "-q", "Is it rural or urban?", "-q", "Describe the scene.")


@dataclass(frozen=True)
class Asking:
    """`rsqa ask RASTER` into a folder; the log counts the tiles of every call of the model."""

    raster: Path
    out: Path
    log: Path

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable, "-m", "rsqa", "ask", str(self.raster), *QUESTIONS, "--out", str(self.out),
            "--tile-px", "56", "--part-tiles", "12", "--batch-size", "4", "--model", "rsqa.testing:EchoEngine",
            "--device", "cpu", "--quiet", *options,
        ]  # fmt: skip

    def environment(self, delay_s: float = 0.0) -> dict[str, str]:
        return {**os.environ, "RSQA_FAKE_LOG": str(self.log), "RSQA_FAKE_DELAY_S": str(delay_s), "OMP_NUM_THREADS": "1"}

    def run(self, *options: str, before: Sequence[str] = (), delay_s: float = 0.0) -> subprocess.CompletedProcess[str]:
        command = [*before, *self.command(*options)]
        return subprocess.run(
            command, env=self.environment(delay_s), capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *options: str, delay_s: float = 0.0) -> subprocess.Popen[str]:
        """In a process group of its own, so that a signal can reach all of it."""
        return subprocess.Popen(
            self.command(*options), env=self.environment(delay_s), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    def committed(self) -> int:
        return len(list((self.out / "parts").glob("*.parquet")))

    def asked(self) -> int:
        """Tiles that went through the model so far."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def files(self) -> dict[str, str]:
        """Every file that a run promises to be the same -> its hash."""
        return {
            str(path.relative_to(self.out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.out.rglob("*"))
            if path.is_file() and path.name not in VOLATILE
        }

    def leftovers(self) -> list[str]:
        return [path.name for path in self.out.rglob("*") if TEMPORARY.fullmatch(path.name)]


@pytest.fixture(scope="session")
def raster(tmp_path_factory) -> Path:
    """6 x 11 tiles of 56 px, noise, the last row and column cut; one part is 12 tiles."""
    path = tmp_path_factory.mktemp("raster") / "noise.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 330, 600), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", height=330, width=600, count=3, dtype="uint8", crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 0.5, 0.5), tiled=True, blockxsize=112, blockysize=112, compress="deflate",
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


@pytest.fixture
def asking(raster, tmp_path) -> Asking:
    return Asking(raster, tmp_path / "out", tmp_path / "calls.log")


@pytest.fixture(scope="session")
def uninterrupted(raster, tmp_path_factory) -> Asking:
    """The same run, left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    asking = Asking(raster, folder / "out", folder / "calls.log")
    done = asking.run()
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert not done.stderr
    return asking
