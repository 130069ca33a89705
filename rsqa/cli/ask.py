"""`rsqa ask` and `rsqa plan`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rsqa.cli.output import Json, LogFile, Quiet, Verbose, emit, emit_json, log, start_output, table
from rsqa.cli.progress import clock, progress_shown
from rsqa.cli.summary import show_report

if TYPE_CHECKING:
    from rsqa.run.report import PlanReport
    from rsqa.run.request import AskRequest
    from rsqa.tasks.question import Question

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """`2h`, `90m`, `1h30m` -> seconds."""
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise typer.BadParameter(f"{text!r} is not a duration; write for example 90m, 2h or 1h30m")
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in pieces))


Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE", help="GeoTIFFs, COGs, named VRTs or GDAL /vsi paths.", show_default=False),
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "-q", "--question", metavar="TEXT", help="A question; may be given several times.", show_default=False
    ),
]
QuestionFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Questions in a text, CSV or JSONL file.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Output folder; by default SOURCE.rsqa in this folder.", show_default=False),
]

_TILES = "Tiles and pixels"
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Bands shown as red, green, blue: numbers as 4,3,2 or colour names; by default read from the file.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
TilePx = Annotated[
    int,
    typer.Option(
        min=1, help="Side of a tile in source pixels; multiples of 28 need no resize.", rich_help_panel=_TILES
    ),
]
Gsd = Annotated[
    float | None,
    typer.Option(
        metavar="METRES",
        help="Ground metres per pixel to work at; by default the source's own.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="How values become 8 bits: auto (uint8 as it is, others stretched once per collection) or LOW,HIGH.",
        rich_help_panel=_TILES,
    ),
]
MinValid = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Least valid share of a tile for it to be asked, 0 to 1.",
        rich_help_panel=_TILES,
    ),
]

_MODEL = "Model"
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Folder, hub name or card name; by default the embedded tinyrs-nano.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Card = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Model card by name or JSON file, for a model that brings none.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Reasoning = Annotated[
    bool | None,
    typer.Option(
        "--reasoning/--no-reasoning",
        help="Let the model reason before it answers; by default what its card says.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]

_MACHINE = "Machine"
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tiles through the model at once; by default from memory.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Worker processes, each with its own model; by default threads of this one.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Precision; auto is float32 on a CPU and bfloat16 on a GPU.", rich_help_panel=_MACHINE, show_choices=True
    ),
]
PartTiles = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tiles per part, the unit of committing and resuming; by default about 15 s of work.",
        rich_help_panel="Advanced",
        show_default=False,
    ),
]

_AGAIN = "Running again"
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Start anew in an output folder that holds another plan.", rich_help_panel=_AGAIN),
]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="Ask tiles again that failed in an earlier run.", rich_help_panel=_AGAIN)
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Go on with a plan that was begun on another type of device; answers may differ slightly.",
        rich_help_panel=_AGAIN,
    ),
]
MaxDuration = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="TIME",
        help="Stop cleanly after this time, as 90m or 2h, with exit code 10; run again to go on.",
        rich_help_panel=_AGAIN,
        show_default=False,
    ),
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no progress.", rich_help_panel="Output")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the plan, as rsqa plan does.")]


def ask(
    sources: Sources,
    question: Questions = None,
    question_file: QuestionFile = None,
    out: Out = None,
    dry_run: DryRun = False,
    bands: Bands = None,
    tile_px: TilePx = 448,
    gsd: Gsd = None,
    scale: Scale = "auto",
    min_valid: MinValid = 0.5,
    model: Model = None,
    card: Card = None,
    reasoning: Reasoning = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    overwrite: Overwrite = False,
    retry_errors: RetryErrors = False,
    max_duration: MaxDuration = None,
    allow_mixed: AllowMixed = False,
    part_tiles: PartTiles = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    log_file: LogFile = None,
) -> None:
    """Ask every tile of a raster the same questions.

    A run that was stopped is continued by the same command.
    """
    start_output(quiet, verbose, log_file)
    questions = _questions(question, question_file)  # before the imports that take seconds: a typo is told at once
    from rsqa.run import pipeline
    from rsqa.run.request import AskRequest

    request = AskRequest(
        sources=tuple(sources),
        questions=questions,
        out=out,
        bands=bands,
        tile_px=tile_px,
        gsd_m=gsd,
        scale=scale,
        min_valid=min_valid,
        model=model,
        card=card,
        reasoning=reasoning,
        batch_size=batch_size,
        workers=workers,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        retry_errors=retry_errors,
        max_duration_s=max_duration,
        allow_mixed=allow_mixed,
        part_tiles=part_tiles,
    )
    _say_model(model)
    if dry_run:
        _show_plan(request, json)
        return
    with progress_shown(wanted=not (quiet or no_progress)) as on_progress:
        report = pipeline.ask(request, on_progress=on_progress, on_note=log.warning)
    show_report(report, as_json=json, quiet=quiet)
    raise typer.Exit(report.exit_code)


def plan(
    sources: Sources,
    question: Questions = None,
    question_file: QuestionFile = None,
    bands: Bands = None,
    tile_px: TilePx = 448,
    gsd: Gsd = None,
    scale: Scale = "auto",
    min_valid: MinValid = 0.5,
    model: Model = None,
    card: Card = None,
    reasoning: Reasoning = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    part_tiles: PartTiles = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Show what rsqa ask would do: tiles, parts, expected time and size."""
    ask(
        dry_run=True,
        sources=sources,
        question=question,
        question_file=question_file,
        bands=bands,
        tile_px=tile_px,
        gsd=gsd,
        scale=scale,
        min_valid=min_valid,
        model=model,
        card=card,
        reasoning=reasoning,
        batch_size=batch_size,
        workers=workers,
        device=device,
        dtype=dtype,
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


def _say_model(model: str | None) -> None:
    if model is None:
        log.info("using the embedded tinyrs-nano, a small model; name a larger one with --model, as --model tinyrs")


def _show_plan(request: AskRequest, as_json: bool) -> None:
    from rsqa.run import pipeline

    report = pipeline.plan(request)
    for warning in report.warnings:
        log.warning("%s", warning)
    if as_json:
        emit_json(report.to_json())
    else:
        emit([*_plan_lines(report), "", *_question_lines(request.questions)])


def _plan_lines(report: PlanReport) -> list[str]:
    sources = [(s.name, s.width, s.height, s.crs, s.gsd_m, s.tiles) for s in report.sources]
    expected = "unknown" if report.seconds_expected is None else f"about {clock(report.seconds_expected)}"
    return [
        *table(("source", "width", "height", "CRS", "metres/px", "tiles"), sources),
        "",
        f"tiles   {report.n_tiles:,} of {report.tile_px} px, seen by the model at {report.side_px} px",
        f"parts   {report.n_parts:,}, batches of {report.batch}",
        f"model   {report.model}",
        f"time    {expected}",
        f"output  about {report.bytes_expected / 1e6:,.1f} MB",
        f"plan    {report.plan_id}",
    ]


def _question_lines(questions: Sequence[Question]) -> list[str]:
    """How each question was understood."""
    shown = [(q.id, q.kind, _options(q), q.text) for q in questions]
    return table(("id", "kind", "options", "question"), shown)


def _options(question: Question) -> str:
    options = question.options
    return "|".join(options) if len(options) <= 8 else f"{options[0]}|{options[1]}|…|{options[-1]} ({len(options)})"
