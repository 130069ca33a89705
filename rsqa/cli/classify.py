"""`rsqa classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output
from rsqa.cli.run_options import ModelOptions, RunOptions, SourceOptions, expanded, request_of

_LABELS = "Labels"


@expanded
def classify(
    sources: opt.Chips,
    *,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Labels with commas between them; quote one that holds a comma, as in CSV.",
            rich_help_panel=_LABELS,
            show_default=False,
        ),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels, one a line.", rich_help_panel=_LABELS, show_default=False),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Classes of a published set: aid, eurosat, nwpu45, siri-whu, ucm or whu-rs19.",
            rich_help_panel=_LABELS,
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What asks for the label, {labels} where they stand; of several the probabilities are averaged. "
            "By default the published words.",
            rich_help_panel=_LABELS,
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(min=1, max=16, metavar="K", help="Labels whose probabilities are shown.", rich_help_panel=_LABELS),
    ] = 5,
    abstain: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Give no label where the likeliest one is less sure than this.",
            rich_help_panel=_LABELS,
        ),
    ] = 0.0,
    dissolve: Annotated[
        bool, typer.Option("--dissolve", help="Also write polygons of tiles that share a label.")
    ] = False,
    cog: Annotated[
        bool, typer.Option("--cog", help="Also write a raster of labels, a pixel per tile, for each mosaic.")
    ] = False,
    out: opt.Out = None,
    dry_run: opt.DryRun = False,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    read: SourceOptions,
    tile_px: opt.ChipPx = None,
    model: ModelOptions,
    run: RunOptions,
) -> None:
    """Give every picture of a folder, or every tile of a mosaic, one label of a list.

    A run that was stopped is continued by the same command.
    """
    start_output(run.quiet, run.verbose, run.log_file)
    from rsqa.tasks.labels import class_questions, gather_labels
    from rsqa.tasks.task import Classify

    questions = class_questions(gather_labels(labels, labels_file, scheme), prompt or ())
    task = Classify(top_k=top_k, abstain=abstain, dissolve=dissolve, cog=cog)
    request = request_of(
        sources,
        read,
        model,
        run,
        questions=questions,
        task=task,
        include=include,
        exclude=exclude,
        out=out,
        tile_px=tile_px,
    )
    carry_out(request, run, dry_run=dry_run)
