"""`rsqa classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output

_LABELS = "Labels"


def classify(
    sources: opt.Chips,
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
    asset: opt.Asset = None,
    mosaic: opt.Mosaic = False,
    aoi: opt.Aoi = None,
    bands: opt.Bands = None,
    mask_band: opt.MaskBand = None,
    mask_values: opt.MaskValues = None,
    tile_px: opt.ChipPx = None,
    gsd: opt.Gsd = None,
    scale: opt.Scale = "auto",
    min_valid: opt.MinValid = 0.5,
    model: opt.Model = None,
    card: opt.Card = None,
    adapter: opt.Adapter = None,
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
    """Give every picture of a folder, or every tile of a mosaic, one label of a list.

    A run that was stopped is continued by the same command.
    """
    start_output(quiet, verbose, log_file)
    from rsqa.tasks.labels import class_questions, gather_labels
    from rsqa.tasks.task import Classify

    questions = class_questions(gather_labels(labels, labels_file, scheme), prompt or ())
    from rsqa.run.request import Request  # takes seconds: a typo is told before

    request = Request(
        sources=tuple(sources),
        questions=questions,
        task=Classify(top_k=top_k, abstain=abstain, dissolve=dissolve, cog=cog),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
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
        card=card,
        adapter=adapter,
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
