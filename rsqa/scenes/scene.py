"""A procedural scene: its pixels, what covers the ground and which objects stand on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERS = ("grass", "bare", "paved", "field", "forest", "water", "road", "building", "parking lot")
"""What `Scene.cover` indexes. Paved is a yard, an apron, a quay or a runway: neither road nor parking lot."""
OBJECTS = ("building", "ship", "plane", "storage tank")
"""What can be counted."""
LABELS = ("field", "forest", "water", "road", "building", "parking lot", "ship", "plane", "storage tank")
"""What presence is known of."""

Box = tuple[float, float, float, float]
"""(row0, col0, row1, col1), pixels from the upper left corner, half open."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One countable thing."""

    label: str
    corners: tuple[tuple[float, float], ...]
    """Four (row, col) corners of the oriented box, pixels."""

    @property
    def box(self) -> Box:
        """The upright box around the oriented one; it may reach over the border of the scene."""
        rows = [row for row, _ in self.corners]
        cols = [col for _, col in self.corners]
        return min(rows), min(cols), max(rows), max(cols)


@dataclass(frozen=True, slots=True)
class Scene:
    """An orthomosaic without a place on Earth; north is up."""

    pixels: NDArray[np.uint8]
    """(3, H, W) red, green, blue."""
    cover: NDArray[np.uint8]
    """(H, W), index into COVERS. Ships, planes and tanks do not change the cover below them."""
    objects: tuple[SceneObject, ...]
    gsd_m: float
    seed: int
    style: str
    """A name from TRAIN_STYLES or HELD_OUT_STYLES."""
