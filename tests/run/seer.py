"""A raster whose pixels hold their own place, and an engine that reads it there and tells the truth about what it sees.

The engine is a class of its own for each test: what is on the ground is its `things`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import rasterio

from rsqa.engines.base import Replies
from rsqa.engines.cards import ModelCard
from rsqa.tasks.boxes import format_boxes
from rsqa.tasks.prompts import PromptStyle

MODEL = "seer:Seer"


def write_places(path: Path, height: int, width: int, transform, crs="EPSG:32633", nodata_rows=slice(0)) -> Path:
    """Row and column of each pixel, 12 bits each, in three bytes; rows that are nodata are masked."""
    rows, cols = np.indices((height, width))
    pixels = np.stack([rows >> 4, (rows & 15) << 4 | cols >> 8, cols & 255]).astype(np.uint8)
    mask = np.full((height, width), 255, np.uint8)
    mask[nodata_rows] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs=crs,
            transform=transform, tiled=True, blockxsize=64, blockysize=64, compress="deflate",
        ) as file,
    ):  # fmt: skip
        file.write(pixels)
        if (mask == 0).any():
            file.write_mask(mask)
    return path


class Seer:
    """Says 0.9 yes of each thing that it sees a part of, and the parts' boxes; asked or not."""

    card = ModelCard("seer", "Sees", PromptStyle(), "Apache-2.0", side_px=56, boxes="many", mass_floor=0.2)
    things: ClassVar[list[tuple[str, tuple[float, float, float, float]]]] = []
    """(name, x1 y1 x2 y2 in pixels of the raster)."""
    mute: ClassVar[set[tuple[int, int]]] = set()
    """(row, column) of windows about which it says nothing of use."""

    def __init__(self, device: str, dtype: str) -> None:
        pass

    def prepare(self, questions, tile_shape, batch):
        return Seeing(questions)


class Seeing:
    def __init__(self, questions) -> None:
        self.questions = questions

    def answer(self, chips, valid=None) -> list[Replies]:
        return [self._reply(question, chips) for question in self.questions]

    def _reply(self, question, chips) -> Replies:
        seen = [self._boxes(question.text, chip) for chip in chips]
        mute = [place(chip) in Seer.mute for chip in chips]
        if question.closed:
            yes = np.array([0.9 if boxes else 0.05 for boxes in seen])
            shares = np.stack([yes, 0.95 - yes], axis=1) * np.where(mute, 0.1, 1)[:, None]
            return Replies(np.log(shares).astype(np.float32).reshape(len(chips), 2))
        text = np.array([format_boxes(boxes) for boxes in seen], object)
        return Replies(None, text, np.full(len(chips), -0.25, np.float32), np.ones(len(chips), bool))

    def _boxes(self, text, chip):
        row, col = place(chip)
        height, width = chip.shape[1:]
        boxes = []
        for name, (x1, y1, x2, y2) in Seer.things:
            left, right = (max(x1, col) - col) / width, (min(x2, col + width) - col) / width
            top, bottom = (max(y1, row) - row) / height, (min(y2, row + height) - row) / height
            if name in text and left < right and top < bottom:
                boxes.append((left, top, right, bottom))
        return boxes


def place(chip) -> tuple[int, int]:
    """(row, column) of a chip's first pixel, read from the first one that is valid and not the raster's own first."""
    row, col = np.argwhere(chip.any(axis=0))[0].tolist()
    high, both, low = chip[:, row, col].astype(int).tolist()
    return (high << 4 | both >> 4) - row, ((both & 15) << 8 | low) - col
