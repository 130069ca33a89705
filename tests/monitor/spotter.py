"""An engine that finds squares of a colour in a tile and tells the truth about them, also where each of them is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from affine import Affine
from rasterio.features import shapes

from rsqa.engines.base import Replies
from rsqa.tasks.boxes import format_boxes
from rsqa.testing import COLOURS, NEAR, ColourEngine, ColourSession

MODEL = "spotter:Spotter"
LEAST_PX = 24
"""Of a square: resampling leaves crumbs at edges."""


class Spotter:
    """Answers as `ColourEngine`, and "every magenta square" with the boxes of all."""

    card = replace(ColourEngine.card, name="spotter", title="Fake that finds squares", boxes="many")

    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        pass

    def prepare(self, questions, tile_shape, batch):
        return Spotting(tuple(questions))


class Spotting:
    def __init__(self, questions) -> None:
        self.questions = questions
        self.closed = ColourSession(tuple(question for question in questions if question.closed))

    def answer(self, chips, valid=None) -> list[Replies]:
        closed = iter(self.closed.answer(chips))
        return [next(closed) if question.closed else _boxes(question, chips) for question in self.questions]


def _boxes(question, chips) -> Replies:
    name = next(name for name in COLOURS if name in question.text)
    text = np.empty(len(chips), object)
    text[:] = [format_boxes(squares(chip, COLOURS[name])) for chip in chips]
    return Replies(None, text, np.full(len(chips), -0.25, np.float32), np.ones(len(chips), bool))


def squares(chip, colour) -> list[tuple[float, float, float, float]]:
    """Boxes around connected pixels near the colour, shares of width and height."""
    height, width = chip.shape[1:]
    near = (np.abs(chip.astype(int) - np.array(colour)[:, None, None]) <= NEAR).all(axis=0)
    found = []
    for shape, _ in shapes(near.astype(np.uint8), mask=near, transform=Affine.scale(1 / width, 1 / height)):
        xs, ys = np.array(shape["coordinates"][0]).T
        box = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
        if (box[2] - box[0]) * (box[3] - box[1]) * height * width >= LEAST_PX:
            found.append(box)
    return found
