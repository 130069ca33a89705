"""Several files on one grid as one source, and windows of any source, across the borders of its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rsqa.errors import SourceRefused
from rsqa.raster.gdal import gdal_env
from rsqa.raster.grid import Window
from rsqa.raster.ground import Transform, ground_gsd
from rsqa.raster.opening import check_limits
from rsqa.raster.pages import zeros
from rsqa.raster.raw import RawPixels, block_table, read_raw, reopen
from rsqa.raster.source import Level, Member, RasterSource, damage

PHASE_PX = 0.01
"""How far, in pixels, a file's corners may lie beside the grid of the first one: transforms are often rounded."""


def join(files: Sequence[RasterSource], name: str) -> RasterSource:
    """One source of files that share CRS, pixels and grid; where two overlap, the first one lies above the other.

    SourceRefused names a file that does not fit to the first one, and why.
    """
    first = files[0]
    corners = [_corner(first, _checked(first, file)) for file in files]
    row0, col0 = (min(starts) for starts in zip(*corners, strict=True))
    members = tuple(
        Member(row - row0, col - col0, replace(file, crs_wkt=first.crs_wkt))
        for (row, col), file in zip(corners, files, strict=True)
    )
    height = max(member.row + member.source.height for member in members)
    width = max(member.col + member.source.width for member in members)
    check_limits(name, len(first.bands), height * width, 0)
    transform = _transform(members, first, row0, col0)
    acquired = {file.acquired for file in files}
    content = [(member.row, member.col, member.source.fingerprint) for member in members]
    notes = [note for file in files for note in (*file.notes, damage(file)) if note]
    return replace(
        first,
        name=name,
        path="",
        driver="",
        width=width,
        height=height,
        mask="none",
        alpha_band=None,
        nodata=None,
        transform=transform,
        gsd_m=ground_gsd(first.crs_wkt, transform, width, height),
        levels=tuple(_levels(members, height, width)),
        acquired=acquired.pop() if len(acquired) == 1 else None,
        fingerprint=sha256(repr(content).encode()).hexdigest(),
        sidecars=False,
        blocks=None,
        notes=tuple(notes),
        members=members,
    )


def _checked(first: RasterSource, file: RasterSource) -> RasterSource:
    """The file, if it can lie beside the first one."""
    if file.palette:
        raise SourceRefused(f"{file.name!r} has a palette, which a mosaic can't have; gdal_translate -expand rgb first")
    if file.crs_wkt != first.crs_wkt and pyproj.CRS(file.crs_wkt) != pyproj.CRS(first.crs_wkt):
        raise SourceRefused(
            f"{file.name!r} has another CRS than {first.name!r}, a mosaic wants one; ask each file, or gdalwarp -t_srs"
        )
    ours, theirs = (f"{len(source.bands)} bands of {source.dtype}" for source in (first, file))
    if ours != theirs:
        raise SourceRefused(f"{file.name!r} shows {theirs}, {first.name!r} {ours}; a mosaic wants files that are alike")
    return file


def _corner(first: RasterSource, file: RasterSource) -> tuple[int, int]:
    """(row, col) of a file's upper left pixel, counted in pixels from that of the first file."""
    to_first = ~Affine(*first.transform) @ Affine(*file.transform)
    corners = np.array([(0, 0), (file.width, 0), (0, file.height)], np.float64)
    placed = np.array([to_first @ tuple(corner) for corner in corners])
    col, row = np.rint(placed[0])
    beside = float(np.abs(placed - corners - (col, row)).max())
    if not beside <= PHASE_PX:
        raise SourceRefused(
            f"pixels of {file.name!r} lie up to {beside:.3g} px beside the grid of {first.name!r}, a mosaic wants one "
            "grid; ask each file, or gdalwarp -tr … -tap"
        )
    return int(row), int(col)


def _transform(members: Sequence[Member], first: RasterSource, row0: int, col0: int) -> Transform:
    """That of the file in the upper left corner to the last bit, if there is one there."""
    for member in members:
        if (member.row, member.col) == (0, 0):
            return member.source.transform
    a, b, c, d, e, f = tuple(Affine(*first.transform) @ Affine.translation(col0, row0))[:6]
    return a, b, c, d, e, f


def _levels(members: Sequence[Member], height: int, width: int) -> Iterator[Level]:
    """The picture, and those overviews that all files have and whose pixels do not cross a border between files."""
    for level in members[0].source.levels:
        factor = level.factor
        if all(factor in (1, *m.source.overviews) and _fits(m, factor, height, width) for m in members):
            layout = replace(level.layout, striped=level.layout.block_width >= width)
            yield Level(factor, None, -(-height // factor), -(-width // factor), layout)


def _fits(member: Member, factor: int, height: int, width: int) -> bool:
    bottom, right = member.row + member.source.height, member.col + member.source.width
    return (
        member.row % factor == member.col % factor == 0
        and (bottom % factor == 0 or bottom == height)
        and (right % factor == 0 or right == width)
    )


def files_under(source: RasterSource, window: Window) -> list[RasterSource]:
    """The files that a window of a source touches: itself, or some of a mosaic's."""
    return [file for file, _, _ in _pieces(source, window, 1)]


def _pieces(source: RasterSource, window: Window, factor: int) -> Iterator[tuple[RasterSource, Window, Window]]:
    """(file, the part of it that is wanted, the same pixels counted from the window's corner) of each file touched."""
    if not source.members:
        yield source, window, window.within(window)
    for member in source.members:
        level = member.source.level(factor)
        top, left = member.row // factor, member.col // factor
        row, row_end = max(window.row, top), min(window.row_end, top + level.height)
        col, col_end = max(window.col, left), min(window.col_end, left + level.width)
        if row < row_end and col < col_end:
            shared = Window(row, col, row_end - row, col_end - col)
            yield member.source, replace(shared, row=row - top, col=col - left), shared.within(window)


def touched_blocks(source: RasterSource, n_rows: int, n_cols: int) -> list[int]:
    """Numbers of a mosaic's file blocks, row by row, as if it were one file, that hold something of its files."""
    touched = np.zeros((n_rows, n_cols), bool)
    height, width = source.layout.block_height, source.layout.block_width
    for member in source.members:
        bottom, right = member.row + member.source.height, member.col + member.source.width
        touched[member.row // height : -(-bottom // height), member.col // width : -(-right // width)] = True
    numbers: list[int] = np.flatnonzero(touched).tolist()
    return numbers


def reopen_files(source: RasterSource) -> None:
    """Forget this thread's handles of all files of a source."""
    for file in [member.source for member in source.members] or [source]:
        reopen(file)


def odd_blocks(source: RasterSource, window: Window, factor: int) -> bool:
    """Whether a window touches a block that has a place without a size: GDAL reads zeros there and says nothing."""
    for file, wanted, _ in _pieces(source, window, factor):
        table = block_table(file, factor)
        if table is not None and table.touched(wanted).odd.any():
            return True
    return False


def read_window(source: RasterSource, window: Window, factor: int) -> RawPixels | None:
    """Raw pixels, in pixels of the level `factor`; those of absent file blocks, and between files, are invalid.

    None when all are absent or masked: no colour is decoded. Call it inside rasterio.Env(**gdal_env(...)).
    Raises what `read_raw` raises.
    """
    if not source.members:
        return _read_file(source, window, factor)
    frame: tuple[NDArray[np.generic], NDArray[np.bool_]] | None = None
    for file, wanted, there in _pieces(source, window, factor):
        if frame is not None and frame[1][there.slices].all():
            continue  # a file above it shows all of this
        with rasterio.Env(**gdal_env(sidecars=file.sidecars)):
            raw = _read_file(file, wanted, factor)
        if raw is None:
            continue
        if raw.valid is None and (there.height, there.width) == (window.height, window.width) and frame is None:
            return raw
        if frame is None:
            shape = window.height, window.width
            frame = zeros((len(raw.pixels), *shape), source.dtype), np.zeros(shape, bool)
        _lay_under(raw, frame[0][:, *there.slices], frame[1][there.slices])
    if frame is None:
        return None
    pixels, valid = frame
    return RawPixels(pixels, None if valid.all() else valid)


def _lay_under(raw: RawPixels, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> None:
    """Show what is valid of `raw` where (C, h, w) pixels are not valid yet."""
    new = ~valid if raw.valid is None else ~valid & raw.valid
    np.copyto(pixels, raw.pixels, where=new)
    valid |= new


def _read_file(source: RasterSource, window: Window, factor: int) -> RawPixels | None:
    table = block_table(source, factor)
    if table is None:
        return read_raw(source, window, factor)
    part = table.touched(window)
    sparse = np.logical_and.reduce(part.sparse[: len(source.bands)], axis=0)  # (rows, cols) of blocks
    if sparse.all():
        return None
    raw = read_raw(source, window, factor)
    if raw is None or not sparse.any():
        return raw
    present = ~part.spread(sparse, window)
    return RawPixels(raw.pixels, present if raw.valid is None else raw.valid & present)
