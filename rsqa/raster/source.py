"""One raster as its header describes it: where it lies, how it is stored. Plain values; no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsqa.raster.grid import Layout, Window
from rsqa.raster.ground import Transform, ground_rings

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
        return _flat(self) | {
            "nodata": None if self.nodata is None else repr(self.nodata),
            "levels": [_flat(level) | {"layout": _flat(level.layout)} for level in self.levels],
            "acquired": self.acquired.isoformat() if self.acquired else None,
            "blocks": _flat(self.blocks) if self.blocks else None,
            "members": [{"row": m.row, "col": m.col, **m.source.to_json()} for m in self.members],
        }

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


def _flat(value: RasterSource | Level | Layout | BlockFacts) -> dict[str, Any]:
    """The fields as they are: `asdict` copies what is in them, which costs a folder of 100,000 files minutes."""
    return {name: getattr(value, name) for name in value.__slots__}


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
