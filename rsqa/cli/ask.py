"""`rsqa ask` and `rsqa plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, start_output, table
from rsqa.cli.progress import clock, progress_shown
from rsqa.cli.summary import show_report
from rsqa.run.report import size

if TYPE_CHECKING:
    from rsqa.run.report import PlanReport
    from rsqa.run.request import Request
    from rsqa.tasks.question import Question


MOST_SOURCES = 20
"""That a plan lists one by one."""


def ask(
    sources: opt.Sources,
    question: opt.Questions = None,
    question_file: opt.QuestionFile = None,
    out: opt.Out = None,
    dry_run: opt.DryRun = False,
    asset: opt.Asset = None,
    mosaic: opt.Mosaic = False,
    aoi: opt.Aoi = None,
    bands: opt.Bands = None,
    mask_band: opt.MaskBand = None,
    mask_values: opt.MaskValues = None,
    tile_px: opt.TilePx = 448,
    gsd: opt.Gsd = None,
    scale: opt.Scale = "auto",
    min_valid: opt.MinValid = 0.5,
    model: opt.Model = None,
    adapter: opt.Adapter = None,
    evidence: opt.Evidence = False,
    card: opt.Card = None,
    reasoning: opt.Reasoning = None,
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    scheduler: opt.Scheduler = None,
    dashboard: opt.Dashboard = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    cache_features: opt.CacheFeatures = None,
    overwrite: opt.Overwrite = False,
    retry_errors: opt.RetryErrors = False,
    max_duration: opt.MaxDuration = None,
    allow_mixed: opt.AllowMixed = False,
    part_tiles: opt.PartTiles = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
    log_file: opt.LogFile = None,
) -> None:
    """Ask every tile of a raster the same questions.

    A run that was stopped is continued by the same command.
    """
    start_output(quiet, verbose, log_file)
    questions = _questions(question, question_file)  # before the imports that take seconds: a typo is told at once
    from rsqa.run.request import Request

    request = Request(
        sources=tuple(sources),
        questions=questions,
        out=out,
        asset=asset,
        mosaic=mosaic,
        aoi=aoi,
        bands=bands,
        mask_band=mask_band,
        mask_values=mask_values,
        tile_px=tile_px,
        gsd_m=gsd,
        scale=scale,
        min_valid=min_valid,
        model=model,
        adapter=adapter,
        evidence=evidence,
        card=card,
        reasoning=reasoning,
        batch_size=batch_size,
        workers=workers,
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        cache_features=cache_features,
        overwrite=overwrite,
        retry_errors=retry_errors,
        max_duration_s=max_duration,
        allow_mixed=allow_mixed,
        part_tiles=part_tiles,
    )
    carry_out(request, dry_run=dry_run, as_json=json, quiet=quiet, no_progress=no_progress, dashboard=dashboard)


def plan(
    sources: opt.Sources,
    question: opt.Questions = None,
    question_file: opt.QuestionFile = None,
    asset: opt.Asset = None,
    mosaic: opt.Mosaic = False,
    aoi: opt.Aoi = None,
    bands: opt.Bands = None,
    mask_band: opt.MaskBand = None,
    mask_values: opt.MaskValues = None,
    tile_px: opt.TilePx = 448,
    gsd: opt.Gsd = None,
    scale: opt.Scale = "auto",
    min_valid: opt.MinValid = 0.5,
    model: opt.Model = None,
    adapter: opt.Adapter = None,
    evidence: opt.Evidence = False,
    card: opt.Card = None,
    reasoning: opt.Reasoning = None,
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    scheduler: opt.Scheduler = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    cache_features: opt.CacheFeatures = None,
    part_tiles: opt.PartTiles = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_file: opt.LogFile = None,
) -> None:
    """Show what rsqa ask would do: tiles, parts, expected time and size."""
    ask(
        dry_run=True,
        sources=sources,
        question=question,
        question_file=question_file,
        asset=asset,
        mosaic=mosaic,
        aoi=aoi,
        bands=bands,
        mask_band=mask_band,
        mask_values=mask_values,
        tile_px=tile_px,
        gsd=gsd,
        scale=scale,
        min_valid=min_valid,
        model=model,
        adapter=adapter,
        evidence=evidence,
        card=card,
        reasoning=reasoning,
        batch_size=batch_size,
        workers=workers,
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        cache_features=cache_features,
        part_tiles=part_tiles,
        json=json,
        quiet=quiet,
        verbose=verbose,
        log_file=log_file,
    )


def _questions(texts: Sequence[str] | None, file: Path | None) -> tuple[Question, ...]:
    from rsqa.tasks.question_file import gather_questions

    asked = gather_questions(texts or (), file)
    for warning in asked.warnings:
        log.warning("%s", warning)
    return asked.questions


def carry_out(
    request: Request, *, dry_run: bool, as_json: bool, quiet: bool, no_progress: bool, dashboard: bool = False
) -> None:
    """Run what was asked, of whatever kind, and say what came of it; with `dry_run` only its plan."""
    from rsqa.run import pipeline

    _say_model(request.model, request.adapter)
    if dry_run:
        _show_plan(request, as_json)
        return
    with progress_shown(wanted=not (quiet or no_progress)) as on_progress:
        report = pipeline.ask(
            request, on_progress, on_note=log.warning, on_dashboard=_say_dashboard if dashboard else None
        )
    show_report(report, as_json=as_json, quiet=quiet)
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
    expected = "unknown" if report.seconds_expected is None else f"about {clock(report.seconds_expected)}"
    return [
        *table(("source", "width", "height", "CRS", "metres/px", "tiles"), sources),
        *([f"… and {len(report.sources) - len(shown):,} more sources"] if len(report.sources) > len(shown) else []),
        "",
        f"tiles   {report.n_tiles:,} of {report.tile_px} px, seen by the model at {report.side_px} px",
        f"parts   {report.n_parts:,}, batches of {report.batch}",
        f"model   {report.model}",
        f"time    {expected}",
        f"output  about {size(report.bytes_expected)}",
        *_cache_lines(report),
        f"plan    {report.plan_id}",
    ]


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
