"""From the files and the area that a request names to sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rsqa.errors import InputError, SourceRefused
from rsqa.raster.area import Area, touched_tiles
from rsqa.raster.bands import asked_mask
from rsqa.raster.chosen import count
from rsqa.raster.describe import open_source, open_sources
from rsqa.raster.folders import Listing, absolute, common_folder, expand, gather
from rsqa.raster.mosaic import join
from rsqa.raster.source import RasterSource
from rsqa.raster.stac import resolved
from rsqa.run.plan import PlannedSource
from rsqa.run.request import Request

TIFFS = (".tif", ".tiff")
"""What a mosaic takes from a folder: quick-looks often lie there too."""


def listed(request: Request) -> Listing:
    """The files that are asked for."""
    named = resolved(request.sources, request.asset)
    arguments = [one.argument for one in named]
    if request.mosaic:
        listing = gather(arguments, request.include, request.exclude, TIFFS)
    elif request.task.chips:
        listing = gather(arguments, request.include, request.exclude)
    else:
        listing = Listing(tuple(expand(arguments)))
    return replace(listing, acquired={absolute(one.argument): one.acquired for one in named if one.acquired})


def opened_sources(request: Request, listing: Listing) -> tuple[list[RasterSource], list[tuple[str, InputError]]]:
    """-> the sources that can be read, and (name, why) of the others.

    Raises what is wrong with a file of a mosaic: without it there would be a hole that nobody asked for.
    """
    bands = tuple(request.bands.split(",")) if request.bands else None
    mask = asked_mask(request.mask_band, request.mask_values)
    opened: list[RasterSource] = []
    failed: list[tuple[str, InputError]] = []
    if request.mosaic:
        for file in open_sources(listing.files, bands, mask, chips=False):
            if not isinstance(file, RasterSource):
                raise file
            opened.append(_dated(file, listing))
        opened = [join(opened, common_folder(request.sources))]
    elif request.task.chips:
        for (_, name), found in zip(listing.files, open_sources(listing.files, bands, mask), strict=True):
            if isinstance(found, RasterSource) and not found.placed and (unmet := _needs_place(request)):
                found = SourceRefused(f"{name!r} has no place on the ground, so {unmet} can't be met; leave it out")
            if isinstance(found, RasterSource):
                opened.append(_dated(found, listing))
            else:  # also where --bands does not fit: one such file is no reason to give up the folder
                failed.append((name, found if isinstance(found, InputError) else SourceRefused(str(found))))
    else:
        for path, name in listing.files:
            try:
                opened.append(_dated(open_source(path, name=name, bands=bands, masked=mask), listing))
            except InputError as error:
                failed.append((name, error))
    return opened, failed


def _dated(source: RasterSource, listing: Listing) -> RasterSource:
    return replace(source, acquired=listing.acquired.get(source.path, source.acquired))


def _needs_place(request: Request) -> str | None:
    """What was asked that a source without a place on the ground can't have."""
    return "--gsd" if request.gsd_m is not None else "--aoi" if request.aoi is not None else None


def within(area: Area, planned: Sequence[PlannedSource]) -> list[PlannedSource]:
    """What the area touches of each source; SourceRefused when it touches none."""
    chosen = ((p, touched_tiles(area, p.source, p.tile_px)) for p in planned)
    kept = [replace(p, chosen=None if count(runs) == len(p.grid) else runs) for p, runs in chosen if runs]
    if not kept:
        raise SourceRefused(f"--aoi {area.path!r} touches none of {len(planned):,} sources; is it of another place?")
    return kept


def beside(opened: Sequence[RasterSource], planned: Sequence[PlannedSource]) -> list[str]:
    """A sentence about the sources that the area does not touch."""
    n_beside = len(opened) - len(planned)
    return [f"outside of --aoi, so not asked: {n_beside:,} of {len(opened):,} sources"] if n_beside else []
