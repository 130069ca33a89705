"""From the files and the area that a request names to sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import filterfalse

from rsqa.errors import InputError, SourceMissing, SourceRefused, UsageError
from rsqa.raster.addresses import shown
from rsqa.raster.area import Area, touched_tiles
from rsqa.raster.bands import Masked, asked_mask
from rsqa.raster.chosen import count
from rsqa.raster.describe import open_source, open_sources
from rsqa.raster.folders import Listing, absolute, common_folder, expand, gather
from rsqa.raster.mosaic import join
from rsqa.raster.source import RasterSource
from rsqa.raster.stac import Dated, Named, is_stac, resolved
from rsqa.raster.stac_search import is_search
from rsqa.raster.tile_index import is_tile_index, open_index
from rsqa.run.plan import PlannedSource
from rsqa.run.request import Request
from rsqa.run.searches import Searches, search_key

Bands = tuple[str, ...] | None
"""What --bands said."""
TIFFS = (".tif", ".tiff")
"""What a mosaic takes from a folder: quick-looks often lie there too."""


def listed(request: Request, area: Area | None) -> tuple[Listing, Searches]:
    """The files that are asked for, and what searches found: the same as when the plan in the folder was made."""
    bounds = None if area is None else area.bounds
    known = _known(request)
    searches: dict[str, Named] = {}
    found: list[Named] = []
    notes: list[str] = []
    for argument in request.sources:
        key = search_key(argument, request.asset, bounds)
        if not is_stac(argument):
            found.append(Named((Dated(argument, None),)))
        elif key in known:
            found.append(known[key])
            notes.append(f"{shown(argument)!r} is not searched again: the plan in this folder has what it found")
        else:
            found.append(resolved(argument, request.asset, bounds))
        if is_search(argument):
            searches[key] = found[-1]
    if request.asset is not None and not any(map(is_stac, request.sources)):
        raise UsageError(f"--asset {request.asset!r} asked, but no source is STAC (.json, .parquet or a search)")
    listing = _listing(request, [one for named in found for one in named.rasters])
    failed = tuple(one for named in found for one in named.failed)
    return replace(listing, notes=(*notes, *listing.notes), failed=failed), searches


def _known(request: Request) -> Searches:
    """What searches found for the plan that is in the folder, if it is to be followed."""
    return request.place.searches() if any(map(is_search, request.sources)) and not request.overwrite else {}


def _listing(request: Request, named: Sequence[Dated]) -> Listing:
    arguments = [one.argument for one in named]
    if request.mosaic:
        listing = gather(arguments, request.include, request.exclude, TIFFS)
    elif request.task.chips:
        listing = gather(arguments, request.include, request.exclude)
    else:
        listing = Listing(tuple(expand(arguments)))
    acquired = {absolute(one.argument): one.acquired for one in named if one.acquired}
    return replace(listing, acquired=acquired)


def opened_sources(request: Request, listing: Listing) -> tuple[list[RasterSource], list[tuple[str, InputError]]]:
    """-> the sources that can be read, and (name, why) of the others.

    Raises what is wrong with a file of a mosaic: without it there would be a hole that nobody asked for.
    """
    bands = tuple(request.bands.split(",")) if request.bands else None
    mask = asked_mask(request.mask_band, request.mask_values)
    missing: list[tuple[str, InputError]] = [(name, SourceMissing(why)) for name, why in listing.failed]
    if request.mosaic:
        if missing:
            raise missing[0][1]
        return [_joined(request, listing, bands, mask)], []
    read = _opened_chips if request.task.chips else _opened_rasters
    opened, failed = read(request, listing, bands, mask)
    for path, name in filter(_is_index, listing.files):
        try:
            opened.append(open_index(path, name, bands, mask))
        except InputError as error:
            failed.append((name, error))
    return opened, missing + failed


def _is_index(file: tuple[str, str]) -> bool:
    return is_tile_index(file[0])


def _joined(request: Request, listing: Listing, bands: Bands, mask: Masked | None) -> RasterSource:
    for _, name in filter(_is_index, listing.files):
        raise UsageError(f"--mosaic asked of {name!r}, a tile index, which is one source already; ask without")
    opened = []
    for file in open_sources(listing.files, bands, mask, chips=False):
        if not isinstance(file, RasterSource):
            raise file
        opened.append(_dated(file, listing))
    return join(opened, common_folder(request.sources))


def _opened_chips(
    request: Request, listing: Listing, bands: Bands, mask: Masked | None
) -> tuple[list[RasterSource], list[tuple[str, InputError]]]:
    opened: list[RasterSource] = []
    failed: list[tuple[str, InputError]] = []
    files = list(filterfalse(_is_index, listing.files))
    for (_, name), found in zip(files, open_sources(files, bands, mask), strict=True):
        if isinstance(found, RasterSource) and not found.placed and (unmet := _needs_place(request)):
            found = SourceRefused(f"{name!r} has no place on the ground, so {unmet} can't be met; leave it out")
        if isinstance(found, RasterSource):
            opened.append(_dated(found, listing))
        else:  # also where --bands does not fit: one such file is no reason to give up the folder
            failed.append((name, found if isinstance(found, InputError) else SourceRefused(str(found))))
    return opened, failed


def _opened_rasters(
    request: Request, listing: Listing, bands: Bands, mask: Masked | None
) -> tuple[list[RasterSource], list[tuple[str, InputError]]]:
    opened: list[RasterSource] = []
    failed: list[tuple[str, InputError]] = []
    for path, name in filterfalse(_is_index, listing.files):
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
