"""How many objects lie where, each once.

N objects, A areas, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray


def count_in_areas(
    middles: NDArray[np.float64], labels: NDArray[np.int64], n_labels: int, areas: Sequence[shapely.Geometry]
) -> NDArray[np.int64]:
    """(N, 2) x, y of the objects' middles, (N,) labels 0 to L - 1, A polygons -> (A, L) objects inside.

    All in one system, best the source's own: in longitude and latitude an area may be cut at the antimeridian. A middle
    on the border of several areas counts in the first of them alone, so areas that only touch never count an object
    twice; one inside several areas that overlap counts in each. Counts of portions add up.
    """
    points = shapely.points(middles)
    tree = shapely.STRtree(areas)
    inside = tree.query(points, predicate="within")
    touched = tree.query(points, predicate="intersects")
    on_border = touched[:, ~np.isin(touched[0], inside[0])]
    order = np.lexsort(on_border[::-1])
    first = order[np.flatnonzero(np.diff(on_border[0, order], prepend=-1))]
    objects, area = np.concatenate([inside, on_border[:, first]], axis=1)
    counts = np.zeros((len(areas), n_labels), np.int64)
    np.add.at(counts, (area, labels[objects]), 1)
    return counts
