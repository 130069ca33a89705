"""Rasters that are broken in ways that are known."""

from __future__ import annotations

import numpy as np
from truth_rasters import TILED

from rsqa.raster.tiff import read_block_table, read_directories


def patch(path, at, data):
    """Overwrite bytes of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def spoil(path, block):
    """Make a file block undecodable. block: (plane, row, column)."""
    table = read_block_table(path, read_directories(path)[0])
    patch(path, int(table.offsets[block]) + 200, b"\xff" * 64)


def table_entry(path, number, *, what):
    """Byte position of a tile's offset or size in a classic little-endian TIFF."""
    entry = read_directories(path)[0].entries[{"offset": 324, "count": 325}[what]]
    assert entry.type == 4
    return entry.start + 4 * number


def noisy(write, name="a.tif", **profile):
    """1024 x 1024 noise in 4 x 4 file blocks; sizes of noise blocks need 4 bytes each."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 1024, 1024), dtype=np.uint8)
    return write(pixels, name, **TILED | profile), pixels
