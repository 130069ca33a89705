"""`rsqa classify` and `rsqa caption`: what reaches the library."""

from __future__ import annotations

from pathlib import Path

import pytest

import rsqa.cli
from rsqa.errors import ExitCode, RsqaError
from rsqa.run import pipeline
from rsqa.tasks.schemes import SCHEMES
from rsqa.tasks.task import Caption, Classify

COMMON = (
    "a m.tif --out o --include *.tif --include b/* --exclude c* --bands 4,3,2 --tile-px 224 --gsd 0.5 --scale 0,10 "
    "--min-valid 0.25 --model tinyrs --adapter g --card c.json --batch-size 3 --workers 2 --device cuda:1 "
    "--dtype bfloat16 --overwrite --retry-errors --max-duration 1h30m --allow-mixed --part-tiles 9 --quiet "
    "--asset visual --mosaic --aoi a.gpkg --mask-band SCL --mask-values 3,8"
)
GIVEN = {
    "sources": ("a", "m.tif"), "out": Path("o"), "include": ("*.tif", "b/*"), "exclude": ("c*",), "bands": "4,3,2",
    "tile_px": 224, "gsd_m": 0.5, "scale": "0,10", "min_valid": 0.25, "model": "tinyrs", "adapter": Path("g"),
    "card": "c.json", "batch_size": 3, "workers": 2, "device": "cuda:1", "dtype": "bfloat16", "overwrite": True,
    "retry_errors": True, "max_duration_s": 5400.0, "allow_mixed": True, "part_tiles": 9,
    "asset": "visual", "mosaic": True, "aoi": Path("a.gpkg"), "mask_band": "SCL", "mask_values": "3,8",
    "scheduler": None, "evidence": False, "overlap_px": 0, "pyramid": False,
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


def run(line: str) -> int:
    return rsqa.cli.run(line.split(" "))


def given(request) -> dict:
    return {name: getattr(request, name) for name in type(request).__dataclass_fields__}


def test_every_option_of_classify_reaches_the_request(requests):
    run(
        f"classify {COMMON} --labels a,b --prompt Which? --prompt What? --top-k 3 --abstain 0.4 --dissolve --cog "
        "--no-reasoning --cache-features f"
    )
    [request] = requests
    assert [(q.text, q.options) for q in request.questions] == [("Which?", ("a", "b")), ("What?", ("a", "b"))]
    task = Classify(top_k=3, abstain=0.4, dissolve=True, cog=True)
    own = {"questions": request.questions, "task": task, "reasoning": False, "cache_features": Path("f")}
    assert given(request) == GIVEN | own


def test_every_option_of_caption_reaches_the_request(requests):
    run(f"caption {COMMON} --summary")
    [request] = requests
    own = {"questions": (), "task": Caption(summary=True), "reasoning": None, "cache_features": None}
    assert given(request) == GIVEN | own


def test_chips_are_whole_by_default(requests):
    run("classify a --scheme ucm --quiet")
    [request] = requests
    assert request.tile_px is None
    assert request.questions[0].options == SCHEMES["ucm"]


@pytest.mark.parametrize(
    "line",
    [
        "classify a", "classify a --labels a", "classify a --labels a,a", "classify a --labels a,b --scheme ucm",
        "classify a --scheme moon", "classify a --labels-file absent.txt", "classify a --labels a,b --top-k 17",
        "classify a --labels a,b --abstain 2",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(requests, capsys, line):
    assert run(line) == ExitCode.USAGE
    assert not requests
    assert capsys.readouterr().err.count("\n") == 1
