"""`rsqa detect`: what reaches the library."""

from __future__ import annotations

from pathlib import Path

import pytest

import rsqa.cli
from rsqa.errors import ExitCode, RsqaError
from rsqa.run import pipeline
from rsqa.tasks.task import Detect

OPTIONS = (
    "--out o --bands 4,3,2 --tile-px 224 --overlap 40 --gsd 0.5 --scale 0,10 --min-valid 0.25 --model tinyrs "
    "--adapter g --card c.json --no-reasoning --batch-size 3 --workers 2 --device cuda:1 --dtype bfloat16 "
    "--cache-features f --overwrite --retry-errors --max-duration 1h30m --allow-mixed --part-tiles 9 --quiet "
    "--asset visual --mosaic --aoi a.gpkg --mask-band SCL --mask-values 3,8"
)
GIVEN = {
    "out": Path("o"), "bands": "4,3,2", "tile_px": 224, "overlap_px": 40, "pyramid": True, "gsd_m": 0.5,
    "scale": "0,10", "min_valid": 0.25, "model": "tinyrs", "adapter": Path("g"), "card": "c.json", "reasoning": False,
    "batch_size": 3, "workers": 2, "device": "cuda:1", "dtype": "bfloat16", "cache_features": Path("f"),
    "overwrite": True,
    "retry_errors": True, "max_duration_s": 5400.0, "allow_mixed": True, "part_tiles": 9,
    "asset": "visual", "mosaic": True, "aoi": Path("a.gpkg"), "mask_band": "SCL", "mask_values": "3,8",
    "scheduler": None, "evidence": False,
}  # fmt: skip


@pytest.fixture
def requests(monkeypatch) -> list:
    """Requests that reach the library, which does nothing."""
    seen = []

    def ask(request, on_progress=None, on_note=None, on_dashboard=None):
        seen.append(request)
        raise RsqaError("no more")

    monkeypatch.setattr(pipeline, "ask", ask)
    return seen


def run(*words: str) -> int:
    return rsqa.cli.run(["detect", "m.tif", "n.tif", *words])


def test_every_option_reaches_the_request(requests):
    things = ["--object", "a ship", "--object", "Öltank", "--phrase", "the white plane", "--threshold", "0.3"]
    run(*things, "--count", "--areas", "/a.gpkg", "--pyramid", *OPTIONS.split(" "))
    [request] = requests
    task = Detect(objects=("ship", "Öltank"), phrases=("the white plane",), threshold=0.3, count=True, areas="/a.gpkg")
    expected = GIVEN | {"sources": ("m.tif", "n.tif"), "task": task, "questions": (), "include": (), "exclude": ()}
    assert {name: getattr(request, name) for name in type(request).__dataclass_fields__} == expected


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
