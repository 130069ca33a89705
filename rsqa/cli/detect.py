"""`rsqa detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output

_THINGS = "Things"


def detect(
    sources: opt.Sources,
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
            help="Look for a thing only in tiles where it is at least this likely; that is the score of its boxes.",
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
    asset: opt.Asset = None,
    mosaic: opt.Mosaic = False,
    aoi: opt.Aoi = None,
    bands: opt.Bands = None,
    mask_band: opt.MaskBand = None,
    mask_values: opt.MaskValues = None,
    tile_px: opt.WindowPx = 448,
    overlap: opt.Overlap = None,
    pyramid: opt.Pyramid = False,
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
    """Find objects in a raster: a polygon on the ground for each, once however many tiles see it.

    A run that was stopped is continued by the same command.
    """
    start_output(quiet, verbose, log_file)
    from rsqa.tasks.detect import gather_things
    from rsqa.tasks.task import Detect

    names, words = gather_things(objects or (), phrases or ())
    from rsqa.run.request import Request  # takes seconds: a typo is told before

    request = Request(
        sources=tuple(sources),
        task=Detect(
            objects=names,
            phrases=words,
            threshold=threshold,
            count=count or areas is not None,
            areas="" if areas is None else str(areas.absolute()),
        ),
        out=out,
        asset=asset,
        mosaic=mosaic,
        aoi=aoi,
        bands=bands,
        mask_band=mask_band,
        mask_values=mask_values,
        tile_px=tile_px,
        overlap_px=tile_px // 4 if overlap is None else overlap,
        pyramid=pyramid,
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
