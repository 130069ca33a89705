"""Scenes whose tiles are known: painted ground, with squares of a colour that nothing else has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from rsqa.raster.tiff import read_block_table, read_directories
from rsqa.scenes.compose import make_scene

TILE_PX, SIDE = 56, 4
"""Tiles are 56 pixels of half a metre; a scene covers 4 x 4 of them."""
LEFT, TOP, PIXEL = 500_000.0, 4_600_000.0, 0.5
START = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
MAGENTA = np.array([255, 0, 255], np.uint8)[:, None, None]


@lru_cache
def ground() -> np.ndarray:
    """(3, H, W), larger than a scene so that shifted ones lie on it too."""
    side = (SIDE + 2) * TILE_PX
    return np.minimum(make_scene(7, side, side).pixels, 200)


def when(night: float) -> datetime:
    return START + timedelta(days=night)


def write_scene(
    path: Path, marked=(), *, squares=(), night=0.0, shift_px=(0, 0), crs="EPSG:32631", holes=(), tag=True, **how
):
    """A scene at `shift_px` (rows, cols) from the corner of tile 0/0; `marked`: tiles (row, col) with a square,
    `squares`: (row, col) of the corner of others, pixels from that of tile 0/0, `holes`: tiles without data.
    """
    pixels = ground().copy()
    mask = np.full(pixels.shape[1:], 255, np.uint8)
    in_tiles = [(row * TILE_PX + 20, col * TILE_PX + 20) for row, col in marked]
    for row, col in [*in_tiles, *squares]:
        y, x = TILE_PX + row, TILE_PX + col
        pixels[:, y : y + 16, x : x + 16] = MAGENTA
    for row, col in holes:
        y, x = (row + 1) * TILE_PX, (col + 1) * TILE_PX
        mask[y : y + TILE_PX, x : x + TILE_PX] = 0
    y, x = TILE_PX + shift_px[0], TILE_PX + shift_px[1]
    area = slice(y, y + SIDE * TILE_PX), slice(x, x + SIDE * TILE_PX)
    transform = from_origin(LEFT + shift_px[1] * PIXEL, TOP - shift_px[0] * PIXEL, PIXEL, PIXEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE * TILE_PX, width=SIDE * TILE_PX, count=4, dtype="uint8", crs=crs,
        transform=transform, photometric="RGB", alpha="YES", compress="deflate", tiled=True, blockxsize=64,
        blockysize=64, **how,
    ) as file:  # fmt: skip
        file.write(np.concatenate([pixels[:, *area], mask[None][:, *area]]))
        if tag:
            file.update_tags(TIFFTAG_DATETIME=f"{when(night):%Y:%m:%d %H:%M:%S}")
    return path


def damage_last_block(path: Path) -> None:
    """Of a scene on the grid that is in tile 3/3."""
    table = read_block_table(str(path), read_directories(str(path))[0])
    content, at = bytearray(path.read_bytes()), int(table.offsets[0, 3, 3])
    content[at : at + 30] = bytes(30)
    path.write_bytes(content)


def watch_text(**sections) -> str:
    """A WATCH.toml of this ground; `sections` add lines, as change="confirmations = 1"."""
    known = {
        "scenes": 'paths = ["incoming"]\nsettle_s = 0',
        "grid": f'crs = "EPSG:32631"\norigin = [{LEFT}, {TOP}]\npixel = {PIXEL}\ntile_px = {TILE_PX}',
        "ask": 'questions = ["mark: Is there magenta?"]',
        "model": 'name = "rsqa.testing:ColourEngine"\ndevice = "cpu"\nbatch_size = 16',
        "change": "", "limits": "min_free_gb = 0.0", "tell": "",
    }  # fmt: skip
    lines = [f"[{name}]\n{text}\n{sections.get(name, '')}\n" for name, text in known.items()]
    return 'out = "port.monitor"\n' + "\n".join(lines)
