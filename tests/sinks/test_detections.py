from __future__ import annotations

from datetime import UTC, datetime

import geopandas
import geoparquet_validator
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from rsqa.raster.grid import TileGrid
from rsqa.raster.ground import ground_rings
from rsqa.sinks.counts import count_in_areas
from rsqa.sinks.detections import DETECTIONS, Label, band_of, detections_table, finish_detections
from rsqa.sinks.ground import LONLAT
from rsqa.sinks.part import PartRows, QuestionColumns, write_part
from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.boxes import pixel_corners, read_boxes
from rsqa.tasks.merge import merge
from rsqa.tasks.question import Question

WKT = CRS.from_epsg(32633).to_wkt("WKT1_GDAL")
NAMES = "ship", "oil tank"
QUESTIONS = tuple(Question(f"find-{i}", f"the {name}", "box") for i, name in enumerate(NAMES))
LABELS = [Label(q.id, name, f"processing-{q.id}") for q, name in zip(QUESTIONS, NAMES, strict=True)]
GRID = TileGrid(300, 400, 100, 20)
THINGS = [(0, (90, 30, 115, 50)), (0, (200, 200, 230, 240)), (1, (200, 200, 230, 240)), (1, (40, 10, 60, 290))]
TRANSFORMS = {
    "north up": (2.0, 0, 500_000, 0, -2.0, 4_600_000),
    "rotated": (1.5, 0.5, 500_000, 0.5, -1.5, 4_600_000),
    "sheared": (1.5, 0.7, 500_000, 0.1, -1.0, 4_600_000),
    "south up": (2.0, 0, 500_000, 0, 2.0, 4_600_000),
}


def source(transform=TRANSFORMS["north up"], wkt=WKT, name="a.tif"):
    return TiledSource(
        name=name, crs_wkt=wkt, transform=transform, width=GRID.width, height=GRID.height, tile_px=GRID.tile_px,
        acquired=datetime(2021, 6, 5, tzinfo=UTC),
    )  # fmt: skip


def says(tile, label):
    """The tile's words about the things that it sees, and one box that is none where there is something."""
    window, words = tile.window, []
    for its, (x1, y1, x2, y2) in THINGS:
        left, right = max(x1, window.col), min(x2, window.col_end)
        top, bottom = max(y1, window.row), min(y2, window.row_end)
        if its == label and left < right and top < bottom:
            shares = np.array([left - window.col, top - window.row, right - window.col, bottom - window.row]) / 120
            words.append("[" + ",".join(str(round(v * 1000)) for v in shares) + "]")
    return f"[{','.join(words)}] [7,7,7,7]" if words else "[]"


def columns(label, tiles):
    said = [read_boxes(says(tile, label), "tinyrs") for tile in tiles]
    shown = [(t.window.col, t.window.row, t.window.col_end, t.window.row_end) for t in tiles]
    boxes = np.empty(len(tiles), object)
    boxes[:] = [pixel_corners(s, w, (GRID.height, GRID.width)) for s, w in zip(said, shown, strict=True)]
    return QuestionColumns(
        QUESTIONS[label],
        LABELS[label].processing_id,
        status=np.full(len(tiles), "ok", object),
        value=np.array([str(len(s.boxes)) for s in said], object),
        confidence=np.array([0.5 + t.row / 10 + t.col / 100 for t in tiles], np.float32),
        token_logprob=np.array([-t.row - t.col / 10 for t in tiles], np.float32),
        boxes=boxes,
        malformed=np.array([s.malformed for s in said]),
    )


def rows(src, tiles, nodata=()):
    corners = [[(t.core.col, t.core.row), (t.core.col, t.core.row_end), (t.core.col_end, t.core.row_end),
                (t.core.col_end, t.core.row)] for t in tiles]  # fmt: skip
    status = np.array(["nodata" if (t.row, t.col) in nodata else "ok" for t in tiles], object)
    return PartRows(
        source=src.name, source_crs_wkt=src.crs_wkt, acquired=src.acquired,
        tile_rows=np.array([t.row for t in tiles]), tile_cols=np.array([t.col for t in tiles]),
        polygons=ground_rings(np.array(corners, float), src.transform), windows=None,
        valid_frac=np.ones(len(tiles), np.float32), tile_status=status, tile_error=np.full(len(tiles), None),
        questions=tuple(columns(label, tiles) for label in range(len(LABELS))),
    )  # fmt: skip


def written(folder, src, tiles_per_part=5, nodata=()):
    tiles, parts = list(GRID), []
    folder.mkdir(exist_ok=True)
    for start in range(0, len(tiles), tiles_per_part):
        path = folder / f"{len(parts):08d}.parquet"
        write_part(path, [rows(src, tiles[start : start + tiles_per_part], nodata)], plan_id="p", number=len(parts))
        parts.append(path)
    return parts


def found(parts, src, crs):
    (table,) = read_parts(parts, 10**6)
    band = band_of(table, GRID, len(LABELS))
    return [detections_table(o, src, LABELS, crs) for o in merge([band], (GRID.height, GRID.width))]


def polygon(box, transform):
    x1, y1, x2, y2 = box
    return shapely.Polygon([Affine(*transform) @ corner for corner in [(x1, y1), (x1, y2), (x2, y2), (x2, y1)]])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_boxes_in_words_become_objects_on_the_ground(tmp_path, name):
    src = source(TRANSFORMS[name])
    parts = written(tmp_path / "parts", src)
    path = tmp_path / "detections.parquet"
    finish_detections(path, found(parts, src, WKT), WKT, "p", 100)
    frame = geopandas.read_parquet(path)
    assert frame.crs == "EPSG:32633"
    assert len(frame) == len(THINGS)
    px = abs(np.linalg.det(np.reshape(src.transform, (2, 3))[:, :2]))
    for label, box in THINGS:
        truth = polygon(box, src.transform)
        (row,) = [r for r in frame.itertuples() if r.label == NAMES[label] and r.geometry.intersects(truth)]
        # words are thousandths of 120 px
        assert row.geometry.symmetric_difference(truth).area < 0.03 * truth.area + px
        assert row.geometry.exterior.is_ccw
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        assert (row.tile_col, row.tile_row) == tuple(int(m // 100) for m in middle)
        assert row.tile_id == f"a.tif/{row.tile_row}/{row.tile_col}"
        assert row.question_id == f"find-{label}"
        assert row.processing_id == f"processing-find-{label}"
    tank = next(r for r in frame.itertuples() if r.tile_row == 1 and r.label == "oil tank")
    assert sorted(tank.seen_by) == ["a.tif/0/0", "a.tif/1/0", "a.tif/2/0"]
    assert tank.score == pytest.approx(0.7)


def test_the_table_is_valid_and_the_same_however_parts_end(tmp_path):
    contents = set()
    for tiles_per_part in (1, 5, 12):
        parts = written(tmp_path / str(tiles_per_part), source(), tiles_per_part)
        path = tmp_path / "detections.parquet"
        finish_detections(path, found(parts, source(), WKT), WKT, "p", 100)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    report = geoparquet_validator.check(str(path))
    assert geoparquet_validator.failed(report, "core") == []
    assert geoparquet_validator.failed(report, "covering") == []
    assert pq.read_table(path).schema.names == DETECTIONS.names


def test_a_part_keeps_every_tile_and_what_was_malformed(tmp_path):
    (part,) = written(tmp_path, source(), 12, nodata={(0, 1)})
    table = pq.read_table(part)
    assert table.num_rows == len(GRID) * len(LABELS)
    nodata = np.array(table["status"]) == "nodata"
    assert nodata.sum() == 2
    assert [m is None for m in table["malformed"].to_pylist()] == nodata.tolist()
    assert [b is None for b in table["boxes"].to_pylist()] == nodata.tolist()
    assert sum(m or 0 for m in table["malformed"].to_pylist()) == sum(
        bool(b) for b in table["boxes"].to_pylist()
    )  # one beside each answer with boxes
    band = band_of(table, GRID, len(LABELS))
    assert band.tiles.asked.sum() == table.num_rows - 2


def test_several_systems_become_longitude_and_latitude(tmp_path):
    src = source()
    tables = found(written(tmp_path / "parts", src), src, LONLAT)
    path = tmp_path / "detections.parquet"
    finish_detections(path, tables, LONLAT, "p", 100)
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert set(frame["source_crs"]) == {"EPSG:32633"}
    to_lonlat = Transformer.from_crs(32633, LONLAT, always_xy=True).transform
    truth = [shapely.transform(polygon(box, src.transform), to_lonlat, interleaved=False) for _, box in THINGS]
    for shape in frame.geometry:
        assert max(shape.intersection(t).area / shape.union(t).area for t in truth) > 0.9


def test_nothing_found_is_a_table_without_rows(tmp_path):
    path = tmp_path / "detections.parquet"
    finish_detections(path, [], WKT, "p", 0)
    frame = geopandas.read_parquet(path)
    assert set(frame.columns) == set(DETECTIONS.names) - {"bbox"}  # geopandas leaves that out
    assert len(frame) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 1)), max_size=30))
def test_counts_are_those_of_a_plain_loop(objects):
    """Three areas side by side, the third overlapping the second, and one far away."""
    areas = [
        shapely.box(0, 0, 5, 20),
        shapely.box(5, 0, 12, 20),
        shapely.box(10, 5, 20, 15),
        shapely.box(99, 0, 100, 1),
    ]
    expected = np.zeros((4, 2), int)
    for x, y, label in objects:
        point = shapely.Point(x, y)
        inside = [i for i, area in enumerate(areas) if area.contains(point)]
        border = [i for i, area in enumerate(areas) if area.touches(point)][:1]
        for i in inside or border:
            expected[i, label] += 1
    table = np.array(objects, np.int64).reshape(-1, 3)
    counts = count_in_areas(table[:, :2].astype(float), table[:, 2], 2, areas)
    assert (counts == expected).all()
