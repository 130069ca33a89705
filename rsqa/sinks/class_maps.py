"""Labels on the ground: polygons of tiles that share one, and a raster per mosaic with a pixel per tile.

R x C tiles of a source, P corners of a polygon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from os.path import splitext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio.features
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from rsqa.raster.folders import ENDINGS
from rsqa.sinks.classes import abstaining
from rsqa.sinks.cog import write_codes
from rsqa.sinks.colours import choice_colours
from rsqa.sinks.cube_layout import group_name
from rsqa.sinks.geoparquet import GROUP_ROWS, ZSTD_LEVEL, Extent
from rsqa.sinks.ground import LONLAT, common_crs, crs_label, lonlat, projjson
from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.table import SCHEMA, bbox_array, file_keys, geo_metadata, open_writer
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import write_whole, write_whole_folder

POLYGON_SCHEMA = pa.schema(
    [
        ("label", pa.string()),
        ("n_tiles", pa.int64()),
        ("source", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", SCHEMA.field("bbox").type),
        ("source_crs", pa.string()),
    ]
)


def label_grids(
    parts: Sequence[Path], sources: Sequence[TiledSource], labels: Sequence[str], abstain: float
) -> Iterator[tuple[TiledSource, NDArray[Any]]]:
    """Yield each source that has a place with the codes (R, C) of its labels; the highest code is none.

    Tiles that were not read, not answered or not sure enough have none. Sources come in the order of the parts.
    """
    dtype: type[np.uint8 | np.uint16] = np.uint8 if len(labels) < 255 else np.uint16
    none = int(np.iinfo(dtype).max)
    placed = {source.name: source for source in sources if source.crs_wkt}
    source: TiledSource | None = None
    codes: NDArray[Any] = np.empty((0, 0), dtype)
    columns = ["source", "tile_row", "tile_col", "value", "confidence", "status"]
    for group in read_parts(parts, GROUP_ROWS, columns):
        found = pc.index_in(abstaining(group, abstain)["value"], pa.array(labels)).fill_null(none).to_numpy()
        names, rows, cols = (group[name].to_numpy() for name in columns[:3])
        begins = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        for begin, end in pairwise(begins):
            if source is None or names[begin] != source.name:
                if source is not None:
                    yield source, codes
                source = placed.get(names[begin])
                if source is not None:
                    codes = np.full((source.n_rows, source.n_cols), none, dtype)
            if source is not None:
                codes[rows[begin:end], cols[begin:end]] = found[begin:end]
    if source is not None:
        yield source, codes


def write_polygons(
    path: Path,
    parts: Sequence[Path],
    sources: Sequence[TiledSource],
    labels: Sequence[str],
    abstain: float,
    plan_id: str,
) -> None:
    """A GeoParquet file with a row for each patch of tiles of one source that share a label and a side.

    In the system of the table of classes. Raises what `finish_table` raises.
    """
    crs = common_crs(source.crs_wkt for source in sources)

    def write(temporary: Path) -> None:
        extent = Extent()
        with open_writer(temporary, ZSTD_LEVEL, POLYGON_SCHEMA) as writer:
            for table in _gathered(_patches(*found, labels, crs) for found in grids):
                extent.add(table)
                writer.write_table(table)
            geo = geo_metadata(projjson(crs), extent.types, extent.bounds)
            writer.add_key_value_metadata(file_keys(geo, {"plan_id": plan_id, "abstain": abstain}))

    grids = label_grids(parts, sources, labels, abstain)
    write_whole(path, write)


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables of a few rows each -> such of a row group."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= GROUP_ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    yield pa.concat_tables([POLYGON_SCHEMA.empty_table(), *held]).combine_chunks()


def _patches(source: TiledSource, codes: NDArray[Any], labels: Sequence[str], crs: str) -> pa.Table:
    """(R, C) codes -> rows of `POLYGON_SCHEMA`."""
    given = codes != np.iinfo(codes.dtype).max
    found = [(shape(outline), int(code)) for outline, code in rasterio.features.shapes(codes, given, connectivity=4)]
    in_tiles = np.array([polygon for polygon, _ in found], object)
    on_ground = _on_ground(source, in_tiles)
    if crs == LONLAT:
        on_ground = np.array([_lonlat(polygon, source.crs_wkt) for polygon in on_ground], object)
    columns = [
        pa.array([labels[code] for _, code in found], pa.string()),
        pa.array(np.rint(shapely.area(in_tiles)).astype(np.int64)),
        pa.repeat(source.name, len(found)),
        pa.array(shapely.to_wkb(on_ground, byte_order=1), pa.binary()),
        bbox_array(shapely.bounds(on_ground).reshape(-1, 4)),
        pa.repeat(crs_label(source.crs_wkt), len(found)),
    ]
    return pa.table(columns, schema=POLYGON_SCHEMA)


def _on_ground(source: TiledSource, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Polygons whose corners are (column, row) of tile corners -> the ground of their tiles, in the source's system."""
    a, b, c, d, e, f = source.transform

    def place(corners: NDArray[np.float64]) -> NDArray[np.float64]:  # (P, 2)
        cols, rows = (corners * source.tile_px).clip(max=(source.width, source.height)).T  # the last tiles are smaller
        return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)

    placed: NDArray[np.object_] = shapely.orient_polygons(shapely.transform(polygons, place))
    return placed


def _lonlat(polygon: shapely.Polygon, wkt: str) -> shapely.Geometry | None:
    """The outline without the holes; None where a corner is nowhere on Earth."""
    outer, *holes = (lonlat(shapely.get_coordinates(ring)[None], wkt)[0] for ring in shapely.get_rings(polygon))
    return shapely.difference(outer, shapely.union_all(holes)) if holes else outer


def write_rasters(
    folder: Path, parts: Sequence[Path], sources: Sequence[TiledSource], labels: Sequence[str], abstain: float
) -> None:
    """A folder with a COG for each source that has a place and several tiles: codes, colours, and what they mean."""
    mosaics = [source for source in sources if source.n_rows * source.n_cols > 1]
    names = raster_names([source.name for source in mosaics])

    def write(temporary: Path) -> None:
        for source, codes in label_grids(parts, mosaics, labels, abstain):
            path = temporary / names[source.name]
            about = {"question_id": "label", "source": source.name}
            write_codes(path, source, codes, labels, choice_colours(len(labels)), about)

    write_whole_folder(folder, write)


def raster_names(sources: Sequence[str]) -> dict[str, str]:
    """Source -> the name of its raster, `x.tif` for `x.tif` and `x.jp2`; `x.tif.tif` where one would stand for both."""
    bare = {source: splitext(source)[0] if source.lower().endswith(ENDINGS) else source for source in sources}
    unlike = len({name.casefold() for name in bare.values()}) == len(bare)
    return {source: f"{group_name(bare[source] if unlike else source)}.tif" for source in sources}
