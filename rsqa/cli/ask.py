"""`rsqa ask` and `rsqa plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, start_output, table
from rsqa.cli.progress import clock, progress_shown
from rsqa.cli.run_options import ModelOptions, RunOptions, SourceOptions, Without, expanded, request_of
from rsqa.cli.summary import show_report
from rsqa.run.report import size

if TYPE_CHECKING:
    from rsqa.run.report import Expected, PlanReport
    from rsqa.run.request import Request
    from rsqa.tasks.question import Question


MOST_SOURCES = 20
"""That a plan lists one by one."""


@expanded
def ask(
    sources: opt.Sources,
    *,
    question: opt.Questions = None,
    question_file: opt.QuestionFile = None,
    out: opt.Out = None,
    dry_run: opt.DryRun = False,
    read: SourceOptions,
    tile_px: opt.TilePx = 448,
    model: opt.Model = None,
    adapter: opt.Adapter = None,
    evidence: opt.Evidence = False,
    card: opt.Card = None,
    run: RunOptions,
) -> None:
    """Ask every tile of a raster the same questions.

    A run that was stopped is continued by the same command.
    """
    start_output(run.quiet, run.verbose, run.log_file)
    questions = _questions(question, question_file)  # before the imports that take seconds: a typo is told at once
    asked = ModelOptions(model=model, card=card, adapter=adapter)
    request = request_of(sources, read, asked, run, questions=questions, out=out, tile_px=tile_px, evidence=evidence)
    carry_out(request, run, dry_run=dry_run)


@expanded
def plan(
    sources: opt.Sources,
    *,
    question: opt.Questions = None,
    question_file: opt.QuestionFile = None,
    read: SourceOptions,
    tile_px: opt.TilePx = 448,
    model: opt.Model = None,
    adapter: opt.Adapter = None,
    evidence: opt.Evidence = False,
    card: opt.Card = None,
    run: Annotated[
        RunOptions,
        Without("dashboard", "overwrite", "retry_errors", "max_duration", "allow_mixed", "no_progress"),
    ],
) -> None:
    """Show what rsqa ask would do: tiles, parts, and what it takes: time, memory, bytes read, size of the output."""
    start_output(run.quiet, run.verbose, run.log_file)
    questions = _questions(question, question_file)
    asked = ModelOptions(model=model, card=card, adapter=adapter)
    request = request_of(sources, read, asked, run, questions=questions, tile_px=tile_px, evidence=evidence)
    carry_out(request, run, dry_run=True)


def _questions(texts: Sequence[str] | None, file: Path | None) -> tuple[Question, ...]:
    from rsqa.tasks.question_file import gather_questions

    asked = gather_questions(texts or (), file)
    for warning in asked.warnings:
        log.warning("%s", warning)
    return asked.questions


def carry_out(request: Request, run: RunOptions, *, dry_run: bool) -> None:
    """Run what was asked, of whatever kind, and say what came of it; with `dry_run` only its plan."""
    from rsqa.run import pipeline

    _say_model(request.model, request.adapter)
    if dry_run:
        _show_plan(request, run.json)
        return
    with progress_shown(wanted=not (run.quiet or run.no_progress)) as on_progress:
        report = pipeline.ask(
            request, on_progress, on_note=log.warning, on_dashboard=_say_dashboard if run.dashboard else None
        )
    show_report(report, as_json=run.json, quiet=run.quiet)
    raise typer.Exit(report.exit_code)


def _say_dashboard(address: str) -> None:
    log.info("dashboard: %s", address)


def _say_model(model: str | None, adapter: Path | None) -> None:
    if model is None and adapter is None:
        log.info("using the embedded tinyrs-nano, a small model; name a larger one with --model, as --model tinyrs")


def _show_plan(request: Request, as_json: bool) -> None:
    from rsqa.run import pipeline

    report = pipeline.plan(request)
    for warning in report.warnings:
        log.warning("%s", warning)
    if as_json:
        emit_json(report.to_json())
    else:
        asked = ["", *_question_lines(request.questions)] if request.questions else []
        emit([*_plan_lines(report), *asked])


def _plan_lines(report: PlanReport) -> list[str]:
    shown = report.sources[:MOST_SOURCES]
    sources = [(s.name, s.width, s.height, s.crs, f"{s.gsd_m:.3g}" if s.gsd_m else "", s.tiles) for s in shown]
    return [
        *table(("source", "width", "height", "CRS", "metres/px", "tiles"), sources),
        *([f"… and {len(report.sources) - len(shown):,} more sources"] if len(report.sources) > len(shown) else []),
        "",
        f"tiles   {report.n_tiles:,} of {report.tile_px} px, seen by the model at {report.side_px} px",
        f"parts   {report.n_parts:,}, batches of {report.batch}",
        f"model   {report.model}",
        *_expected_lines(report.expected),
        *_cache_lines(report),
        f"plan    {report.plan_id}",
    ]


def _expected_lines(expected: Expected) -> list[str]:
    shares = {"start and tables": expected.begin_s + expected.tables_s, "model": expected.model_s,
              "reading": expected.read_s}  # fmt: skip
    told = ", ".join(f"{name} {_clock(seconds)}" for name, seconds in shares.items())
    bound_by = {"start": "its start", "model": "the model", "reading": "reading", "processors": "the processors"}
    unknown = f"{expected.unknown_blocks:,} blocks of files elsewhere or in a VRT"
    reads = [
        *([size(expected.read_bytes)] if expected.read_bytes else []),
        *([unknown] if expected.unknown_blocks else []),
    ]
    return [
        f"time    about {_clock(expected.seconds)}, bound by {bound_by[expected.bound_by]} ({told})",
        f"memory  {_memory(expected)}",
        f"reads   about {' and '.join(reads)}",
        f"output  about {size(expected.output_bytes)}",
    ]


def _clock(seconds: float) -> str:
    return clock(seconds) if seconds >= 1 else "under 1 s"


def _memory(expected: Expected) -> str:
    if expected.memory_bytes is None:
        return "unknown on this system"
    if expected.driver_bytes is None:
        return f"about {size(expected.memory_bytes)}"
    return f"about {size(expected.memory_bytes)} for each worker, {size(expected.driver_bytes)} for what directs them"


def _cache_lines(report: PlanReport) -> list[str]:
    if report.cache_bytes is None or report.cache_free_bytes is None:
        return []
    return [f"cache   at most {size(report.cache_bytes)} more, {size(report.cache_free_bytes)} free"]


def _question_lines(questions: Sequence[Question]) -> list[str]:
    """How each question was understood."""
    shown = [(q.id, q.kind, _options(q), q.text) for q in questions]
    return table(("id", "kind", "options", "question"), shown)


def _options(question: Question) -> str:
    options = question.options
    return "|".join(options) if len(options) <= 8 else f"{options[0]}|{options[1]}|…|{options[-1]} ({len(options)})"
