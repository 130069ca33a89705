"""Detected objects as outlines on the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rsqa.report.layout import Layout
from rsqa.sinks.finished import FinishedTable

MOST_BOXES = 200_000
"""Of which a page shows outlines; of more those of the highest scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """B outlines, of four corners each."""

    corners: NDArray[np.float32]
    """(B, 4, 2) x, y on the map."""
    label: NDArray[np.uint16]
    """(B,) position in `labels`."""
    labels: tuple[str, ...]
    """In the order of the alphabet."""
    score: NDArray[np.float32]
    """(B,) NaN: none."""
    n_left_out: int


def gather_boxes(table: FinishedTable, layout: Layout) -> Boxes | None:
    """None where sources stand side by side: then no box has a place among them."""
    if layout.crs is None:
        return None
    rows = table.data.to_table(columns=["geometry", "label", "score"])
    rows = rows.filter(pc.is_valid(rows["geometry"]))
    n_left_out = max(0, rows.num_rows - MOST_BOXES)
    if n_left_out:
        rows = rows.take(pc.sort_indices(rows, [("score", "descending")])[:MOST_BOXES])
    shapes = shapely.from_wkb(rows["geometry"].to_numpy())
    corners = np.array([_four_corners(shape) for shape in shapes]).reshape(-1, 4, 2)
    labels = sorted(set(rows["label"].to_pylist()))
    return Boxes(
        corners=((corners - layout.origin) * (layout.x_scale, 1)).astype(np.float32),
        label=pc.index_in(rows["label"], pa.array(labels, pa.string())).to_numpy().astype(np.uint16),
        labels=tuple(labels),
        score=rows["score"].to_numpy().astype(np.float32),
        n_left_out=n_left_out,
    )


def _four_corners(shape: shapely.Geometry) -> NDArray[np.float64]:
    """(4, 2) of a box as it is, turned or not; of any other shape those of the smallest box around it."""
    points: NDArray[np.float64] = shapely.get_coordinates(shape)
    if len(points) != 5:
        points = shapely.get_coordinates(shapely.oriented_envelope(shape))
    return points[:4]
