"""`rsqa eval` as a user runs it, with the embedded model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rsqa.cli import run
from rsqa.cli.progress import count_words
from rsqa.tasks.schemes import EUROSAT_NAMES


@pytest.fixture
def folder(tmp_path):
    """EuroSAT with two pictures of three classes."""
    for number, name in enumerate(("AnnualCrop", "Forest", "River")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(2):
            pixels = np.random.default_rng(10 * number + k).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.jpg")
    return tmp_path / "set"


def test_a_benchmark_is_scored_and_written_down(folder, tmp_path, capsys):
    out = tmp_path / "out" / "here"
    assert (
        run(["eval", "eurosat", "--data", str(folder), "--device", "cpu", "--out", str(out), "--compat", "paper"]) == 0
    )
    table = capsys.readouterr().out
    assert "tinyrs-nano on eurosat: 6 items, 6 pictures; scored options" in table
    assert "published" in table
    report = json.loads((out / "report.json").read_text())
    assert report["lines"][0]["constant"] == pytest.approx(1 / 3)
    assert report["provenance"]["dtype"] == "float32"
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert {line["value"] for line in lines} <= {*EUROSAT_NAMES.values(), None}
    assert (out / "reliability.png").is_file()


def test_json_and_a_sub_sample(folder, capsys):
    assert run(["eval", "eurosat", "--data", str(folder), "--limit", "2", "--json", "--no-blind", "--generate"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_pictures"] == 2
    assert report["lines"][0]["no_image"] is None
    assert "sub-sample: 2 of 6 pictures, shuffled with seed 0" in report["notes"]


def test_a_picture_that_can_not_be_read_costs_itself(folder, capsys):
    (folder / "River" / "1.jpg").write_bytes(b"no picture")
    assert run(["eval", "eurosat", "--data", str(folder), "--no-blind"]) == 3
    said = capsys.readouterr()
    assert "left out, unreadable pictures: 1 (River/1.jpg)" in said.out
    assert "rsqa: error: 1 pictures could not be opened; see the report" in said.err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["eurosatt"], 2, "unknown benchmark 'eurosatt'; did you mean 'eurosat'?"),
        (["eurosat", "--split", "val"], 2, "has no split 'val'"),
        (["rsivqa"], 4, "no *.txt in 'set'"),
        (["eurosat", "--model", "no-such"], 6, "no model 'no-such'"),
        (["eurosat", "--out", "/proc/x"], 5, "can't write into '/proc/x'"),
    ],
)
def test_what_can_not_be_done_is_told_in_one_line(folder, capsys, more, code, words):
    assert run(["eval", *more, "--data", str(folder)]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rsqa: error: ")
    assert words in said.err
    assert said.err.count("\n") == 1


def test_progress_is_told_in_words():
    assert count_words("items", 1200, 10_004, 12.0) == "1,200 of 10,004 items, 100.0 a second, 88 s left"
    assert count_words("items", 0, 5, 1.0) == "0 of 5 items"
