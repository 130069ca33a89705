import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb
import geopandas
import geoparquet_validator
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from answer_key import (
    PLAN_ID,
    QUESTIONS,
    WATER,
    all_tiles,
    confidence,
    ring,
    rows,
    source,
    status,
    tile_status,
    value,
    wkt,
    write_parts,
)
from pyproj import CRS, Transformer

from rsqa.errors import OutputError, SourceRefused
from rsqa.sinks import geoparquet
from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.part import write_part

SOURCE = source(shape=(30, 20))
TILES = all_tiles(SOURCE)
ROTATED = (1.5, 0.5, 500_000, 0.5, -1.5, 4_600_000)


def finish(folder: Path, sources=(SOURCE,), tiles_per_part=47):
    parts = write_parts(folder / f"parts{tiles_per_part}", sources, tiles_per_part)
    path = folder / "answers.parquet"
    return path, finish_answers(path, parts, QUESTIONS, [s.crs_wkt for s in sources], PLAN_ID)


@pytest.mark.parametrize("transform", [SOURCE.transform, ROTATED], ids=["north up", "rotated"])
def test_all_readers_agree_on_crs_geometry_and_values(tmp_path, transform):
    src = replace(SOURCE, transform=transform)
    path, _ = finish(tmp_path, [src])
    truth = [
        (row, col, question.id, value(question, row, col), status(question, row, col))
        for row, col in TILES
        for question in QUESTIONS
    ]
    polygons = shapely.polygons([ring(src, *tile) for tile in TILES for _ in QUESTIONS])

    arrow = pq.read_table(path)
    names = ["tile_row", "tile_col", "question_id", "value", "status"]
    assert [tuple(row.values()) for row in arrow.select(names).to_pylist()] == truth
    assert shapely.equals(shapely.from_wkb(arrow["geometry"].to_numpy()), polygons).all()

    frame = geopandas.read_parquet(path)
    assert frame.crs == "EPSG:32633"
    assert frame.geometry.geom_equals(geopandas.GeoSeries(polygons, crs=frame.crs)).all()
    assert frame["value"].fillna("null").tolist() == [answer or "null" for _, _, _, answer, _ in truth]
    corner = geopandas.read_parquet(path, bbox=tuple(polygons[0].buffer(-1).bounds))
    assert (0, 0) in set(zip(corner["tile_row"], corner["tile_col"], strict=True))
    assert len(corner) < len(frame) / 4

    table = duckdb.sql(f"select * from read_parquet('{path}')")
    assert "GEOMETRY" in str(dict(zip(table.columns, table.types, strict=True))["geometry"])
    (systems,) = duckdb.sql(f"select distinct st_crs(geometry) from read_parquet('{path}')").fetchall()
    assert "32633" in str(systems)
    texts = duckdb.sql(f"select st_astext(geometry) from read_parquet('{path}')").fetchall()
    assert shapely.equals_exact(shapely.from_wkt([text for (text,) in texts]), polygons, 1e-6).all()
    assert duckdb.sql(f"select {', '.join(names)} from read_parquet('{path}')").fetchall() == truth


def test_the_table_passes_the_geoparquet_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "GROUP_ROWS", 90)
    path, _ = finish(tmp_path)
    report = geoparquet_validator.check(str(path))
    assert geoparquet_validator.failed(report, "core") == []
    assert geoparquet_validator.failed(report, "covering") == []
    assert report["outcomes"]


def test_nothing_shows_where_parts_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "GROUP_ROWS", 500)
    contents = set()
    for tiles_per_part in (7, 47, 600):
        path, _ = finish(tmp_path, tiles_per_part=tiles_per_part)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    sizes = [pq.read_metadata(path).row_group(i).num_rows for i in range(4)]
    assert sizes == [498, 498, 498, 306]


def test_row_groups_are_bounded_in_space(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "GROUP_ROWS", 180)
    path, _ = finish(tmp_path)
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    names = [groups[0].column(i).path_in_schema for i in range(metadata.num_columns)]
    low = [group.column(names.index("bbox.ymin")).statistics.min for group in groups]
    high = [group.column(names.index("bbox.ymax")).statistics.max for group in groups]
    assert high == sorted(set(high), reverse=True)
    assert all(top - bottom < 5 * 112 for bottom, top in zip(low, high, strict=True))


def test_large_tables_become_a_folder_and_small_ones_a_file_again(tmp_path, monkeypatch):
    whole = pq.read_table(finish(tmp_path)[0])
    monkeypatch.setattr(geoparquet, "GROUP_ROWS", 60)
    monkeypatch.setattr(geoparquet, "MOST_ROWS", 1799)
    path, summary = finish(tmp_path)
    files = sorted(path.iterdir())
    assert [file.name for file in files] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert [pq.read_metadata(file).num_rows for file in files] == [600, 600, 600]
    assert pa.concat_tables([pq.read_table(file) for file in files]).equals(whole)
    assert summary.n_rows == 1800
    for file in files:
        assert geoparquet_validator.failed(geoparquet_validator.check(str(file)), "core") == []
    assert len(geopandas.read_parquet(path)) == 1800
    monkeypatch.undo()
    assert finish(tmp_path)[0].is_file()
    assert pq.read_table(path).equals(whole)


def test_several_systems_become_longitude_and_latitude(tmp_path):
    sources = [source("a.tif"), source("b.tif", wkt(32634), (20, 0, 300_000, 0, -20, 5_000_000))]
    path, _ = finish(tmp_path, sources)
    frame = geopandas.read_parquet(path)
    boxes = pq.read_table(path)["bbox"].to_pylist()
    assert frame.crs == "OGC:CRS84"
    assert frame["source_crs"].unique().tolist() == ["EPSG:32633", "EPSG:32634"]
    for row, box in zip(frame.itertuples(), boxes, strict=True):
        src = sources[row.source == "b.tif"]
        there = Transformer.from_crs(src.crs_wkt, "OGC:CRS84", always_xy=True)
        lonlat = np.stack(there.transform(*ring(src, row.tile_row, row.tile_col).T), axis=1)
        assert shapely.get_coordinates(row.geometry) == pytest.approx(lonlat, abs=1e-9)
        assert tuple(box.values()) == row.geometry.bounds
    assert geoparquet_validator.failed(geoparquet_validator.check(str(path)), "core") == []
    assert geoparquet_validator.failed(geoparquet_validator.check(str(path)), "covering") == []


def test_tiles_over_the_antimeridian_are_cut_in_longitude_and_latitude_only(tmp_path):
    line = source("line.tif", wkt(4326), (0.001, 0, 179.9, 0, -0.001, 10), shape=(2, 4))
    alone = geopandas.read_parquet(finish(tmp_path, [line])[0])
    assert set(alone.geom_type) == {"Polygon"}
    assert alone.total_bounds[2] == pytest.approx(179.9 + 0.001 * line.width)
    # Unwrapped on purpose: degrees beyond 180 keep the tiles whole, and are all that the rules object to.
    failed = geoparquet_validator.failed(geoparquet_validator.check(str(tmp_path / "answers.parquet")))
    assert failed == ["/conf/core/axis-order", "/conf/core/bbox-crs"]

    path, _ = finish(tmp_path, [line, source()])
    together = geopandas.read_parquet(path)
    cut = together[together.geom_type == "MultiPolygon"]
    assert set(cut["tile_col"]) == {1}
    boxes = pq.read_table(path)["bbox"].take(pa.array(cut.index)).to_pylist()
    assert {(box["xmin"], box["xmax"]) for box in boxes} == {(-180, 180)}
    lines = together[together["source"] == "line.tif"]
    assert shapely.area(lines.geometry).sum() == pytest.approx(shapely.area(alone.geometry).sum())
    assert together.total_bounds[[0, 2]].tolist() == [-180, 180]
    geo = pq.read_metadata(path).metadata[b"geo"]
    assert b'"geometry_types": ["MultiPolygon", "Polygon"]' in geo
    assert geoparquet_validator.failed(geoparquet_validator.check(str(path)), "core") == []


def test_windows_move_to_longitude_and_latitude_too(tmp_path):
    sources = [source("a.tif"), source("b.tif", wkt(32634))]
    parts = []
    for number, src in enumerate(sources):
        tiles = all_tiles(src)[:4]
        windows = np.full((4, 4), np.nan)
        windows[2] = 500_000, 4_500_000, 500_448, 4_500_448
        parts.append(tmp_path / f"{number}.parquet")
        write_part(parts[-1], [replace(rows(src, tiles), windows=windows)], plan_id=PLAN_ID, number=number)
    finish_answers(tmp_path / "a.parquet", parts, QUESTIONS, [s.crs_wkt for s in sources], PLAN_ID)
    boxes = pq.read_table(tmp_path / "a.parquet")["window_bbox"].to_pylist()[::3]
    assert [box is None for box in boxes] == [True, True, False, True] * 2
    assert boxes[2]["xmin"] == pytest.approx(15)
    assert boxes[6]["xmin"] == pytest.approx(21)


def test_two_worlds_make_no_table(tmp_path):
    europa = CRS.from_proj4("+proj=eqc +R=1560800 +units=m").to_wkt()
    with pytest.raises(SourceRefused, match="none on Earth"):
        finish(tmp_path, [source("a.tif"), source("b.tif", europa)])
    path, _ = finish(tmp_path, [source("b.tif", europa)])
    assert geopandas.read_parquet(path).crs.ellipsoid.semi_major_metre == 1_560_800
    assert geoparquet_validator.failed(geoparquet_validator.check(str(path)), "core") == []


def test_the_summary_counts_what_the_table_holds(tmp_path):
    _, summary = finish(tmp_path)
    assert summary.n_rows == len(TILES) * len(QUESTIONS)
    assert summary.tiles == Counter(tile_status(*tile) for tile in TILES)
    for question, found in zip(QUESTIONS, summary.questions, strict=True):
        assert found.id == question.id
        assert found.statuses == Counter(status(question, *tile) for tile in TILES)
        answers = Counter(value(question, *tile) for tile in TILES if value(question, *tile)) if question.closed else {}
        assert found.counts == answers
        assert list(found.counts) == [option for option in question.options if option in answers]
        for answer, mean in found.mean_confidence.items():
            sure = [confidence(question, *tile) for tile in TILES if value(question, *tile) == answer]
            assert mean == pytest.approx(np.mean(sure))
        assert found.mean_confidence.keys() == found.counts.keys()


def test_a_question_that_failed_alone_is_no_failed_tile(tmp_path):
    tiles = TILES[1:3]
    made = rows(SOURCE, tiles)
    broken = replace(made.questions[0], status=np.array(["error"] * 2, object), error=np.array(["oom"] * 2, object))
    path = tmp_path / "p.parquet"
    write_part(path, [replace(made, questions=(broken, *made.questions[1:]))], plan_id=PLAN_ID, number=0)
    summary = finish_answers(tmp_path / "a.parquet", [path], QUESTIONS, [SOURCE.crs_wkt], PLAN_ID)
    assert summary.tiles == {"ok": 2, "nodata": 0, "error": 0}
    assert summary.questions[0].statuses == {"error": 2}
    assert pq.read_table(tmp_path / "a.parquet")["error"].to_pylist()[::3] == ["oom", "oom"]


def test_no_part_yet_is_an_empty_table(tmp_path):
    path = tmp_path / "answers.parquet"
    summary = finish_answers(path, [], QUESTIONS, [SOURCE.crs_wkt], PLAN_ID)
    assert summary.n_rows == 0
    assert len(geopandas.read_parquet(path)) == 0
    assert geoparquet_validator.failed(geoparquet_validator.check(str(path)), "core") == []


def test_a_damaged_part_is_named_and_the_old_table_stays(tmp_path):
    path, _ = finish(tmp_path)
    old = path.read_bytes()
    parts = sorted((tmp_path / "parts47").iterdir())
    harmed = bytearray(parts[2].read_bytes())
    harmed[300] ^= 1
    parts[2].write_bytes(harmed)
    with pytest.raises(OutputError, match=r"part .*00000002\.parquet is damaged or missing; delete it"):
        finish_answers(path, parts, QUESTIONS, [SOURCE.crs_wkt], PLAN_ID)
    parts[2].unlink()
    with pytest.raises(OutputError, match=r"part .*00000002\.parquet is damaged or missing; delete it"):
        finish_answers(path, parts, QUESTIONS, [SOURCE.crs_wkt], PLAN_ID)
    assert path.read_bytes() == old
    assert {entry.name for entry in tmp_path.iterdir()} == {"answers.parquet", "parts47"}


MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
from answer_key import *
from rsqa.run.resident import peak_bytes
from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.zarr import finish_cube
folder, n_parts = Path(sys.argv[2]), int(sys.argv[3])
src = source(shape=(n_parts * 10, 1000))
part = folder / "part.parquet"
parts = [part] * n_parts
finish_answers(folder / "answers.parquet", parts, (WATER,), [src.crs_wkt], PLAN_ID)
finish_cube(folder / "tiles.zarr", parts, [src], (WATER,), PLAN_ID)
print(peak_bytes())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path):
    tiles = [(row, col) for row in range(10) for col in range(1000)]
    write_part(tmp_path / "part.parquet", [rows(source(shape=(10, 1000)), tiles, (WATER,))], plan_id=PLAN_ID, number=0)
    peaks = []
    for n_parts in (30, 120):  # 300 thousand and 1.2 million rows
        command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(tmp_path), str(n_parts)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 64 << 20
