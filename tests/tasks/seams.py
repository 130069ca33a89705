"""Things on a mosaic, what tiles see of them, and the slowest way to join that again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import shapely
from hypothesis import assume

from rsqa.raster.grid import TileGrid
from rsqa.tasks.merge import Band, Objects, Tiles, merge
from rsqa.tasks.sightings import EDGE, IOS, IOU, REPEATED, SHOWN

RECTANGLE = [[0, 1], [0, 3], [2, 3], [2, 1]]
"""Places of x and y of the four corners in (x1, y1, x2, y2)."""


@dataclass(frozen=True)
class Seen:
    """One box of one tile."""

    tile: tuple[int, int, int]
    label: int
    corners: np.ndarray
    score: float = 0.5


def tiles_of(grid: TileGrid, asked=lambda tile, label: True, n_labels: int = 2) -> Tiles:
    """All tiles of a pass."""
    tiles = list(grid)
    names = [(1, tile.row, tile.col) for tile in tiles]
    sides = [[(w.col, w.row, w.col_end, w.row_end) for w in (tile.core, tile.window)] for tile in tiles]
    core, window = np.array(sides, float).transpose(1, 0, 2)
    return Tiles(np.array(names), core, window, np.array([[asked(n, k) for k in range(n_labels)] for n in names]))


def take(tiles: Tiles, which) -> Tiles:
    return Tiles(tiles.tile[which], tiles.core[which], tiles.window[which], tiles.asked[which])


def band_of(tiles: Tiles, seen: Sequence[Seen]) -> Band:
    """Those of `seen` that are of these tiles."""
    place = {tuple(tile): i for i, tile in enumerate(tiles.tile.tolist())}
    mine = [one for one in seen if one.tile in place]
    return Band(
        tiles,
        np.array([place[one.tile] for one in mine], np.int64),
        np.array([one.label for one in mine], np.int64),
        np.array([one.corners for one in mine], float).reshape(-1, 4, 2),
        np.array([one.score for one in mine], np.float32),
        np.array([-one.score for one in mine], np.float32),
    )


def look(tiles: Tiles, things: Sequence[tuple[int, tuple[float, float, float, float]]]) -> list[Seen]:
    """Every tile names the visible part of every upright thing (label, x1 y1 x2 y2)."""
    boxes = np.array([box for _, box in things], float).reshape(-1, 4)
    seen = []
    for name, window in zip(tiles.tile.tolist(), tiles.window, strict=True):
        parts = np.hstack([np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])])
        for i in np.flatnonzero((parts[:, :2] < parts[:, 2:]).all(axis=1)):
            seen.append(Seen(tuple(name), things[i][0], parts[i][RECTANGLE]))
    return seen


def merged(bands: Sequence[Band], size: tuple[int, int]) -> Objects:
    """All that `merge` gives, in one piece."""
    done = list(merge(bands, size))
    names = ("label", "corners", "score", "logprob", "n_seen", "seen")
    empty = (np.zeros(0), np.zeros((0, 4, 2)), np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros((0, 3)))
    return Objects(*(np.concatenate([e, *(getattr(d, n) for d in done)]) for n, e in zip(names, empty, strict=True)))


def boxes_of(objects: Objects) -> list[tuple[float, ...]]:
    """(label, x1, y1, x2, y2) of each, sorted."""
    around = np.hstack([objects.corners.min(axis=1), objects.corners.max(axis=1)])
    return sorted((label, *box) for label, box in zip(objects.label.tolist(), around.tolist(), strict=True))


def by_brute_force(tiles: Tiles, seen: Sequence[Seen], size: tuple[int, int]) -> list[tuple[int, frozenset, float]]:
    """(label, the tiles that saw it, its score), sorted; every box is held against every other. `size`: (H, W)."""
    window = dict(zip(map(tuple, tiles.tile.tolist()), tiles.window.tolist(), strict=True))
    core = dict(zip(map(tuple, tiles.tile.tolist()), tiles.core.tolist(), strict=True))
    asked = dict(zip(map(tuple, tiles.tile.tolist()), tiles.asked.tolist(), strict=True))
    shapes = [shapely.Polygon(one.corners) for one in seen]
    far = 1e6
    ground = []
    for one, shape in zip(seen, shapes, strict=True):
        (x1, y1, x2, y2), box = window[one.tile], shape.bounds
        dx, dy = EDGE * (x2 - x1), EDGE * (y2 - y1)
        ground.append(
            shapely.box(
                x1 if box[0] - x1 <= dx else -far,
                y1 if box[1] - y1 <= dy else -far,
                x2 if x2 - box[2] <= dx else far,
                y2 if y2 - box[3] <= dy else far,
            )
        )
    links: list[tuple[int, int]] = []
    wishes = []
    for i, j in combinations(range(len(seen)), 2):
        if seen[i].label != seen[j].label:
            continue
        both = shapely.intersection(ground[i], ground[j])
        a, b = shapely.intersection(shapes[i], both), shapely.intersection(shapes[j], both)
        shared = shapely.area(shapely.intersection(a, b))
        union, smaller = a.area + b.area - shared, min(a.area, b.area)
        if seen[i].tile == seen[j].tile:
            if shared >= REPEATED * union:
                links.append((i, j))
        elif shared > 0 and (shared >= IOU * union or shared >= IOS * smaller):
            whole = shapely.area(shapely.intersection(shapes[i], shapes[j]))
            wishes.append((shared / union, whole / (shapes[i].area + shapes[j].area - whole), i, j))
    taken = set()
    for _, _, i, j in sorted(wishes, key=lambda wish: (-wish[0], -wish[1])):
        if (i, seen[j].tile) not in taken and (j, seen[i].tile) not in taken:
            taken |= {(i, seen[j].tile), (j, seen[i].tile)}
            links.append((i, j))
    group = list(range(len(seen)))
    for i, j in links:
        group = [group[i] if g == group[j] else g for g in group]

    def owners(one: Seen) -> list[tuple[int, int, int]]:
        x, y = one.corners.mean(axis=0)
        return [
            t for t, (x1, y1, x2, y2) in core.items()
            if t[0] == one.tile[0] and x1 <= x < x2 and y1 <= y < y2 and asked[t][one.label]
        ]  # fmt: skip

    def cut(one: Seen) -> bool:
        """Whether it ends at an edge of its window behind which there is more."""
        box, its = shapely.Polygon(one.corners).bounds, window[one.tile]
        far_end = (size[1], size[0])
        return any(
            (box[k] - its[k] <= EDGE * (its[k + 2] - its[k]) and its[k] > 0)
            or (its[k + 2] - box[k + 2] <= EDGE * (its[k + 2] - its[k]) and its[k + 2] < far_end[k])
            for k in (0, 1)
        )

    def showing(one: Seen) -> set[tuple[int, int, int]]:
        """Tiles of the pass that show it."""
        frame = shapely.box(*shapely.Polygon(one.corners).bounds) & shapely.box(*window[one.tile])
        found = set()
        for t, its in window.items():
            if t[0] == one.tile[0] and frame.area:
                share = (frame & shapely.box(*its)).area / frame.area
                assume(abs(share - SHOWN) > 1e-9)
                if share > SHOWN:
                    found.add(t)
        return found

    def score(mine: list[Seen]) -> float:
        """Each tile that shows its best box by its surest box; 0 if it was asked and has none."""
        best = min(mine, key=lambda one: (cut(one), one.tile[0], one.tile not in owners(one), -one.score))
        votes = [
            max((one.score for one in mine if one.tile == t), default=0.0)
            for t in showing(best)
            if asked[t][best.label] or any(one.tile == t for one in mine)
        ]
        return sum(votes) / len(votes) if votes else np.nan

    objects = []
    for g in set(group):
        mine = [one for one, its in zip(seen, group, strict=True) if its == g]
        tiles_seen = frozenset(one.tile for one in mine)
        if any(tiles_seen.issuperset(owners(one)) for one in mine):
            objects.append((mine[0].label, tiles_seen, score(mine)))
    return sorted(objects, key=lambda o: (o[0], sorted(o[1]), o[2]))
