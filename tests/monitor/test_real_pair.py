"""Two renderings of a real mosaic with a known edit: what was edited is told, and nothing else."""

from __future__ import annotations

import json
import os

import librarian
import numpy as np
import pytest
import rasterio
from affine import Affine
from librarian import CELL_PX, cell, classes

from rsqa.errors import ExitCode
from rsqa.monitor.changes import read_changes
from rsqa.monitor.dataset import ledger
from rsqa.monitor.run import run_pass
from rsqa.monitor.watch import read_watch

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA names no folder of real pictures"),
]

SIDE = 8
"""Cells of the mosaic that are watched; others are cut out of the rest."""
EDITS = {
    (0, 0): (9, 3), (2, 5): (12, 11), (3, 3): (15, 0), (5, 1): (8, 14), (7, 7): (10, 10), (4, 6): (13, 2),
    (1, 1): (0, 2),
}  # fmt: skip
"""Cell that is painted over -> the one that it shows then; the last one is another car park than before."""
PIXEL, LEFT, TOP = 0.3048, 551000.0, 4180000.0


def render(path, edits, shift_px, **how):
    """The corner of the mosaic on a pixel grid that is shifted by less than a pixel."""
    pixels = np.concatenate([
        np.concatenate([cell(*edits.get((row, col), (row, col))) for col in range(SIDE)], axis=2) for row in range(SIDE)
    ], axis=1)  # fmt: skip
    transform = Affine(PIXEL, 0, LEFT + shift_px * PIXEL, 0, -PIXEL, TOP - shift_px * PIXEL)
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=3, dtype="uint8",
        crs="EPSG:26910", transform=transform, photometric=how.pop("photometric", "RGB"), tiled=True, **how,
    ) as file:  # fmt: skip
        file.write(pixels)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    (folder / "incoming").mkdir()
    labels = sorted(set(classes().ravel()))
    (folder / "WATCH.toml").write_text(f"""
out = "real.monitor"
[scenes]
paths = ["incoming"]
acquired = "%Y%m%d.tif"
settle_s = 0
[grid]
crs = "EPSG:26910"
origin = [{LEFT}, {TOP}]
pixel = {PIXEL}
tile_px = {CELL_PX}
area = [{LEFT}, {TOP - SIDE * CELL_PX * PIXEL}, {LEFT + SIDE * CELL_PX * PIXEL}, {TOP}]
[ask]
questions = ["homes: Is this residential?"]
labels = {json.dumps(labels)}
[model]
name = "{librarian.MODEL}"
device = "cpu"
batch_size = 16
[change]
confirmations = 1
[limits]
min_free_gb = 0.0
""")
    render(folder / "incoming/20260501.tif", {}, 0.0, compress="deflate")
    how = {"compress": "jpeg", "photometric": "YCBCR", "jpeg_quality": 80}
    render(folder / "incoming/20260502.tif", EDITS, 0.4, **how)
    watch = read_watch(folder / "WATCH.toml")
    report = run_pass(watch, print, change_code=True)
    table, _ = read_changes(watch.out / "changes.parquet")
    assert len(ledger(watch.out)) == 2
    return report, table.to_pylist()


def changed(rows, question):
    return {
        (row["tile_row"], row["tile_col"]): (row["value_before"], row["value_after"])
        for row in rows if row["question_id"] == question
    }  # fmt: skip


def test_precision_and_recall_are_1(told):
    report, rows = told
    names = classes()
    truth = {place: (names[place], names[new]) for place, new in EDITS.items() if names[place] != names[new]}
    assert len(truth) == len(EDITS) - 1
    assert changed(rows, "class") == truth
    homes = {place: tuple("yes" if "residential" in name else "no" for name in pair) for place, pair in truth.items()}
    homes = {place: pair for place, pair in homes.items() if pair[0] != pair[1]}
    assert len(homes) >= 1
    assert changed(rows, "homes") == homes
    assert (report.exit_code, report.changes, report.tiles) == (
        ExitCode.CHANGED, len(truth) + len(homes), 2 * SIDE * SIDE
    )  # fmt: skip
