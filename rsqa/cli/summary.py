"""The words that close a run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rsqa.cli.output import emit, emit_json, log, plain, table
from rsqa.cli.progress import clock
from rsqa.errors import ExitCode
from rsqa.run.report import RunReport

if TYPE_CHECKING:
    from rsqa.sinks.summary import QuestionSummary  # the command line starts without pyarrow

MOST_FAILED = 5
"""Sources that are named one by one when they were left out."""
MOST_ANSWERS = 8
"""Answers of a question that are listed, the most frequent first."""

_GO_ON = {
    ExitCode.OUT_OF_TIME: "stopped, the time budget is used up",
    ExitCode.INTERRUPTED: "stopped by an interrupt",
    ExitCode.TERMINATED: "stopped by a signal",
}


def show_report(report: RunReport, as_json: bool, quiet: bool) -> None:
    """Faults and the closing table to stderr, the result to stdout: the output folder or one JSON object."""
    for name, why in report.failed_sources[:MOST_FAILED]:
        log.error("%s: %s", name, why)
    if (more := len(report.failed_sources) - MOST_FAILED) > 0:
        log.error("%s more sources were left out; run.json names them", f"{more:,}")
    if failed := report.tiles_by_status.get("error"):
        see = f"list them with {_show(report.out)} --status error, ask them again with --retry-errors"
        log.error("%s", f"{failed:,} of {report.n_tiles:,} tiles failed; {see}")
    for line in report_lines(report):
        log.info("%s", line)
    if report.exit_code in _GO_ON:
        log.warning("%s; run the same command to go on", _GO_ON[report.exit_code])
    if as_json:
        emit_json(report.to_json())
    elif not quiet:
        emit([plain(report.out)])


def report_lines(report: RunReport) -> list[str]:
    """How fast it went; for a finished run also the answers to each question and how to look at them."""
    how = [f"{report.n_tiles:,} tiles", clock(report.elapsed_s)]
    if report.tiles_per_s > 0:
        by = "the model" if report.bottleneck == "model" else "reading"
        how += [f"{report.tiles_per_s:.1f} tiles/s", f"{report.mpx_per_s:.1f} Mpx/s", f"bound by {by}"]
    if skipped := report.tiles_by_status.get("nodata"):
        how.append(f"{skipped:,} skipped for want of valid pixels")
    if report.tiles_from_cache:
        how.append(f"{report.tiles_from_cache:,} tiles from --cache-features")
    if report.parts_resumed:
        how.append(f"{report.parts_resumed:,} of {report.n_parts:,} parts were there")
    if not report.questions:
        return [", ".join(how)]
    answers = [row for question in report.questions for row in _answers(question)]
    return [
        *table(("question", "answer", "tiles", "mean confidence"), answers),
        ", ".join(how),
        f"the answers are in {report.out}; look at them with: {_show(report.out)}",
    ]


def _show(out: Path | str) -> str:
    if isinstance(out, str):
        return f"aws s3 sync {quote(out)} DIR && rsqa show DIR"
    return f"rsqa show {quote(str(out))}"


def _answers(question: QuestionSummary) -> list[tuple[object, ...]]:
    """Rows of the closing table: the most frequent answers, then tiles without one by their status."""
    given = sorted(((n, a) for a, n in question.counts.items() if n), key=lambda pair: -pair[0])
    rows: list[tuple[object, ...]] = [
        (question.id, answer, n, _confidence(question, answer)) for n, answer in given[:MOST_ANSWERS]
    ]
    if question.objects is not None:
        rows.append((question.id, "objects", question.objects, ""))
    if rest := given[MOST_ANSWERS:]:
        rows.append((question.id, f"({len(rest)} other answers)", sum(n for n, _ in rest), ""))
    for status, n in question.statuses.items():
        if n and (status != "ok" or question.kind in ("open", "box")):
            rows.append((question.id, f"({status})", n, ""))
    return rows


def _confidence(question: QuestionSummary, answer: str) -> str:
    mean = question.mean_confidence.get(answer)
    return "" if mean is None else f"{mean:.2f}"
