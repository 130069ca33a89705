"""The examples run, and the three question files are the same questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from rsqa.tasks.question_file import gather_questions

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_question_files_agree():
    text, table, objects = (gather_questions(file=EXAMPLES / f"questions.{end}") for end in ("txt", "csv", "jsonl"))
    assert text == table == objects
    assert {question.kind for question in text.questions} == {"yesno", "choice", "count", "open"}


def test_asking_a_mosaic_and_reading_the_answers(shell):
    rows, cols = np.indices((900, 700))
    pixels = np.stack([rows % 256, cols % 256, (rows + cols) % 256]).astype(np.uint8)
    with rasterio.open(
        shell.work / "mosaic.tif", "w", driver="GTiff", width=700, height=900, count=3, dtype="uint8", crs="EPSG:32631",
        transform=Affine(0.5, 0, 166_000, 0, -0.5, 5_000),
    ) as raster:  # fmt: skip
        raster.write(pixels)
    out = shell("examples/ask_mosaic.sh mosaic.tif --tile-px 100 --model rsqa.testing:EchoEngine --out answers.rsqa")
    assert "tiles with water, in EPSG:32631" in out
    assert (shell.work / "answers.rsqa" / "water.gpkg").exists()


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        "ask_mosaic.sh", "read_answers.py", "questions.txt", "questions.csv", "questions.jsonl",
    }  # fmt: skip
