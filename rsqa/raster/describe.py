"""From a file's header to a `RasterSource`. Nothing here reads a pixel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import isfinite
from sys import intern

import numpy as np
import rasterio
from rasterio.enums import Interleaving, MaskFlags
from rasterio.io import DatasetReader

from rsqa.errors import InputError, SourceChanged, SourceRefused, UsageError
from rsqa.raster.bands import Masked, band_name, choose_bands, named_band
from rsqa.raster.gdal import GDAL_ERRORS, gdal_env, gdal_words, unplaced_unsaid
from rsqa.raster.grid import Layout
from rsqa.raster.ground import Transform, place
from rsqa.raster.opening import PICTURES, Opening, check_limits, inspect, whole_png
from rsqa.raster.source import BlockFacts, Level, MaskKind, RasterSource
from rsqa.raster.tiff import read_block_table

OPENERS = 8
"""Files whose headers are read at a time: on a network disk each is mostly waited for."""


def open_source(
    path: str, *, name: str, bands: tuple[str, ...] | None = None, masked: Masked | None = None, chips: bool = False
) -> RasterSource:
    """Describe a raster from its header.

    path: a local file, or a /vsi path that the user typed. name: how the run calls it. bands: what --bands said.
    chips: JPEG, PNG, WEBP and JPEG 2000 are taken, too, and what has no place on the ground.
    SourceMissing, or SourceRefused with the reason and what to do; UsageError when bands asked for are not there.
    """
    with unplaced_unsaid():
        return _open(path, name, bands, masked, chips)


def open_sources(
    files: Sequence[tuple[str, str]],
    bands: tuple[str, ...] | None,
    masked: Masked | None = None,
    *,
    chips: bool = True,
) -> Iterator[RasterSource | InputError | UsageError]:
    """`open_source` of many files, several at a time: (path, name) of each -> it, or why it is left out, in order."""

    def try_open(file: tuple[str, str]) -> RasterSource | InputError | UsageError:
        try:
            return _open(*file, bands, masked, chips)
        except (InputError, UsageError) as error:
            return error

    with unplaced_unsaid(), ThreadPoolExecutor(OPENERS) as pool:
        yield from pool.map(try_open, files)


def _open(path: str, name: str, bands: tuple[str, ...] | None, masked: Masked | None, chips: bool) -> RasterSource:
    opening = inspect(path, name)
    if opening.driver in PICTURES.values() and not chips:
        raise SourceRefused(
            f"{name!r} is a {opening.driver} picture, which has no place on the ground; rsqa classify and rsqa caption "
            "take it as it is, or write a GeoTIFF with a place: gdal_translate -a_srs EPSG:… -a_ullr …"
        )
    if opening.driver == "PNG" and not whole_png(opening.path):
        raise SourceRefused(f"{name!r} is a damaged PNG: a chunk is cut short or not as it was written; fetch it again")
    try:
        with (
            rasterio.Env(**gdal_env(sidecars=bool(opening.sidecars))),
            rasterio.open(opening.path, driver=opening.driver) as dataset,
        ):
            return _describe(dataset, opening, name, bands, masked, chips)
    except GDAL_ERRORS as error:
        raise SourceRefused(f"{name!r} can't be opened: {gdal_words(error, path, name)}") from error


def check_unchanged(source: RasterSource) -> None:
    """SourceChanged when the file is no longer the one that was described, or one of a mosaic's files is not."""
    for member in source.members:
        check_unchanged(member.source)
    if source.members:
        return
    try:
        found = inspect(source.path, source.name).fingerprint()
        if found is None:
            bands = tuple(map(str, source.bands))
            found = open_source(source.path, name=source.name, bands=bands, chips=True).fingerprint
    except InputError as error:
        raise SourceChanged(f"{source.name!r} was readable when the plan was made; now {error}") from error
    if found != source.fingerprint:
        raise SourceChanged(f"{source.name!r} is not the file that the plan was made for; --overwrite makes a new plan")


def _describe(
    dataset: DatasetReader,
    opening: Opening,
    name: str,
    wanted: tuple[str, ...] | None,
    masked: Masked | None,
    chips: bool,
) -> RasterSource:
    dtype = _checked_dtype(dataset, name)
    crs_wkt, transform, gsd_m = _place_if_any(dataset, name) if chips else place(dataset, name)
    colours = [colour.name for colour in dataset.colorinterp]
    try:
        mask_band = named_band("--mask-band", masked.band, colours, dataset.descriptions) if masked else None
        bands = choose_bands(colours, dataset.descriptions, wanted, mask_band)
    except ValueError as error:
        problem = f"{name!r}: {error}"
        raise (UsageError if wanted or masked else SourceRefused)(problem) from None
    mask, alpha_band, nodata = _validity(dataset, bands, dtype, name)
    return RasterSource(
        name=name,
        path=opening.path,
        driver=opening.driver,
        width=dataset.width,
        height=dataset.height,
        dtype=dtype,
        bands=bands,
        band_names=tuple(band_name(band, colours, dataset.descriptions) for band in bands),
        mask=mask,
        alpha_band=alpha_band,
        nodata=nodata,
        palette=len(bands) == 1 and colours[bands[0] - 1] == "palette",
        crs_wkt=intern(crs_wkt),  # files have few CRSs, each of kilobytes
        transform=transform,
        gsd_m=gsd_m,
        levels=_levels(dataset, opening)[: 1 if masked else None],  # overviews may hold averages of its numbers
        acquired=_acquired(dataset),
        fingerprint=opening.fingerprint() or _remote_fingerprint(dataset),
        sidecars=bool(opening.sidecars),
        blocks=_block_facts(opening),
        notes=opening.notes,
        mask_band=mask_band,
        mask_values=masked.values if masked else (),
    )


def _place_if_any(dataset: DatasetReader, name: str) -> tuple[str, Transform, float | None]:
    try:
        return place(dataset, name)
    except SourceRefused:
        return "", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), None


def _checked_dtype(dataset: DatasetReader, name: str) -> str:
    decoded_whole = dataset.driver in ("JPEG", "PNG", "WEBP")
    height, width = dataset.shape if decoded_whole else dataset.block_shapes[0]
    dtype = np.dtype(dataset.dtypes[0])
    planes = dataset.count if decoded_whole or dataset.interleaving is Interleaving.pixel else 1
    check_limits(name, dataset.count, dataset.width * dataset.height, height * width * planes * dtype.itemsize)
    if dtype.kind not in "uif" or len(set(dataset.dtypes)) > 1:
        types = ", ".join(sorted(set(dataset.dtypes)))
        raise SourceRefused(f"{name!r} holds {types} pixels; rsqa reads integer and floating point pixels of one type")
    return str(dtype)


def _validity(
    dataset: DatasetReader, bands: tuple[int, ...], dtype: str, name: str
) -> tuple[MaskKind, int | None, float | None]:
    """(kind of mask, alpha band, nodata value) of the bands that are read."""
    flags = dataset.mask_flag_enums[bands[0] - 1]
    if MaskFlags.alpha in flags:
        alpha = [colour.name for colour in dataset.colorinterp].index("alpha") + 1
        return "alpha", alpha, None
    if MaskFlags.nodata in flags:
        values = {repr(dataset.nodatavals[band - 1]) for band in bands}
        if len(values) > 1:
            raise SourceRefused(f"{name!r} has a nodata value per band: gdal_edit.py -a_nodata VALUE {name!r}")
        nodata = float(dataset.nodatavals[bands[0] - 1])
        return ("nodata", None, nodata) if _holds(dtype, nodata) else ("none", None, None)
    return ("mask" if MaskFlags.per_dataset in flags else "none"), None, None


def _holds(dtype: str, value: float) -> bool:
    """Can a pixel of that type have this value?"""
    if np.dtype(dtype).kind == "f":
        return True
    limits = np.iinfo(dtype)
    return isfinite(value) and value.is_integer() and limits.min <= value <= limits.max


def _levels(dataset: DatasetReader, opening: Opening) -> tuple[Level, ...]:
    """The picture and those overviews that are exactly ceil(size / factor) large."""
    levels = [Level(1, None, dataset.height, dataset.width, _layout(dataset))]
    for index in range(len(dataset.overviews(1))):
        with rasterio.open(opening.path, driver=opening.driver, overview_level=index) as overview:
            factor = round(max(dataset.shape) / max(overview.shape))
            exact = overview.shape == (-(-dataset.height // factor), -(-dataset.width // factor))
            if exact and factor > levels[-1].factor and overview.count == dataset.count:
                levels.append(Level(factor, index, overview.height, overview.width, _layout(overview)))
    return tuple(levels)


def _layout(dataset: DatasetReader) -> Layout:
    height, width = dataset.block_shapes[0]
    return Layout(height, width, dataset.interleaving is Interleaving.pixel, width >= dataset.width)


def _acquired(dataset: DatasetReader) -> datetime | None:
    """When the picture was taken, or at least written: never the file's own time."""
    tags = dataset.tags() | dataset.tags(ns="IMAGERY")
    for key in ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME"):
        found = re.match(r"\s*(\d{4})[:-](\d\d)[:-](\d\d)(?:[T ](\d\d):(\d\d):(\d\d))?", tags.get(key, ""))
        if found:
            try:
                year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
                return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            except ValueError:  # "0000:00:00 00:00:00" is how cameras say nothing
                continue
    return None


def _remote_fingerprint(dataset: DatasetReader) -> str:
    """sha256 over what the header of a /vsi file says, with the places of up to 4096 of its blocks."""
    rows, cols = (-(-size // side) for size, side in zip(dataset.shape, dataset.block_shapes[0], strict=True))
    blocks = (
        [divmod(i * rows * cols // 4096, cols) for i in range(4096)] if rows * cols > 4096 else np.ndindex(rows, cols)
    )
    facts = (
        dataset.shape,
        dataset.count,
        dataset.dtypes,
        dataset.block_shapes,
        tuple(dataset.transform),
        dataset.nodatavals,
        sorted(dataset.tags().items()),
        [
            [dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1) for what in ("OFFSET", "SIZE")]
            for row, col in blocks
        ],
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _block_facts(opening: Opening) -> BlockFacts | None:
    if opening.driver != "GTiff" or not opening.pictures:
        return None
    table = read_block_table(*opening.pictures[0])
    if table is None:
        return None
    counts = (int(np.count_nonzero(flags)) for flags in (table.past_end, table.sparse, table.odd))
    return BlockFacts(table.offsets.size, *counts)
