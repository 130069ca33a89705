from __future__ import annotations

import pytest

from rsqa.bench.measure import Measured, Row
from rsqa.bench.report import HEADER, Agreement, Useful, agreement, figures, lines, remarks, table_row
from rsqa.bench.work import Case

CASE = Case(224, 4, 2, None)
REFERENCE = {"tokens": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "option_logprobs": [[[-1, -2]] * 2] * 2}


def row(side, seconds, compared=None, **more):
    runs = [{"wall_s": s, "cpu_s": 2 * s, "peak_mb": 10.0 * s, **more} for s in seconds]
    return Row(side, side, CASE, "ok", "", {"seconds": 1.0}, {"seconds": 2.0, "notes": ["as it is"]}, runs, compared)


def ceiling(*rates):
    runs = [{"wall_s": 1.0, "cpu_s": 1.0, "peak_mb": 1.0, "flop_per_s": rate} for rate in rates]
    return Row("ceiling", "", CASE, runs=runs)


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        (REFERENCE["tokens"], None, Agreement(4, 1.0, 1.0)),
        ([[[1, 9], [9, 4]]], None, Agreement(2, 0.5, 0.0)),  # one tile of two seen
        (
            REFERENCE["tokens"],
            [[[-1, -2], [-3, -2]], [[-1.5, -2], [-1, -2]]],
            Agreement(4, 1.0, 1.0, 0.75, 2),
        ),
    ],
)
def test_agreement_counts_answers(tokens, options, expected):
    assert agreement({"tokens": tokens, "option_logprobs": options}, REFERENCE) == expected


def test_a_side_without_tokens_is_not_said_to_agree():
    assert agreement({"tokens": None, "option_logprobs": None}, REFERENCE) is None


def test_figures_are_of_the_median_round():
    measured = Measured(CASE, (row("a", [4.0, 2.0, 8.0]), row("e", [1.0, 0.5, 1.0])), ceiling(50.0, 100.0, 200.0), None)
    a, e = figures(measured, flops=Useful(20, 5))
    assert (a["answers_per_s"], a["answers_per_s_slowest"], a["answers_per_s_fastest"]) == (2.0, 1.0, 4.0)
    assert a["answers_per_cpu_s"] == 1.0
    assert a["tiles_per_s"] == 1.0
    assert a["mpx_per_s"] == pytest.approx(224**2 / 1e6)
    assert a["share_of_ceiling"] == pytest.approx(20 / 200)
    assert a["peak_mb"] == 80.0
    assert e["times_a"] == 4.0
    assert "times_b" not in e


def test_a_file_is_measured_while_parts_are_done_and_against_the_model_alone():
    whole = row("file", [3.0], working_s=1.1, whole_s=2.9, model_idle=0.25)
    found = figures(Measured(CASE, (row("e", [1.0]), whole), ceiling(1.0), None), flops=Useful(1, 1))
    assert found[1]["cost_over_model_only"] == pytest.approx(0.1)
    assert found[1]["start_and_end_s"] == pytest.approx(1.8)
    said = remarks(found, Measured(CASE, (), ceiling(1.0), None))
    assert any(line.startswith("file: +10.0% over model only, the model idle for 25.0%") for line in said)


def test_a_side_that_did_not_run_has_a_row_and_a_reason():
    absent = Row("d", "vLLM", CASE, "not run", "no vLLM here")
    measured = Measured(CASE, (absent, row("e", [1.0])), ceiling(1.0), None)
    found = figures(measured, flops=Useful(1, 1))
    shown = [table_row(each) for each in found]
    assert all(len(cells) == len(HEADER) for cells in shown)
    assert shown[0][1] == "vLLM: not run"
    assert set(shown[0][2:]) == {None}
    assert len(lines(found)) == 3
    assert "d: not run: no vLLM here" in remarks(found, measured)


def test_without_a_ceiling_its_share_is_unknown():
    [only] = figures(
        Measured(CASE, (row("e", [1.0]),), Row("ceiling", "", CASE, "failed", "why"), None), flops=Useful(1, 1)
    )
    assert only["share_of_ceiling"] is None
