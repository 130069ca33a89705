"""One raster, described by its header: where it lies, how it is stored. Nothing here reads a pixel."""

from __future__ import annotations

import hashlib
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from rsqa.errors import InputError, SourceChanged, SourceRefused, UsageError
from rsqa.raster.bands import Masked, band_name, choose_bands, named_band
from rsqa.raster.grid import Layout, Window
from rsqa.raster.ground import Transform, ground_rings, place
from rsqa.raster.opening import PICTURES, Opening, check_limits, inspect, whole_png
from rsqa.raster.tiff import read_block_table

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Everything that a failing read or open of rasterio raises."""

OPENERS = 8
"""Files whose headers are read at a time: on a network disk each is mostly waited for."""
_FILTERING = threading.Lock()

MaskKind = Literal["none", "nodata", "alpha", "mask"]


@dataclass(frozen=True, slots=True)
class Level:
    """The picture itself (factor 1) or one of its overviews."""

    factor: int
    """Source pixels per pixel of this level, along one side."""
    overview: int | None
    """rasterio's overview_level; None for the picture itself."""
    height: int
    """ceil(source height / factor)."""
    width: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What the block table says before anything is decoded. Counts of file blocks."""

    blocks: int
    past_end: int
    """Lie past the end of the file: it is truncated."""
    sparse: int
    """Declared absent; read as nodata."""
    odd: int
    """Have an offset without a size or a size without an offset."""


@dataclass(frozen=True, slots=True)
class RasterSource:
    """A raster that can be read; only chips may lack a place on the ground."""

    name: str
    """Relative to the argument it came from, forward slashes; unique in a run."""
    path: str
    """What is opened: absolute, or a /vsi path."""
    driver: str
    """GDAL's, the only one that may open it."""
    width: int
    """Pixels."""
    height: int
    dtype: str
    bands: tuple[int, ...]
    """1-based, one (grey or palette) or three (red, green, blue)."""
    band_names: tuple[str, ...]
    mask: MaskKind
    """Where validity comes from; "mask" is a mask image, inside the file or beside it."""
    alpha_band: int | None
    nodata: float | None
    palette: bool
    crs_wkt: str
    """Empty without a place on the ground; then the transform is that of pixels."""
    transform: Transform
    gsd_m: float | None
    """Ground metres per pixel in the middle of the raster; None without a place."""
    levels: tuple[Level, ...]
    """The picture itself first, then its overviews from fine to coarse."""
    acquired: datetime | None
    """UTC, from the file's tags."""
    fingerprint: str
    """sha256 over header, block table, file size and samples of the file."""
    sidecars: bool
    """Masks and overviews beside the file are honoured: each of them is a TIFF itself."""
    blocks: BlockFacts | None
    """None where there is no block table to look at (VRT, /vsi)."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read."""
    mask_band: int | None = None
    """1-based; pixels in which it has one of `mask_values` are not valid."""
    mask_values: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()
    """The files of a mosaic, the first of two that overlap above the other; then `path` and `driver` are empty, and
    masks and nodata are those of each file."""

    @property
    def placed(self) -> bool:
        """Whether it lies somewhere on the ground."""
        return bool(self.crs_wkt)

    @property
    def layout(self) -> Layout:
        """How the picture itself is stored."""
        return self.levels[0].layout

    @property
    def overviews(self) -> tuple[int, ...]:
        """Factors of the overviews."""
        return tuple(level.factor for level in self.levels[1:])

    def level(self, factor: int) -> Level:
        """The level with that factor; KeyError when there is none."""
        for level in self.levels:
            if level.factor == factor:
                return level
        raise KeyError(f"{self.name} has no overview with factor {factor}")

    @property
    def bytes_per_px(self) -> int:
        """Raw bytes that one pixel costs when it is read, its mask included."""
        if self.members:
            return max(member.source.bytes_per_px for member in self.members)
        n_bands = len(self.bands) + (self.alpha_band is not None) + (self.mask_band is not None)
        return np.dtype(self.dtype).itemsize * n_bands + (self.mask == "mask")

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps; NaN as text."""
        values = asdict(replace(self, members=()))
        values["acquired"] = self.acquired.isoformat() if self.acquired else None
        values["nodata"] = None if self.nodata is None else repr(self.nodata)
        values["members"] = [{"row": m.row, "col": m.col, **m.source.to_json()} for m in self.members]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RasterSource:
        """The inverse of to_json."""
        return cls(
            **values
            | {
                "bands": tuple(values["bands"]),
                "band_names": tuple(values["band_names"]),
                "nodata": None if values["nodata"] is None else float(values["nodata"]),
                "transform": tuple(values["transform"]),
                "levels": tuple(Level(**level | {"layout": Layout(**level["layout"])}) for level in values["levels"]),
                "acquired": datetime.fromisoformat(values["acquired"]) if values["acquired"] else None,
                "blocks": BlockFacts(**values["blocks"]) if values["blocks"] else None,
                "notes": tuple(values["notes"]),
                "mask_values": tuple(values["mask_values"]),
                "members": tuple(map(Member.from_json, values.get("members", ()))),
            }
        )


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a mosaic, and where it lies."""

    row: int
    """Of the mosaic's pixels, that of the file's upper left one."""
    col: int
    source: RasterSource

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Member:
        """From what `RasterSource.to_json` makes of it."""
        own = {name: value for name, value in values.items() if name not in ("row", "col")}
        return cls(values["row"], values["col"], RasterSource.from_json(own))


def gdal_env(*, sidecars: bool) -> dict[str, Any]:
    """Options of rasterio.Env for every open and read; they hold per thread, so each thread enters its own Env.

    sidecars: let GDAL look for masks, overviews and world files beside the file.
    """
    return {
        "GDAL_CACHEMAX": 16 << 20,  # bytes; file blocks up to this size that reads share are decoded once
        "GDAL_PAM_ENABLED": "NO",  # no .aux.xml: it can move a raster to another place
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR",
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_NUM_THREADS": "1",  # rsqa's own slots are the parallelism; with threads GDAL's retries fail (gdal#11552)
        "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # else what is missing of a picture that was cut short is grey
        "PROJ_NETWORK": "OFF",
        "GDAL_HTTP_MAX_RETRY": "3",
        "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, twice as long each time; by default minutes pass before GDAL gives up
        "GDAL_HTTP_RETRY_CODES": "ALL",
        "GDAL_HTTP_CONNECTTIMEOUT": "10",
        "GDAL_HTTP_LOW_SPEED_TIME": "20",  # a server that says nothing for so long is asked again
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_MULTIRANGE": "SERIAL",
        "GDAL_HTTP_TIMEOUT": "60",
        "VSI_CACHE": "TRUE",
    }


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


@contextmanager
def unplaced_unsaid() -> Iterator[None]:
    """Let rasterio open what has no place on the ground without a warning: who opens it says more about it.

    Python's filters of warnings are one list for all threads, so one thread at a time is in here.
    """
    with _FILTERING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


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


def gdal_words(error: Exception, path: str, name: str) -> str:
    """What GDAL says of a file, in one line; a URL, which may hold a secret, is called by the file's name."""
    words = " ".join(str(error).split())
    if path.startswith("/vsi"):
        words = words.replace(path, name).replace(path.removeprefix("/vsicurl/"), name)
    return words


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
        crs_wkt=crs_wkt,
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


def damage(source: RasterSource) -> str | None:
    """What the block table says is broken, for people; None when nothing is."""
    facts = source.blocks
    if facts is None or not (facts.past_end or facts.odd):
        return None
    parts = []
    if facts.past_end:
        parts.append(f"{facts.past_end} of {facts.blocks} blocks lie past the end of the file (it is truncated)")
    if facts.odd:
        parts.append(f"{facts.odd} of {facts.blocks} blocks have a place but no size")
    return f"{source.name!r}: " + " and ".join(parts)


def footprint(source: RasterSource, windows: Sequence[Window]) -> NDArray[np.float64]:
    """Ground polygons of windows in the source's CRS.

    (N, 5, 2) closed rings of x, y, counter-clockwise on the ground, exact also for rotated and south-up rasters.
    """
    sides = np.array([(w.col, w.row, w.col_end, w.row_end) for w in windows], dtype=np.float64).reshape(-1, 4)
    left, top, right, bottom = sides.T
    cols, rows = np.stack([left, left, right, right], axis=1), np.stack([top, bottom, bottom, top], axis=1)
    return ground_rings(np.stack([cols, rows], axis=2), source.transform)
