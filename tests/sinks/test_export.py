from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from answer_key import finished, source, wkt
from hypothesis import given, settings
from hypothesis import strategies as st

from rsqa.errors import ExitCode, InputError, OutputError, SourceMissing, UsageError
from rsqa.sinks import export
from rsqa.sinks.export import export_csv, export_vector
from rsqa.sinks.finished import open_tables

SOURCE = source(name="=cmd()/a b.tif", shape=(5, 4))
MOON = (
    'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("out"), SOURCE)


@pytest.fixture(scope="module")
def truth(folder):
    return geopandas.read_parquet(folder / "answers.parquet")


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
def test_vector_files_hold_the_table(folder, truth, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    export_vector(path, list(open_tables(folder).values()))
    found = pyogrio.read_dataframe(path)
    assert found.crs.to_epsg() == 32633
    found = found.set_index(["tile_id", "question_id"]).sort_index()
    expected = truth.set_index(["tile_id", "question_id"]).sort_index()  # FlatGeobuf sorts by place
    assert (found.index == expected.index).all()
    assert shapely.equals_exact(found.geometry, expected.geometry, 1e-9, normalize=True).all()
    for column in ("value", "status", "error", "question", "source"):
        assert found[column].fillna("").tolist() == expected[column].fillna("").tolist()
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-7)
    assert {name for name in found.columns if "bbox" in name} == {f"window_bbox_{s}" for s in
                                                                   ("xmin", "ymin", "xmax", "ymax")}  # fmt: skip
    for text, told in zip(found.probabilities, expected.probabilities, strict=True):
        expected_map = {key: pytest.approx(p, abs=1e-6) for key, p in told} if isinstance(told, list) else None
        assert (json.loads(text) if isinstance(text, str) else None) == expected_map
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_geojson_is_rfc_7946(folder, truth, tmp_path):
    path = tmp_path / "a.geojson"
    export_vector(path, list(open_tables(folder).values()))
    found = json.loads(path.read_text())
    assert "crs" not in found
    expected = truth.to_crs("OGC:CRS84")
    assert len(found["features"]) == len(expected)
    for feature, polygon in zip(found["features"], expected.geometry, strict=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.exterior.is_ccw
        assert shapely.hausdorff_distance(shape, polygon) < 2e-7
    assert found["features"][0]["properties"]["tile_row"] == 0


def test_across_the_antimeridian_a_tile_is_cut_and_its_centre_lies_in_it(tmp_path):
    line = source("line.tif", wkt(32660), (2000, 0, 780_000, 0, -2000, 200_000), shape=(1, 3), tile_px=20)
    folder = finished(tmp_path / "out", line)
    table = open_tables(folder)["answers"]
    export_vector(tmp_path / "a.geojson", [table])
    kinds = {f["geometry"]["type"] for f in json.loads((tmp_path / "a.geojson").read_text())["features"]}
    assert kinds == {"Polygon", "MultiPolygon"}
    export_csv(tmp_path / "a.csv", table)
    with open(tmp_path / "a.csv", newline="") as file:
        lons = [float(row["lon"]) for row in csv.DictReader(file)]
    assert all(abs(lon) > 178 for lon in lons)


def test_csv_tells_the_middle_of_each_tile(folder, truth, tmp_path):
    export_csv(tmp_path / "a.csv", open_tables(folder)["answers"])
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(truth)
    middles = truth.geometry.centroid.to_crs("OGC:CRS84")
    for row, middle, (_, told) in zip(rows, middles, truth.iterrows(), strict=True):
        assert (float(row["lon"]), float(row["lat"])) == pytest.approx((middle.x, middle.y), abs=2e-7)
        assert row["value"] == (told["value"] if isinstance(told["value"], str) else "")
        assert row["confidence"] == ("" if np.isnan(told["confidence"]) else str(np.float32(told["confidence"])))
        assert row["source"] == "'=cmd()/a b.tif"


HOSTILE = st.text(st.sampled_from("=+-@\t\r\n＝'\",;<é\x07a1"), max_size=5)


@settings(max_examples=25)
@given(st.lists(HOSTILE | st.none(), min_size=1, max_size=5))
def test_no_cell_of_a_csv_is_a_formula_and_no_text_is_lost(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    batch = pa.record_batch({"text": pa.array(texts, pa.string()), "number": pa.array([-1.5] * len(texts))})
    with export.pcsv.CSVWriter(path, batch.schema) as writer:
        writer.write_batch(export._without_formulas(batch))
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, text in zip(rows, texts, strict=True):
        assert not row["text"].startswith(tuple("=+-@\t\r\n＝"))
        assert row["text"].removeprefix("'") == (text or "").removeprefix("'")
        assert row["number"] == "-1.5"


def test_holes_stay_holes(folder):
    table = open_tables(folder)["answers"]
    around, hole = (
        shapely.box(500_000, 4_600_000, 501_000, 4_601_000),
        shapely.box(500_400, 4_600_400, 500_600, 4_600_600),
    )
    shapes = np.array([shapely.difference(around, hole), None, hole], object)
    found = export._to_lonlat(shapes, table)
    expected = geopandas.GeoSeries(shapes, crs=32633).to_crs("OGC:CRS84")
    assert found[1] is None
    for shape, polygon in zip(found[::2], expected[::2], strict=True):
        assert shapely.area(shapely.symmetric_difference(shape, polygon)) < 1e-5 * polygon.area


def test_only_the_rows_that_are_wanted(folder, tmp_path):
    export_vector(tmp_path / "a.gpkg", [open_tables(folder)["answers"]], ds.field("question_id") == "water")
    assert set(pyogrio.read_dataframe(tmp_path / "a.gpkg").question_id) == {"water"}


def test_no_more_than_a_batch_is_held(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "BATCH_ROWS", 7)
    seen = []
    real = export._flat
    monkeypatch.setattr(export, "_flat", lambda batch, place: seen.append(batch.num_rows) or real(batch, place))
    export_vector(tmp_path / "a.gpkg", [open_tables(folder)["answers"]])
    assert max(seen) <= 7
    assert sum(seen) == 60


def test_what_is_not_on_earth_has_no_longitude(tmp_path):
    moon = source("moon.tif", MOON, (0.01, 0, 3, 0, -0.01, 4), (2, 2))
    table = open_tables(finished(tmp_path / "out", moon))["answers"]
    with pytest.raises(UsageError, match="GeoJSON holds longitude and latitude"):
        export_vector(tmp_path / "a.geojson", [table])
    export_vector(tmp_path / "a.gpkg", [table])
    assert "Moon" in str(pyogrio.read_info(tmp_path / "a.gpkg")["crs"])
    export_csv(tmp_path / "a.csv", table)
    with open(tmp_path / "a.csv", newline="") as file:
        assert {(row["lon"], row["lat"]) for row in csv.DictReader(file)} == {("", "")}


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.csv"])
def test_rows_without_a_place_are_kept(tmp_path, folder, name):
    table = pq.read_table(folder / "answers.parquet")
    bare = table.set_column(table.schema.get_field_index("geometry"), "geometry", pa.nulls(len(table), pa.binary()))
    out = tmp_path / "out"
    out.mkdir()
    metadata = pq.read_metadata(folder / "answers.parquet").metadata
    pq.write_table(bare.replace_schema_metadata(metadata), out / "answers.parquet")
    (out / "run.json").write_text("{}")
    found = open_tables(out)["answers"]
    if name == "a.csv":
        export_csv(tmp_path / name, found)
        assert len((tmp_path / name).read_text().splitlines()) == len(table) + 1
    else:
        export_vector(tmp_path / name, [found])
        assert pyogrio.read_info(tmp_path / name)["features"] == len(table)


def test_a_place_that_cannot_be_written_is_one_line(folder, tmp_path):
    table = open_tables(folder)["answers"]
    for write in (lambda path: export_csv(path, table), lambda path: export_vector(path, [table])):
        with pytest.raises(OutputError) as caught:
            write(tmp_path / "not there" / "a.gpkg")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == ExitCode.OUTPUT


def test_a_failure_leaves_the_earlier_export(folder, tmp_path, monkeypatch):
    path = tmp_path / "a.gpkg"
    path.write_bytes(b"earlier")

    def fail(*args, **kwargs):
        raise pyogrio.errors.DataLayerError("disk full\nsaid the driver")

    monkeypatch.setattr(export.pyogrio.raw, "write_arrow", fail)
    with pytest.raises(OutputError, match="disk full said the driver"):
        export_vector(path, [open_tables(folder)["answers"]])
    assert path.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gpkg"]


FULL = """
import resource, sys
from pathlib import Path
from rsqa.errors import OutputError
from rsqa.sinks.export import export_csv, export_vector
from rsqa.sinks.finished import open_tables
table, out = open_tables(Path(sys.argv[1]))["answers"], Path(sys.argv[2])
for name in ("a.fgb", "a.geojson", "a.gpkg", "a.csv"):
    write = export_csv if name == "a.csv" else lambda path, table: export_vector(path, [table])
    write(out / name, table)
    whole = (out / name).stat().st_size
    for room in (whole - 4, whole // 2, 100):  # three bytes less, and GeoJSON loses its last bracket
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            write(out / "full" / name, table)
        except OutputError as error:
            print(name, str(error).startswith(f"can't write {out / 'full' / name}: "))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_full_disk_is_noticed_even_where_the_last_byte_has_no_room(folder, tmp_path):
    (tmp_path / "full").mkdir()
    command = [sys.executable, "-c", FULL, str(folder), str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [f"{name} True" for name in ("a.fgb", "a.geojson", "a.gpkg", "a.csv") for _ in range(3)]
    assert not list((tmp_path / "full").iterdir())


def test_what_is_not_finished_or_not_ours_is_refused(folder, tmp_path):
    with pytest.raises(SourceMissing, match="name an output folder"):
        open_tables(tmp_path)
    (tmp_path / "answers.parquet").write_bytes((folder / "answers.parquet").read_bytes())
    with pytest.raises(SourceMissing, match="not finished"):
        open_tables(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert replace(open_tables(tmp_path)["answers"]).name == "answers"
    (tmp_path / "answers.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="rebuild it with rsqa finish"):
        open_tables(tmp_path)
