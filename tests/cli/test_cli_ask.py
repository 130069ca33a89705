"""`rsqa ask` and its like: what reaches the library, and what the user is told of its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import rsqa.cli
from rsqa.cli.options import parse_duration
from rsqa.cli.summary import report_lines
from rsqa.errors import ExitCode
from rsqa.run import pipeline
from rsqa.run.report import Expected, PlanReport, RunReport, SourceSummary
from rsqa.sinks.summary import QuestionSummary

WATER = QuestionSummary(
    id="water",
    text="Is there water?",
    kind="yesno",
    counts={"yes": 3, "no": 1},
    statuses={"ok": 4, "nodata": 2, "off_list": 0},
    mean_confidence={"yes": 0.91, "no": 0.75},
)
COUNT = QuestionSummary(
    id="n",
    text="How many?",
    kind="count",
    counts={str(n): n for n in range(20)},
    statuses={"ok": 190},
    mean_confidence={},
)
OTHERS = ("questions", "task", "include", "exclude")
"""Not options of rsqa ask."""
REPORT = RunReport(
    out=Path("m.rsqa"),
    exit_code=ExitCode.DONE,
    plan_id="0123456789abcdef",
    n_tiles=6,
    n_parts=2,
    parts_resumed=1,
    tiles_by_status={"ok": 4, "nodata": 2, "error": 0},
    questions=(WATER,),
    elapsed_s=2.0,
    tiles_per_s=3.0,
    mpx_per_s=0.6,
    bottleneck="model",
    engine_calls=1,
)
PLAN = PlanReport(
    sources=(SourceSummary(name="m\x1b.tif", width=900, height=500, crs="EPSG:26910", gsd_m=0.3, tiles=6),),
    n_tiles=6,
    n_parts=2,
    tile_px=448,
    side_px=112,
    batch=8,
    model="tinyrs-nano",
    plan_id="0123456789abcdef",
    expected=Expected(
        seconds=12.0,
        begin_s=4.0,
        model_s=7.0,
        read_s=0.5,
        tables_s=1.0,
        bound_by="model",
        memory_bytes=1_250_000_000,
        driver_bytes=None,
        read_bytes=60_000_000,
        unknown_blocks=0,
        output_bytes=2_500_000,
    ),
    warnings=("far from what it knows",),
)


@pytest.fixture
def library(monkeypatch):
    """Stands in for the library: keeps the requests, answers with `report`."""

    class Library:
        def __init__(self) -> None:
            self.report, self.planned = REPORT, PLAN
            self.requests = []

        def ask(self, request, on_progress=None, on_note=None, on_dashboard=None):
            self.requests.append(request)
            on_note("take care")
            return self.report

        def plan(self, request):
            self.requests.append(request)
            return self.planned

        def finish(self, out):
            self.requests.append(out)
            return self.report

    stand_in = Library()
    for name in ("ask", "plan", "finish"):
        monkeypatch.setattr(pipeline, name, getattr(stand_in, name))
    return stand_in


def test_every_option_reaches_the_request(library, tmp_path):
    file = tmp_path / "q.txt"
    file.write_text("b: Is there a road?")
    line = (
        f"ask m.tif n.tif -q a:\tWater? --question-file {file} --out o --bands 4,3,2 --tile-px 224 --gsd 0.5 "
        "--scale 0,10 --min-valid 0.25 --model tinyrs --adapter a --evidence --card c.json --no-reasoning "
        "--batch-size 3 --workers 2 --device cuda:1 --dtype bfloat16 --overwrite --retry-errors --max-duration 1h30m "
        "--allow-mixed --part-tiles 9 --cache-features f --asset visual --mosaic --aoi a.gpkg --mask-band SCL "
        "--mask-values 3,8 --quiet"
    )
    assert rsqa.cli.run(line.split(" ")) == 0
    [request] = library.requests
    assert [q.id for q in request.questions] == ["a", "b"]
    given = {name: getattr(request, name) for name in type(request).__dataclass_fields__ if name not in OTHERS}
    assert given == {
        "sources": ("m.tif", "n.tif"),
        "out": "o",
        "bands": "4,3,2",
        "tile_px": 224,
        "gsd_m": 0.5,
        "scale": "0,10",
        "min_valid": 0.25,
        "model": "tinyrs",
        "adapter": Path("a"),
        "evidence": True,
        "card": "c.json",
        "reasoning": False,
        "batch_size": 3,
        "workers": 2,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "overwrite": True,
        "retry_errors": True,
        "max_duration_s": 5400.0,
        "allow_mixed": True,
        "part_tiles": 9,
        "cache_features": Path("f"),
        "asset": "visual",
        "mosaic": True,
        "aoi": Path("a.gpkg"),
        "mask_band": "SCL",
        "mask_values": "3,8",
        "scheduler": None,
        "overlap_px": 0,
        "pyramid": False,
    }


def test_a_scheduler_reaches_the_request(library):
    assert (
        rsqa.cli.run(["ask", "m.tif", "-q", "Water?", "--scheduler", "tcp://a:8786", "--device", "cuda", "--quiet"])
        == 0
    )
    [request] = library.requests
    assert (request.scheduler, request.device, request.workers) == ("tcp://a:8786", "cuda", None)


def test_without_options_the_defaults_are_the_library_s(library):
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Water?", "--quiet"]) == 0
    [request] = library.requests
    assert request == type(request)(sources=("m.tif",), questions=request.questions)


def test_plan_and_ask_dry_run_are_the_same(library, capsys):
    for line in (["plan", "m.tif"], ["ask", "m.tif", "--dry-run"]):
        assert rsqa.cli.run([*line, "-q", "Is it a rural or an urban area?"]) == 0
    first, second = library.requests
    assert first == second
    out, err = capsys.readouterr()
    half = len(out) // 2
    assert out[:half] == out[half:]
    assert "m .tif    900     500  EPSG:26910  0.3            6\n" in out
    assert "rural|urban" in out
    assert "\x1b" not in out
    assert "warning: far from what it knows" in err


@pytest.mark.parametrize(
    ("figures", "lines"),
    [
        ({}, ["time    about 12 s, bound by the model (start and tables 5 s, model 7 s, reading under 1 s)",
              "memory  about 1.2 GB", "reads   about 60.0 MB", "output  about 2.5 MB"]),
        ({"seconds": 5.4, "model_s": 0.02, "bound_by": "start", "read_bytes": 0, "unknown_blocks": 1200},
         ["time    about 5 s, bound by its start (start and tables 5 s, model under 1 s, reading under 1 s)",
          "reads   about 1,200 blocks of files elsewhere or in a VRT"]),
        ({"driver_bytes": 300_000_000, "unknown_blocks": 7},
         ["memory  about 1.2 GB for each worker, 300.0 MB for what directs them",
          "reads   about 60.0 MB and 7 blocks of files elsewhere or in a VRT"]),
        ({"memory_bytes": None}, ["memory  unknown on this system"]),
    ],
)  # fmt: skip
def test_a_plan_says_what_a_run_takes(library, capsys, figures, lines):
    library.planned = replace(PLAN, expected=replace(PLAN.expected, **figures))
    assert rsqa.cli.run(["plan", "m.tif", "-q", "Is there water?"]) == 0
    assert set(lines) <= set(capsys.readouterr().out.splitlines())


def test_the_result_is_on_stdout_and_the_rest_on_stderr(library, capsys):
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?"]) == 0
    out, err = capsys.readouterr()
    assert out == "m.rsqa\n"
    assert "using the embedded tinyrs-nano" in err
    assert "warning: take care" in err
    assert "water     yes           3  0.91" in err
    assert "rsqa show m.rsqa" in err


def test_a_named_model_needs_no_remark(library, capsys):
    rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?", "--model", "tinyrs"])
    assert "tinyrs-nano" not in capsys.readouterr().err


def test_quiet_success_says_nothing(library, capsys):
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_the_report(library, capsys):
    library.report = replace(REPORT, failed_sources=(("n.tif", "no CRS"),), exit_code=ExitCode.TILES_FAILED)
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?", "--json", "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(json.dumps(library.report.to_json()))
    assert json.loads(out)["questions"][0]["counts"] == {"yes": 3, "no": 1}
    assert err == "rsqa: error: n.tif: no CRS\n"


def test_failed_tiles_are_said_even_when_quiet(library, capsys):
    library.report = replace(
        REPORT, tiles_by_status={"ok": 4, "nodata": 0, "error": 2}, exit_code=ExitCode.TILES_FAILED
    )
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?", "--quiet"]) == 3
    assert "2 of 6 tiles failed" in capsys.readouterr().err


@pytest.mark.parametrize("code", [ExitCode.OUT_OF_TIME, ExitCode.INTERRUPTED, ExitCode.TERMINATED])
def test_a_run_that_was_stopped_says_how_to_go_on(library, capsys, code):
    library.report = replace(REPORT, exit_code=code, questions=(), tiles_by_status={})
    assert rsqa.cli.run(["ask", "m.tif", "-q", "Is there water?"]) == code
    assert "run the same command to go on" in capsys.readouterr().err


def test_finish_reports_like_ask(library, capsys):
    assert rsqa.cli.run(["finish", "m.rsqa"]) == 0
    assert library.requests == ["m.rsqa"]
    assert capsys.readouterr().out == "m.rsqa\n"


def test_the_closing_table_lists_the_most_frequent_answers_first():
    lines = report_lines(replace(REPORT, questions=(COUNT, WATER)))
    answers = [line.split()[1] for line in lines if line.startswith("n ")]
    assert answers == ["19", "18", "17", "16", "15", "14", "13", "12", "(11"]
    assert any("(11 other answers)" in line and line.split()[-1] == "66" for line in lines)
    assert any(line.split() == ["water", "(nodata)", "2"] for line in lines)
    words = replace(WATER, id="words", kind="open", counts={}, statuses={"ok": 4, "truncated": 1}, mean_confidence={})
    assert [line.split() for line in report_lines(replace(REPORT, questions=(words,)))[1:3]] == [
        ["words", "(ok)", "4"],
        ["words", "(truncated)", "1"],
    ]
    assert not any("off_list" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("0.5d", 43200)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds
