"""`rsqa classify` and `rsqa caption`: what reaches the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_option import GIVEN, LINE, given

import rsqa.cli
from rsqa.errors import ExitCode
from rsqa.tasks.schemes import SCHEMES
from rsqa.tasks.task import Caption, Classify

CHIPS = f"a m.tif --include *.tif --include b/* --exclude c* {LINE}"
CHOSEN = GIVEN | {"sources": ("a", "m.tif"), "include": ("*.tif", "b/*"), "exclude": ("c*",)}


def run(line: str) -> int:
    return rsqa.cli.run(line.split(" "))


def test_every_option_of_classify_reaches_the_request(requests):
    run(
        f"classify {CHIPS} --labels a,b --prompt Which? --prompt What? --top-k 3 --abstain 0.4 --dissolve --cog "
        "--no-reasoning --cache-features f"
    )
    [request] = requests
    assert [(q.text, q.options) for q in request.questions] == [("Which?", ("a", "b")), ("What?", ("a", "b"))]
    task = Classify(top_k=3, abstain=0.4, dissolve=True, cog=True)
    own = {"questions": request.questions, "task": task, "reasoning": False, "cache_features": Path("f")}
    assert given(request) == CHOSEN | own


def test_every_option_of_caption_reaches_the_request(requests):
    run(f"caption {CHIPS} --summary")
    [request] = requests
    assert given(request) == CHOSEN | {"task": Caption(summary=True)}


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
