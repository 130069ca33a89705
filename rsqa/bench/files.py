"""(file) rsqa, from a tiled GeoTIFF of the same tiles to GeoParquet: all that `rsqa ask` does."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from math import isqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from rsqa.bench.ours import bench_engine
from rsqa.bench.work import Case, Setup, pictures, questions
from rsqa.run.pipeline import ask
from rsqa.run.report import RunReport
from rsqa.run.request import Request

BLOCK_PX = 512


class FileToTable:
    """A file that is lossless, so that the model sees the pixels that the other sides see."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._runs = setup, 0
        self._ref, self._engine = bench_engine(setup)

    def prepare(self, case: Case) -> list[str]:
        """Write the file, ask it once, untimed; -> what was done."""
        folder = Path(self._setup.scratch)
        self._case, self._file = case, folder / "mosaic.tif"
        self._engine.card = replace(self._engine.card, max_new_tokens=case.budget)
        write_mosaic(self._file, pictures(case))
        self.run()
        megabytes = self._file.stat().st_size / 1e6
        return [
            f"rsqa ask, GeoTIFF to GeoParquet; deflate with predictor, blocks of {BLOCK_PX} px, {megabytes:.1f} MB; "
            "rates while parts are done, start and end apart"
        ]

    def run(self) -> dict[str, float]:
        """Ask the file, into a fresh folder. -> seconds while parts were done, share of them without the model."""
        out = Path(self._setup.scratch) / f"run-{self._runs}"
        self._runs += 1
        start = time.perf_counter()
        report = ask(self._request(out))
        whole_s = time.perf_counter() - start
        facts = spans(out) | {"working_s": report.n_tiles / report.tiles_per_s, "whole_s": whole_s}
        self._check(report)
        shutil.rmtree(out)
        return facts

    def _request(self, out: Path) -> Request:
        return Request(
            sources=(str(self._file),),
            questions=questions(self._case),
            out=out,
            tile_px=self._case.tile_px,
            model=self._setup.folder,
            batch_size=self._setup.batch_size,
            device=self._setup.device,
            dtype=self._setup.dtype,
        )

    def _check(self, report: RunReport) -> None:
        done = report.tiles_by_status.get("ok", 0)
        if done != self._case.n_tiles:
            raise RuntimeError(f"{done} of {self._case.n_tiles} tiles were answered")


def write_mosaic(path: Path, tiles: NDArray[np.uint8]) -> None:
    """(N, 3, px, px) -> a GeoTIFF that is cut into exactly these tiles, row by row; as square as N allows."""
    n, _, px, _ = tiles.shape
    n_rows = next(rows for rows in range(isqrt(n), 0, -1) if n % rows == 0)
    n_cols = n // n_rows
    with rasterio.open(
        path, "w", driver="GTiff", height=n_rows * px, width=n_cols * px, count=3, dtype="uint8", photometric="RGB",
        crs="EPSG:32631", transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6), tiled=True, blockxsize=BLOCK_PX,
        blockysize=BLOCK_PX, compress="deflate", predictor=2, bigtiff="if_safer",
    ) as file:  # fmt: skip
        for number, tile in enumerate(tiles):
            row, col = divmod(number, n_cols)
            file.write(tile, window=rasterio.windows.Window(col * px, row * px, px, px))


def spans(out: Path) -> dict[str, float]:
    """From the table of what every slot did when: -> share of the time that the model idled, seconds by stage."""
    trace = pq.read_table(out / "performance.parquet").to_pydict()
    seconds: dict[str, float] = {}
    for stage, start, end in zip(trace["stage"], trace["start"], trace["end"], strict=True):
        seconds[f"{stage}_s"] = seconds.get(f"{stage}_s", 0.0) + end - start
    whole = max(trace["end"]) - min(trace["start"])
    # One slot is in the model at a time, so that its spans never overlap.
    return {"model_idle": 1 - seconds["model_s"] / whole, **seconds}
