"""`counts.parquet`: how many objects lie where, each once: everywhere, and in each polygon of a file.

N objects, A areas, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rsqa.errors import InputError
from rsqa.raster.vectors import read_shapes
from rsqa.sinks.detections import Found
from rsqa.sinks.geoparquet import GROUP_ROWS, write_table
from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.table import BBOX, bbox_array
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import Question

if TYPE_CHECKING:
    import geopandas

COUNTS = pa.schema(
    [
        ("area", pa.int64()),
        ("area_name", pa.string()),
        ("question_id", pa.string()),
        ("label", pa.string()),
        ("objects", pa.int64()),
        ("unknown_tiles", pa.int64()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""`area` counts the file's polygons from 0, null: everything. Of `unknown_tiles`, which meet the area, is not known
whether the thing is there: they were not read, had too few valid pixels, or the model's words were no answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """A polygons to count in."""

    frame: geopandas.GeoDataFrame
    names: Sequence[str | None]
    in_crs: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    """WKT -> the polygons there, as they were wanted."""

    def __len__(self) -> int:
        return len(self.frame)

    def shapes(self, crs: str) -> NDArray[np.object_]:
        """(A,) polygons in that system; empty where they do not exist there. InputError where there is no way to it."""
        if crs not in self.in_crs:
            try:
                shapes = shapely.force_2d(self.frame.geometry.to_crs(crs).to_numpy())
            except ProjError as error:
                raise InputError(
                    f"no way from the CRS of --areas to that of a source ({error}); give another"
                ) from error
            there = np.isfinite(shapely.bounds(shapes)).all(axis=1)
            self.in_crs[crs] = np.where(there, shapes, shapely.Polygon())
        return self.in_crs[crs]


def read_areas(path: str) -> Areas:
    """The polygons of a vector file, see `read_shapes`. InputError where a shape is no polygon too."""
    frame = read_shapes(path, "--areas")
    odd = frame.geometry.isna() | ~frame.geom_type.isin(["Polygon", "MultiPolygon"])
    if odd.any() or not len(frame):
        found = "holds nothing" if not len(frame) else f"has {int(odd.sum())} shapes that are no polygon"
        raise InputError(f"--areas {path!r} {found}; give it polygons alone")
    named = frame["name"] if "name" in frame.columns else [None] * len(frame)
    return Areas(frame, [name if isinstance(name, str) else None for name in named])


class Count:
    """Objects counted as they come."""

    def __init__(self, questions: Sequence[Question], names: Sequence[str], areas: Areas | None) -> None:
        self.questions, self.names, self.areas = questions, names, areas
        n_areas = 0 if areas is None else len(areas)
        self.counts = np.zeros((1 + n_areas, len(questions)), np.int64)
        """(1 + A, L) everywhere, and in each area."""
        self.unknown = np.zeros((1 + n_areas, len(questions)), np.int64)
        """(1 + A, L) tiles."""

    def add(self, found: Found) -> None:
        """Objects of one source, of which none came before."""
        a, b, c, d, e, f = found.source.transform
        labels = found.objects.label
        self.counts[0] += np.bincount(labels, minlength=len(self.questions))
        if self.areas is not None:
            cols, rows = found.objects.corners.mean(axis=1).T
            middles = np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)
            shapes = self.areas.shapes(found.source.crs_wkt)
            self.counts[1:] += count_in_areas(middles, labels, len(self.questions), list(shapes))

    def add_unknown(self, parts: Sequence[Path], sources: Sequence[TiledSource]) -> None:
        """The tiles of all parts that gave no answer."""
        systems = {source.name: source.crs_wkt for source in sources}
        for rows in read_parts(parts, GROUP_ROWS, ["source", "question_id", "status", "geometry"]):
            silent = rows.filter(pa.array(rows["status"].to_numpy() != "ok"))
            names, ids = silent["source"].to_numpy(), silent["question_id"].to_numpy()
            for label, question in enumerate(self.questions):
                self.unknown[0, label] += np.count_nonzero(ids == question.id)
            if self.areas is None:
                continue
            cores = shapely.from_wkb(silent["geometry"].to_numpy())
            for name in set(names.tolist()):
                here = np.flatnonzero(names == name)
                tree = shapely.STRtree(self.areas.shapes(systems[name]))
                core, area = tree.query(cores[here], predicate="intersects")
                numbers = {question.id: label for label, question in enumerate(self.questions)}
                labels = np.array([numbers[id_] for id_ in ids[here[core]]], np.int64)
                np.add.at(self.unknown, (1 + area, labels), 1)

    def write(self, path: Path, crs: str, plan_id: str) -> None:
        """A GeoParquet file with a row per area and label, those of everything first. `crs`: WKT or OGC:CRS84."""
        n_areas, n_labels = len(self.counts) - 1, len(self.questions)
        shapes = np.full(1 + n_areas, None, object)
        if self.areas is not None:
            shapes[1:] = self.areas.shapes(crs)
        row = np.repeat(np.arange(1 + n_areas), n_labels)
        names = [None, *(self.areas.names if self.areas is not None else ())]
        columns = [
            pa.array(row - 1, pa.int64(), mask=row == 0),
            pa.array([names[i] for i in row.tolist()], pa.string()),
            pa.array([question.id for question in self.questions] * (1 + n_areas), pa.string()),
            pa.array(list(self.names) * (1 + n_areas), pa.string()),
            pa.array(self.counts.ravel()),
            pa.array(self.unknown.ravel()),
            pa.array(shapely.to_wkb(shapes, byte_order=1)[row], pa.binary()),
            bbox_array(shapely.bounds(shapes)[row].reshape(-1, 4)),
        ]
        table = pa.table(columns, schema=COUNTS)
        write_table(path, COUNTS, iter([table]), crs, {"plan_id": plan_id}, as_folder=False)


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
