"""Where each source lies on the map that the page draws: on its ground, or side by side with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, radians, sqrt

import numpy as np
from affine import Affine
from pyproj import CRS

from rsqa.raster.source import RasterSource

LEAST_COVER = 0.005
"""Share of the map that sources must fill to be shown on their ground: thinner spread, none of them could be seen."""
GAP = 1.12
"""Side of a place for sources side by side; each source takes 1 of it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The map: its x grows to the right, its y upwards."""

    transforms: tuple[Affine, ...]
    """Source pixel (col, row) -> x, y, counted from `origin`."""
    origin: tuple[float, float]
    """x, y in the sources' CRS."""
    crs: str | None
    """As people write it; None where the sources stand side by side, off the ground."""
    x_scale: float
    """Map units per CRS unit along x: below 1 for degrees, which are shorter there than along y."""
    metres: float | None
    """Of one map unit on the ground, in the middle of the first source."""


def lay_out(sources: Sequence[RasterSource]) -> Layout:
    """On the ground where all share a CRS and lie close together, else side by side."""
    if sources[0].crs_wkt and len({source.crs_wkt for source in sources}) == 1:  # empty: no place on the ground
        layout = _on_ground(sources)
        boxes = np.array([_box(s, t) for s, t in zip(sources, layout.transforms, strict=True)])  # (N, 4)
        around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        covered = sum(s.width * s.height * abs(t.determinant) for s, t in zip(sources, layout.transforms, strict=True))
        if covered >= LEAST_COVER * (around[2] - around[0]) * (around[3] - around[1]):
            return layout
    return _side_by_side(sources)


def _on_ground(sources: Sequence[RasterSource]) -> Layout:
    crs, first = CRS.from_wkt(sources[0].crs_wkt), sources[0]
    transform = Affine(*first.transform)
    x, y = transform @ (first.width / 2, first.height / 2)
    x_scale = max(0.01, cos(radians(y))) if crs.is_geographic else 1.0
    place = Affine.scale(x_scale, 1) @ Affine.translation(-x, -y)
    transforms = tuple(place @ Affine(*source.transform) for source in sources)
    authority = crs.to_authority()
    assert first.gsd_m is not None  # what has a CRS has a place
    metres = first.gsd_m / sqrt(abs(transforms[0].determinant))
    return Layout(transforms, (x, y), ":".join(authority) if authority else crs.name, x_scale, metres)


def _side_by_side(sources: Sequence[RasterSource]) -> Layout:
    per_row = ceil(sqrt(len(sources)))
    transforms = []
    for number, source in enumerate(sources):
        row, col = divmod(number, per_row)
        scale = 1 / max(source.width, source.height)
        transforms.append(Affine.translation(col * GAP, -row * GAP) @ Affine.scale(scale, -scale))
    return Layout(tuple(transforms), (0.0, 0.0), None, 1.0, None)


def _box(source: RasterSource, transform: Affine) -> tuple[float, float, float, float]:
    corners = [transform @ corner for corner in ((0, 0), (source.width, 0), (0, source.height))]
    corners.append(transform @ (source.width, source.height))
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
