"""A source and its grid of tiles, as far as the finished outputs need to know them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rsqa.raster.grid import TileGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledSource:
    """One planned source."""

    name: str
    """As in the column `source`."""
    crs_wkt: str
    """Empty without a place on the ground."""
    transform: tuple[float, float, float, float, float, float]
    """Affine a to f: pixel (col, row) -> x, y."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    tile_px: int
    """Side of a tile, pixels; tile (0, 0) begins at pixel (0, 0)."""
    overlap_px: int = 0
    """What the windows of neighbouring tiles share, pixels."""
    scale: int = 1
    """How many times larger the tiles are than those that the tables are about."""
    acquired: datetime | None = None
    """With a time zone."""

    @property
    def n_rows(self) -> int:
        """Tiles from top to bottom, the last one perhaps smaller."""
        return -(-self.height // self.tile_px)

    @property
    def n_cols(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // self.tile_px)

    @property
    def grid(self) -> TileGrid:
        """The tiles with their windows."""
        return TileGrid(self.height, self.width, self.tile_px, self.overlap_px)

    @property
    def tile_transform(self) -> Affine:
        """Tile (col, row) -> x, y of its upper left corner."""
        return Affine(*self.transform) @ Affine.scale(self.tile_px)

    @property
    def outline(self) -> NDArray[np.float64]:
        """(5, 2) closed ring around all pixels, x and y in the source's CRS."""
        corners = [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height), (0, 0)]
        return np.array([Affine(*self.transform) @ corner for corner in corners])


def tile_id(source: str, row: int, col: int, scale: int = 1) -> str:
    """`source/row/col`; of a coarser pass `source/row/col@scale`."""
    return f"{source}/{row}/{col}" if scale == 1 else f"{source}/{row}/{col}@{scale}"
