"""`rsqa detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output
from rsqa.cli.run_options import ModelOptions, RunOptions, SourceOptions, expanded, request_of

_THINGS = "Things"


@expanded
def detect(
    sources: opt.Sources,
    *,
    objects: Annotated[
        list[str] | None,
        typer.Option(
            "--object",
            metavar="NAME",
            help="A kind of object, in the singular; may be given several times.",
            rich_help_panel=_THINGS,
            show_default=False,
        ),
    ] = None,
    phrases: Annotated[
        list[str] | None,
        typer.Option(
            "--phrase",
            metavar="WORDS",
            help="Words that refer to one thing, as 'the white plane at the north end'; may be given several times.",
            rich_help_panel=_THINGS,
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Look for a thing only in tiles where it is at least this likely; the score of an object is the "
            "mean over the tiles that show it.",
            rich_help_panel=_THINGS,
        ),
    ] = 0.5,
    count: Annotated[
        bool, typer.Option("--count", help="Also count the objects of each kind, every one once.")
    ] = False,
    areas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also count them in each polygon of a vector file; a column `name` tells these apart.",
            show_default=False,
        ),
    ] = None,
    out: opt.Out = None,
    dry_run: opt.DryRun = False,
    read: SourceOptions,
    tile_px: opt.WindowPx = 448,
    overlap: opt.Overlap = None,
    pyramid: opt.Pyramid = False,
    model: ModelOptions,
    run: RunOptions,
) -> None:
    """Find objects in a raster: a polygon on the ground for each, once however many tiles see it.

    A run that was stopped is continued by the same command.
    """
    start_output(run.quiet, run.verbose, run.log_file)
    from rsqa.tasks.detect import gather_things
    from rsqa.tasks.task import Detect

    names, words = gather_things(objects or (), phrases or ())
    task = Detect(
        objects=names,
        phrases=words,
        threshold=threshold,
        count=count or areas is not None,
        areas="" if areas is None else str(areas.absolute()),
    )
    request = request_of(
        sources,
        read,
        model,
        run,
        task=task,
        out=out,
        tile_px=tile_px,
        overlap_px=tile_px // 4 if overlap is None else overlap,
        pyramid=pyramid,
    )
    carry_out(request, run, dry_run=dry_run)
