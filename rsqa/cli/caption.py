"""`rsqa caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output
from rsqa.cli.run_options import ModelOptions, RunOptions, SourceOptions, Without, expanded, request_of


@expanded
def caption(
    sources: opt.Chips,
    *,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also count which descriptions and words are most frequent.")
    ] = False,
    out: opt.Out = None,
    dry_run: opt.DryRun = False,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    read: SourceOptions,
    tile_px: opt.ChipPx = None,
    model: ModelOptions,
    run: Annotated[RunOptions, Without("reasoning", "cache_features")],
) -> None:
    """Describe every picture of a folder, or every tile of a mosaic, in the words that the model was taught.

    A run that was stopped is continued by the same command.
    """
    start_output(run.quiet, run.verbose, run.log_file)
    from rsqa.tasks.task import Caption

    request = request_of(
        sources,
        read,
        model,
        run,
        task=Caption(summary=summary),
        include=include,
        exclude=exclude,
        out=out,
        tile_px=tile_px,
    )
    carry_out(request, run, dry_run=dry_run)
