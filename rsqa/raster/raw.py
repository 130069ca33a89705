"""Raw pixels and their validity, through one dataset handle per thread."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from rsqa.errors import SourceChanged
from rsqa.raster.gdal import GDAL_ERRORS, gdal_words, unplaced_unsaid
from rsqa.raster.grid import Window
from rsqa.raster.pages import zeros
from rsqa.raster.source import RasterSource
from rsqa.raster.tiff import BlockTable, read_block_table, read_directories

MAX_HANDLES = 4
"""Open files of a thread: a part of many small sources must not keep them all."""
_OVERVIEW, _MASK = 0b001, 0b100
"""Bits of TIFF's NewSubfileType."""


@dataclass(frozen=True, slots=True, eq=False)
class RawPixels:
    """What a file holds in a window."""

    pixels: NDArray[Any]
    """(C, H, W) in the file's type; C = 3 colours, or 1 grey or palette index."""
    valid: NDArray[np.bool_] | None
    """(H, W); None when all pixels are valid."""


class _Handles(threading.local):
    """The open datasets of one thread, least recently used first."""

    def __init__(self) -> None:
        self.opened: OrderedDict[tuple[str, str, int], tuple[DatasetReader, tuple[int, ...]]] = OrderedDict()

    def get(self, source: RasterSource, factor: int) -> DatasetReader:
        """The thread's handle; SourceChanged when the file was replaced or written since it was opened."""
        key = (source.path, source.fingerprint, factor)
        state = _file_state(source)
        if key not in self.opened:
            overview = source.level(factor).overview
            level = {} if overview is None else {"overview_level": overview}
            try:
                with nullcontext() if source.placed else unplaced_unsaid():
                    self.opened[key] = rasterio.open(source.path, driver=source.driver, **level), state
            except GDAL_ERRORS as error:
                reason = gdal_words(error, source.path, source.name)
                raise SourceChanged(f"{source.name!r} can no longer be opened: {reason}") from error
            if len(self.opened) > MAX_HANDLES:
                self.opened.popitem(last=False)[1][0].close()
        self.opened.move_to_end(key)
        dataset, opened_state = self.opened[key]
        if state != opened_state:
            self.drop(source)
            raise SourceChanged(f"{source.name!r} was written to while it was read; run again")
        return dataset

    def drop(self, source: RasterSource) -> None:
        """Close the thread's handles of a source, and with them what GDAL remembers of failed reads."""
        for key in [key for key in self.opened if key[:2] == (source.path, source.fingerprint)]:
            self.opened.pop(key)[0].close()


_HANDLES = _Handles()


def _file_state(source: RasterSource) -> tuple[int, ...]:
    """What changes when a local file is replaced or written; empty for a /vsi path."""
    if source.path.startswith("/vsi"):
        return ()
    try:
        found = os.stat(source.path)
    except OSError as error:
        raise SourceChanged(f"{source.name!r} is gone: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def reopen(source: RasterSource) -> None:
    """Forget this thread's handles of a source; the next read opens the file anew."""
    _HANDLES.drop(source)


def read_raw(source: RasterSource, window: Window, factor: int) -> RawPixels | None:
    """Read a window, in pixels of the level `factor`; None where the file's mask says that nothing is valid: then no
    colour is decoded. Call it inside rasterio.Env(**gdal_env(...)).

    Raises what rasterio raises when a file block can't be decoded, SourceChanged when the file is another one or gone.
    """
    dataset = _HANDLES.get(source, factor)
    area = rasterio.windows.Window(window.col, window.row, window.width, window.height)  # columns first
    indexes = [*source.bands, *(band for band in (source.alpha_band, source.mask_band) if band is not None)]
    flags: list[NDArray[np.bool_]] = []
    if source.mask == "mask":
        flags.append(dataset.read_masks(source.bands[0], window=area) != 0)
        if not flags[0].any():
            return None
    pixels = dataset.read(indexes, out=zeros((len(indexes), window.height, window.width), source.dtype), window=area)
    if source.mask_band is not None:
        flags.append(~np.isin(pixels[-1], source.mask_values))
    if source.alpha_band is not None:
        flags.append(pixels[len(source.bands)] != 0)
    pixels = pixels[: len(source.bands)]
    if source.nodata is not None:
        flags.append(_differs(pixels, source.nodata))
    if pixels.dtype.kind == "f":
        flags += [np.isfinite(band) for band in pixels]
    if not flags:
        return RawPixels(pixels, None)
    valid = flags[0]
    for flag in flags[1:]:
        valid &= flag
    return RawPixels(pixels, None if valid.all() else valid)


def _differs(pixels: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """(C, H, W) -> (H, W): pixels of which at least one band is not nodata, as GDAL's dataset mask has it."""
    with np.errstate(over="ignore"):  # a nodata value written as a double may lie past float32's end
        value = np.array(nodata).astype(pixels.dtype)
    differs = np.zeros(pixels.shape[1:], bool)
    for band in pixels:
        differs |= ~np.isnan(band) if np.isnan(nodata) else band != value
    return differs


def palette(source: RasterSource) -> NDArray[np.uint8]:
    """(n, 3) red, green, blue of each index. Call it inside rasterio.Env(**gdal_env(...))."""
    colours = _HANDLES.get(source, 1).colormap(source.bands[0])
    table = np.zeros((np.iinfo(source.dtype).max + 1, 3), np.uint8)
    for index, rgba in colours.items():  # TIFF palettes have no transparency; nodata does that
        table[index] = rgba[:3]
    return table


def block_table(source: RasterSource, factor: int) -> BlockTable | None:
    """Where a level's file blocks lie, of the bands that are shown and then of those that say what is valid.

    None for VRT, /vsi and files without a table.
    """
    if source.blocks is None:
        return None
    level = source.level(factor)
    try:
        table = _block_table(source.path, source.fingerprint, factor > 1, (level.height, level.width), source.sidecars)
    except (OSError, ValueError) as error:  # it had a table when it was described
        raise SourceChanged(f"{source.name!r} is gone or was replaced: {error}") from error
    if table is None or len(table.offsets) == 1:
        return table
    others = [band for band in (source.mask_band, source.alpha_band) if band is not None]
    planes = [band - 1 for band in (*source.bands, *others)]
    return replace(table, offsets=table.offsets[planes], counts=table.counts[planes])


def mask_table(source: RasterSource, factor: int) -> BlockTable | None:
    """Where the file blocks of a level's mask image lie, inside the file or beside it; None when that can't be told."""
    level = source.level(factor)
    beside = [path for ending in (".ovr", ".msk") if os.path.isfile(path := source.path + ending)]
    try:
        for file in [source.path, *(beside if source.sidecars else [])]:
            for directory in read_directories(file):
                masks = file.endswith(".msk") or directory.subfile & _MASK
                if masks and (directory.height, directory.width) == (level.height, level.width):
                    return read_block_table(file, directory)
    except (OSError, ValueError) as error:
        raise SourceChanged(f"{source.name!r} is gone or was replaced: {error}") from error
    return None


@lru_cache(maxsize=8)
def _block_table(
    path: str, fingerprint: str, overview: bool, shape: tuple[int, int], sidecars: bool
) -> BlockTable | None:
    """`fingerprint` is here for the cache only: another file under the same name has another table."""
    if not overview:
        return read_block_table(path, read_directories(path)[0])
    for file in [path, path + ".ovr"] if sidecars and os.path.isfile(path + ".ovr") else [path]:
        for directory in read_directories(file):
            if directory.subfile & (_OVERVIEW | _MASK) == _OVERVIEW and (directory.height, directory.width) == shape:
                return read_block_table(file, directory)
    return None
