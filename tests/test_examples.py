"""The examples run, and the three question files are the same questions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from affine import Affine

from rsqa.tasks.question_file import gather_questions

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_question_files_agree():
    text, table, objects = (gather_questions(file=EXAMPLES / f"questions.{end}") for end in ("txt", "csv", "jsonl"))
    assert text == table == objects
    assert {question.kind for question in text.questions} == {"yesno", "choice", "count", "open"}


def mosaic(path: Path) -> None:
    rows, cols = np.indices((900, 700))
    pixels = np.stack([rows % 256, cols % 256, (rows + cols) % 256]).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=700, height=900, count=3, dtype="uint8", crs="EPSG:32631",
        transform=Affine(0.5, 0, 166_000, 0, -0.5, 5_000),
    ) as raster:  # fmt: skip
        raster.write(pixels)


def test_asking_a_mosaic_and_reading_the_answers(shell):
    mosaic(shell.work / "mosaic.tif")
    out = shell("examples/ask_mosaic.sh mosaic.tif --tile-px 100 --model rsqa.testing:EchoEngine --out answers.rsqa")
    assert "tiles with water, in EPSG:32631" in out
    assert (shell.work / "answers.rsqa" / "water.gpkg").exists()


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        "ask_mosaic.sh", "read_answers.py", "questions.txt", "questions.csv", "questions.jsonl",
    }  # fmt: skip


def test_the_cluster_examples_can_be_read():
    """All that can be said of most of them without such a cluster."""
    for script in sorted((EXAMPLES / "cluster").glob("*.sh")):
        subprocess.run(["bash", "-n", str(script)], check=True)
    compile((EXAMPLES / "cluster" / "jobqueue.py").read_text(), "jobqueue.py", "exec")
    manifests = list(yaml.safe_load_all((EXAMPLES / "cluster" / "kubernetes.yaml").read_text()))
    assert [manifest["kind"] for manifest in manifests] == [
        "Service", "Deployment", "Deployment", "NetworkPolicy", "Job",
    ]  # fmt: skip
    told = (EXAMPLES / "cluster" / "README.md").read_text()
    assert all(f"`{path.name}`" in told for path in (EXAMPLES / "cluster").iterdir() if path.suffix in (".sh", ".yaml"))


@pytest.mark.slow
def test_asking_a_cluster_of_processes(shell):
    mosaic(shell.work / "mosaic.tif")
    asked = "mosaic.tif -q 'Is there water?' --tile-px 100 --model rsqa.testing:EchoEngine"
    shell(f"examples/cluster/processes.sh 2 {asked} --out there.rsqa")
    shell(f"rsqa ask {asked} --device cpu --out here.rsqa")
    there, here = (pd.read_parquet(shell.work / name / "answers.parquet") for name in ("there.rsqa", "here.rsqa"))
    assert there.equals(here)
