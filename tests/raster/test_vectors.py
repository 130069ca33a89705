"""Files of shapes: every kind that is taken, and those that would make GDAL open something else."""

from __future__ import annotations

import json
import sqlite3

import geopandas
import pytest
import shapely

from rsqa.errors import SourceMissing, SourceRefused
from rsqa.raster.vectors import read_shapes

pytestmark = pytest.mark.timeout(60)  # a server that is asked, and never answers, is waited for

SQUARE = shapely.box(12, 49, 13, 50)
SHAPE = json.loads(shapely.to_geojson(SQUARE))


def table(crs: int = 4326) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"name": ["field"]}, geometry=[SQUARE], crs=crs)


def features(shape=SHAPE, **members) -> str:
    feature = {"type": "Feature", "properties": {"name": "field"}, "geometry": shape}
    return json.dumps({"type": "FeatureCollection", "features": [feature], **members})


def refusal(path, content: str | bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SourceRefused) as caught:
        read_shapes(str(path), "--aoi")
    message = str(caught.value)
    assert message.startswith("--aoi")
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.shp", "a.geojson", "a.parquet"])
def test_a_file_is_known_by_its_content(tmp_path, name):
    path = tmp_path / name
    table().to_parquet(path) if name.endswith("parquet") else table().to_file(path)
    if not name.endswith(("shp", "gpkg")):  # of which GDAL wants the ending too
        path = path.rename(tmp_path / "renamed.bin")
    found = read_shapes(str(path), "--aoi")
    assert found.crs in ("EPSG:4326", "OGC:CRS84")
    assert found.geometry[0].equals(SQUARE)
    assert found["name"][0] == "field"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SHAPE),
        json.dumps({"type": "Feature", "geometry": SHAPE, "properties": None}),
        "\ufeff\n" + features(),
        features(crs=None),
        features(crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}),
        features(features=[{"type": "Feature", "geometry": SHAPE, "properties": {}}] * 2),
    ],
)
def test_geojson_in_all_its_forms(tmp_path, content):
    (tmp_path / "a.geojson").write_text(content)
    found = read_shapes(str(tmp_path / "a.geojson"), "--aoi")
    assert found.geometry[0].equals(SQUARE)
    assert found.crs.is_geographic


def test_the_crs_of_geojson_may_be_a_name(tmp_path):
    content = features(crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}})
    (tmp_path / "a.geojson").write_text(content)
    assert read_shapes(str(tmp_path / "a.geojson"), "--aoi").crs == "EPSG:32633"


def foreign(server: str) -> dict[str, str]:
    """Files that make GDAL ask a server."""
    url = f"http://{server}/x"
    link = {"type": "link", "properties": {"href": url, "url": url}}
    return {
        "crs": features(crs=link),
        "crs of another case": features(crs=link | {"type": "URL"}),
        "crs by name": features(crs={"type": "name", "properties": {"name": url}}),
        "vrt": f'<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/{url}.geojson</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>",
        "vrt in a GeoPackage's clothes": "SQLite format 3\0"
        + "\0" * 52
        + "GPKG<OGRVRTDataSource><OGRVRTLayer name='x'>"
        f"<SrcDataSource>/vsicurl/{url}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
        "wfs": f"<OGRWFSDataSource><URL>{url}</URL></OGRWFSDataSource>",
        "gml": '<?xml version="1.0"?><wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://x {url}"/>',
    }


@pytest.mark.parametrize("kind", foreign(""))
@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg"])
def test_no_file_makes_gdal_ask_a_server(tmp_path, unasked, kind, name):
    refusal(tmp_path / name, foreign(unasked)[kind])


@pytest.mark.parametrize(
    "members", [{"CRS": "link"}, {"features": "link"}], ids=["member of another case", "within a shape"]
)
def test_a_link_where_none_belongs_is_not_followed(tmp_path, unasked, members):
    url = f"http://{unasked}/x"
    link = {"type": "link", "properties": {"href": url, "url": url}}
    content = features(CRS=link) if "CRS" in members else features({**SHAPE, "crs": link})
    (tmp_path / "a.geojson").write_text(content)
    assert read_shapes(str(tmp_path / "a.geojson"), "--aoi").crs == "EPSG:4326"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b'{"type": "FeatureCollection", "features": []}',
        b'{"type": "FeatureCollection", "features": [null]}', b'{"type": "FeatureCollection", "features": 3}',
        b'{"type": "Polygon", "coordinates": [[[0, 0], [1]]]}', b'{"type": "Polygon", "coordinates": "x"}',
        b'{"type": "Circle"}', b'{"type": ["Feature"]}', b'{"type": "FeatureCollection", "features": [{"type": 1}]}',
        b'\xff\xfe{', b"{\xff}", b"fgb\x03fgb\0" + b"\xff" * 100, b"PAR1" * 9, b"\0\0\x27\x0a" + b"\xff" * 200,
        b"SQLite format 3\0" + b"\xff" * 52 + b"GPKG", b"PK\x03\x04", b"name,wkt\na,POINT(0 0)\n",
    ],
)  # fmt: skip
def test_what_is_no_file_of_shapes_is_refused(tmp_path, content):
    refusal(tmp_path / "a.geojson", content)


def test_other_databases_and_empty_geopackages_are_refused(tmp_path):
    sqlite3.connect(tmp_path / "a.gpkg").execute("CREATE TABLE a (b)").connection.close()
    assert "is no GeoPackage" in refusal(tmp_path / "a.gpkg")
    with pytest.raises(SourceMissing, match="there is no file"):
        read_shapes("PG:dbname=x", "--areas")
