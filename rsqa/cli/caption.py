"""`rsqa caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.ask import carry_out
from rsqa.cli.output import start_output


def caption(
    sources: opt.Chips,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also count which descriptions and words are most frequent.")
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
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    scheduler: opt.Scheduler = None,
    dashboard: opt.Dashboard = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
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
    """Describe every picture of a folder, or every tile of a mosaic, in the words that the model was taught.

    A run that was stopped is continued by the same command.
    """
    start_output(quiet, verbose, log_file)
    from rsqa.run.request import Request
    from rsqa.tasks.task import Caption

    request = Request(
        sources=tuple(sources),
        task=Caption(summary=summary),
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
        batch_size=batch_size,
        workers=workers,
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        retry_errors=retry_errors,
        max_duration_s=max_duration,
        allow_mixed=allow_mixed,
        part_tiles=part_tiles,
    )
    carry_out(request, dry_run=dry_run, as_json=json, quiet=quiet, no_progress=no_progress, dashboard=dashboard)
