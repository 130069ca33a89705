"""`rsqa detect`: what reaches the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_option import GIVEN, LINE, given

import rsqa.cli
from rsqa.errors import ExitCode
from rsqa.tasks.task import Detect


def run(*words: str) -> int:
    return rsqa.cli.run(["detect", "m.tif", "n.tif", *words])


def test_every_option_reaches_the_request(requests):
    things = ["--object", "a ship", "--object", "Öltank", "--phrase", "the white plane", "--threshold", "0.3"]
    line = f"--count --areas /a.gpkg --pyramid --overlap 40 --no-reasoning --cache-features f {LINE}"
    run(*things, *line.split(" "))
    [request] = requests
    task = Detect(objects=("ship", "Öltank"), phrases=("the white plane",), threshold=0.3, count=True, areas="/a.gpkg")
    cut = {"sources": ("m.tif", "n.tif"), "overlap_px": 40, "pyramid": True}
    assert given(request) == GIVEN | cut | {"task": task, "reasoning": False, "cache_features": Path("f")}


def test_tiles_share_a_quarter_by_default_and_areas_are_counted_in(requests):
    run("--object", "ship", "--tile-px", "300", "--areas", "a.gpkg", "--quiet")
    [request] = requests
    assert request.overlap_px == 75
    assert request.task.count
    assert request.task.areas == str(Path("a.gpkg").absolute())


@pytest.mark.parametrize(
    "words",
    [
        [], ["--object", ""], ["--phrase", " "], ["--object", "ship", "--object", "SHIP"], ["--object", "ship\x07"],
        ["--object", "ship", "--threshold", "2"], ["--object", "ship", "--overlap", "448"],
        ["--object", "ship", "--overlap", "-1"],
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(requests, capsys, words):
    assert run(*words) == ExitCode.USAGE
    assert not requests
    assert capsys.readouterr().err.count("\n") == 1
