"""A mosaic whose pixels tell where they are, and what is asked of it; some of the words are hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

TILE_PX, ROWS, COLS = 56, 6, 11
QUESTIONS = (
    "water: Is there water?",
    "odd: Is it </script><script>document.title='hacked'</script> or <b onclick=1>?",
    "cars: How many cars are there?",
    "words: Describe the scene & its $x$.",
)


def paint(path: Path) -> Path:
    """6 x 11 tiles, the last row and column cut, one tile without valid pixels; red tells the row, green the column."""
    height, width = ROWS * TILE_PX - 20, COLS * TILE_PX - 30
    rows, cols = np.mgrid[:height, :width]
    pixels = np.stack([1 + rows * 254 // height, 1 + cols * 254 // width, np.full_like(rows, 90)]).astype(np.uint8)
    pixels[:, TILE_PX : 2 * TILE_PX, TILE_PX : 2 * TILE_PX] = 0
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs="EPSG:32631", nodata=0,
        transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6), tiled=True, blockxsize=112, blockysize=112, compress="deflate",
    ) as file:  # fmt: skip
        file.write(pixels)
    return path
