"""The words that close a run."""

from __future__ import annotations

from rsqa.cli.output import emit, emit_json, log, plain, table
from rsqa.cli.progress import clock
from rsqa.errors import ExitCode
from rsqa.run.report import QuestionSummary, RunReport

MOST_ANSWERS = 8
"""Answers of a question that are listed, the most frequent first."""

_GO_ON = {
    ExitCode.OUT_OF_TIME: "stopped, the time budget is used up",
    ExitCode.INTERRUPTED: "stopped by an interrupt",
    ExitCode.TERMINATED: "stopped by a signal",
}


def show_report(report: RunReport, as_json: bool, quiet: bool) -> None:
    """Faults and the closing table to stderr, the result to stdout: the output folder or one JSON object."""
    for name, why in report.failed_sources:
        log.error("%s: %s", name, why)
    if failed := report.tiles_by_status.get("error"):
        see = f"list them with rsqa show {report.out} --status error, ask them again with --retry-errors"
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
    by = "the model" if report.bottleneck == "model" else "reading"
    speed = f"{report.tiles_per_s:.1f} tiles/s, {report.mpx_per_s:.1f} Mpx/s, bound by {by}"
    resumed = f"; {report.parts_resumed:,} of {report.n_parts:,} parts were there" if report.parts_resumed else ""
    if not report.questions:
        return [f"{clock(report.elapsed_s)}, {speed}{resumed}"]
    skipped = report.tiles_by_status.get("nodata", 0)
    return [
        *table(
            ("question", "answer", "tiles", "mean confidence"), [row for q in report.questions for row in _answers(q)]
        ),
        f"{report.n_tiles:,} tiles in {clock(report.elapsed_s)}, {speed}{resumed}",
        f"{skipped:,} tiles were skipped: too few valid pixels",
        f"the answers are in {report.out}; look at them with: rsqa show {report.out}",
    ]


def _answers(question: QuestionSummary) -> list[tuple[object, ...]]:
    """Rows of the closing table: the most frequent answers, then tiles without one by their status."""
    given = sorted(((n, a) for a, n in question.counts.items() if n), key=lambda pair: -pair[0])
    rows: list[tuple[object, ...]] = [
        (question.id, answer, n, _confidence(question, answer)) for n, answer in given[:MOST_ANSWERS]
    ]
    if rest := given[MOST_ANSWERS:]:
        rows.append((question.id, f"({len(rest)} other answers)", sum(n for n, _ in rest), ""))
    rows += [(question.id, f"({s})", n, "") for s, n in question.statuses.items() if n and s != "ok"]
    return rows


def _confidence(question: QuestionSummary, answer: str) -> str:
    mean = question.mean_confidence.get(answer)
    return "" if mean is None else f"{mean:.2f}"
