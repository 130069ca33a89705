import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pystac
import pytest
import shapely
from answer_key import ACQUIRED, PLAN_ID, QUESTIONS, source, wkt
from pyproj import CRS
from shapely.geometry import shape

from rsqa.sinks import stac
from rsqa.sinks.stac import write_item

SOURCE = source()


@pytest.fixture
def write(tmp_path):
    def write(sources=(SOURCE,)) -> dict:
        (tmp_path / "answers.parquet").touch()
        software = {"torch": "2.13", "rsqa": "0.1.0"}
        write_item(tmp_path / "item.json", sources, QUESTIONS, PLAN_ID, software, "Tiles were shown to a model.")
        return json.loads((tmp_path / "item.json").read_text())

    return write


def test_the_item_reads_back(write, tmp_path):
    (tmp_path / "tiles.zarr").mkdir()
    write()
    item = pystac.Item.from_file(str(tmp_path / "item.json"))
    assert item.id == f"rsqa-{PLAN_ID}"
    assert item.datetime == ACQUIRED
    assert {name: (a.href, a.media_type) for name, a in item.assets.items()} == {
        "answers": ("./answers.parquet", "application/vnd.apache.parquet"),
        "cube": ("./tiles.zarr", "application/vnd+zarr"),
        "run": ("./run.json", "application/json"),
    }
    assert item.properties["processing:level"] == "L4"
    assert list(item.properties["processing:software"]) == ["rsqa", "torch"]
    assert item.properties["proj:code"] == "EPSG:32633"
    assert len(item.stac_extensions) == 2


def test_there_is_no_cube_asset_without_a_cube(write):
    assert set(write()["assets"]) == {"answers", "run"}


def test_the_footprint_is_where_the_source_is(write):
    item = write()
    west, south, east, north = item["bbox"]
    assert shape(item["geometry"]).bounds == (west, south, east, north)
    assert (west, north) == pytest.approx((15, 41.5517), abs=1e-3)
    metres = 2 * np.array([SOURCE.width, SOURCE.height])
    assert (east - west) * 83_500 == pytest.approx(metres[0], rel=0.01)
    assert (north - south) * 111_070 == pytest.approx(metres[1], rel=0.01)
    assert shape(item["geometry"]).exterior.is_ccw


def test_times_are_those_of_the_imagery(write):
    later = replace(SOURCE, acquired=ACQUIRED + timedelta(days=2))
    assert write()["properties"]["datetime"] == "2021-06-05T04:03:02Z"
    span = write([later, SOURCE])["properties"]
    assert span["datetime"] is None
    assert (span["start_datetime"], span["end_datetime"]) == ("2021-06-05T04:03:02Z", "2021-06-07T04:03:02Z")


def test_imagery_without_a_date_could_be_of_any_time(write, tmp_path):
    properties = write([SOURCE, replace(SOURCE, acquired=None)])["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "0001-01-01T00:00:00Z"
    assert properties["end_datetime"] == "9999-12-31T23:59:59Z"
    assert pystac.Item.from_file(str(tmp_path / "item.json")).datetime is None


def test_across_the_antimeridian_west_is_greater_than_east(write):
    item = write([source("line.tif", wkt(32660), (100, 0, 800_000, 0, -100, 100_000))])
    west, south, east, north = item["bbox"]
    assert west > 179
    assert east < -179
    assert -1 < south < north < 1
    assert item["geometry"]["type"] == "MultiPolygon"
    assert shape(item["geometry"]).is_valid


def test_the_box_around_several_sources_is_the_smaller_of_the_two_ways_round(write):
    def degree(lon):
        return source(f"{lon}.tif", wkt(4326), (0.001, 0, lon, 0, -0.001, 10))

    assert write([degree(10), degree(-80)])["bbox"][0:3:2] == pytest.approx([-80, 10 + 0.494])
    assert write([degree(170), degree(-170)])["bbox"][0:3:2] == pytest.approx([170, -170 + 0.494])


def test_many_sources_show_the_box_around_them(write, monkeypatch):
    sources = [replace(SOURCE, name=str(i), transform=(2, 0, 500_000 + 5000 * i, 0, -2, 4_600_000)) for i in range(5)]
    outlines = shape(write(sources)["geometry"])
    assert outlines.geom_type == "MultiPolygon"
    monkeypatch.setattr(stac, "MOST_OUTLINES", 4)
    box = write(sources)
    assert shape(box["geometry"]).equals(shapely.box(*outlines.bounds))
    line = [source(f"{i}", wkt(32660), (100, 0, 600_000 + 50_000 * i, 0, -100, 0)) for i in range(5)]
    assert shape(write(line)["geometry"]).bounds[0::2] == (-180, 180)
    assert write(line)["bbox"][0] > write(line)["bbox"][2]


def test_several_systems_are_longitude_and_latitude(write):
    assert write([SOURCE, source("b.tif", wkt(32634))])["properties"]["proj:code"] == "OGC:CRS84"


def test_imagery_of_another_world_has_no_place_on_this_one(write, tmp_path):
    europa = CRS.from_proj4("+proj=eqc +R=1560800 +units=m").to_wkt()
    item = write([source("e.tif", europa)])
    assert item["geometry"] is None
    assert "bbox" not in item
    assert CRS.from_wkt(item["properties"]["proj:wkt2"]).ellipsoid.semi_major_metre == 1_560_800
    assert pystac.Item.from_file(str(tmp_path / "item.json")).geometry is None


def test_the_same_plan_gives_the_same_bytes(write, tmp_path):
    write()
    first = (tmp_path / "item.json").read_bytes()
    write()
    assert (tmp_path / "item.json").read_bytes() == first
