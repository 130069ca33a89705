"""Looks at a picture: cropped, turned, mirrored, recoloured, and its facts with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.train import words
from rsqa.train.facts import Facts
from rsqa.train.pictures import CELLS_PER_TOKEN, Picture, Rng, Window, facts_in

BLEND_LEAST = 0.65
"""Least weight of the picture that the questions are about."""


@dataclass(frozen=True, slots=True)
class View:
    """One look at a picture."""

    chip: Tensor
    """(3, side, side) on the scale 0..255."""
    facts: Facts
    ground: Tensor
    """(rows, cols, kinds) uint8, as `Picture.ground`; all zero where nothing is known."""
    upright: bool
    """Whether whole and unturned."""


def view(picture: Picture, crop_min: float, jitter: float, side: int, rng: Rng) -> View:
    """A random crop, turned or mirrored, its colours changed."""
    _, height, width = picture.pixels.shape
    window: Window = (0, 0, height, width)
    whole = picture.whole or rng.random() < 0.25
    if not whole:
        share = rng.uniform(crop_min, 1.0)
        # Chips are square at inference, so long pictures are cropped to about a square too.
        h = round(min(height, max(height, width) * share))
        w = round(min(width, max(height, width) * share))
        h, w = min(h, round(w * 1.25)), min(w, round(h * 1.25))
        window = (int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    row, col, h, w = window
    pixels = torch.from_numpy(np.array(picture.pixels[:, row : row + h, col : col + w]))
    # Whole pictures stay upright more often: only then questions about places and numbers can be asked.
    keep = 0.6 if whole and not picture.whole else 0.2
    turn, mirror = (0, False) if rng.random() < keep else (int(rng.integers(4)), bool(rng.random() < 0.5))
    chip = torch.rot90(resample(pixels[None], (side, side))[0].float(), turn, (1, 2))
    ground = torch.rot90(ground_of(picture, side), turn, (0, 1))
    if mirror:
        chip, ground = chip.flip(2), ground.flip(1)
    upright = whole and turn == 0 and not mirror
    facts = facts_in(picture, window).turned(turn, mirror)
    return View(colour_jitter(chip, jitter, rng), facts, ground, upright)


def ground_of(picture: Picture, side: int) -> Tensor:
    """-> (rows, cols, kinds) of a picture, zero where its ground is not known."""
    if picture.ground is not None:
        return torch.from_numpy(np.array(picture.ground))
    grid = side // PIXELS_PER_TOKEN * CELLS_PER_TOKEN
    return torch.zeros((grid, grid, len(words.GROUND)), dtype=torch.uint8)


def colour_jitter(chip: Tensor, strength: float, rng: Rng) -> Tensor:
    """Random brightness, contrast, saturation and white balance; (3, h, w) on the scale 0..255."""
    if strength == 0:
        return chip
    light, contrast, colour = (float(v) for v in rng.uniform(1 - strength, 1 + strength, 3))
    balance = torch.from_numpy(rng.uniform(1 - strength / 3, 1 + strength / 3, (3, 1, 1)).astype(np.float32))
    grey = chip.mean(dim=0, keepdim=True)
    chip = (grey + (chip - grey) * colour) * balance
    middle = chip.mean()
    return ((chip - middle) * contrast + middle * light).clamp(0.0, 255.0)


def blended(pixels: Tensor, chance: float, rng: Rng) -> Tensor:
    """(B, 3, h, w) -> the same, some pictures with a weak shadow of another one: a mixup that keeps the main label."""
    b = len(pixels)
    own = np.where(rng.random(b) < chance, rng.uniform(BLEND_LEAST, 1.0, b), 1.0).astype(np.float32)
    weight = torch.from_numpy(own).reshape(b, 1, 1, 1)
    return weight * pixels + (1 - weight) * pixels[torch.from_numpy(rng.permutation(b))]
