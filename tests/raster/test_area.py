"""Which tiles an area touches, against tiles compared one by one on the ground."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rsqa.errors import SourceMissing, SourceRefused
from rsqa.raster.area import Area, read_area, touched_tiles
from rsqa.raster.grid import Layout, TileGrid
from rsqa.raster.source import Level, RasterSource, footprint


def source(transform: Affine, height: int, width: int, epsg: int = 32633) -> RasterSource:
    return RasterSource(
        name="a.tif", path="/a.tif", driver="GTiff", width=width, height=height, dtype="uint8", bands=(1,),
        band_names=("grey",), mask="none", alpha_band=None, nodata=None, palette=False,
        crs_wkt=pyproj.CRS(epsg).to_wkt(), transform=tuple(transform)[:6], gsd_m=1.0,
        levels=(Level(1, None, height, width, Layout(64, 64, True, False)),), acquired=None, fingerprint="a",
        sidecars=False, blocks=None,
    )  # fmt: skip


def area(*polygons: shapely.Geometry, epsg: int = 32633) -> Area:
    return Area("a.gpkg", np.array(polygons, object), pyproj.CRS(epsg))


def touched(asked: Area, raster: RasterSource, tile_px: int) -> set[tuple[int, int]]:
    return {(row, col) for row, start, end in touched_tiles(asked, raster, tile_px) for col in range(start, end)}


@settings(max_examples=30)
@given(
    corners=st.lists(st.tuples(st.integers(-50, 350), st.integers(-50, 250)), min_size=3, max_size=6),
    angle=st.sampled_from([0.0, 17.0, 90.0]),
    tile_px=st.sampled_from([16, 37, 300]),
)
def test_touched_tiles_are_those_with_a_share_of_the_area(corners, angle, tile_px):
    polygon = shapely.convex_hull(shapely.multipoints(np.array(corners, float)))
    if polygon.area < 1:
        return
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(angle) @ Affine.scale(2, -2)
    raster = source(transform, 200, 301)
    on_ground = shapely.transform(polygon, lambda points: np.array([transform @ tuple(p) for p in points]))
    found = touched(area(on_ground), raster, tile_px)
    for tile in TileGrid(200, 301, tile_px):
        shared = shapely.polygons(footprint(raster, [tile.core]))[0].intersection(on_ground).area / 4
        if (tile.row, tile.col) in found:
            assert shared > 0
        else:
            assert shared < 0.01 * 4 * tile_px


def test_an_area_along_tile_edges_does_not_touch_their_neighbours():
    raster = source(Affine(0.5, 0, 5e5, 0, -0.5, 5e6), 400, 400)
    along = shapely.box(5e5 + 50, 5e6 - 150, 5e5 + 100, 5e6 - 50)  # one tile of 100 px wide, two high
    assert touched(area(along), raster, 100) == {(1, 1), (2, 1)}
    lonlat = geopandas.GeoSeries([along.segmentize(1)], crs=32633).to_crs(4326)
    assert touched(area(*lonlat, epsg=4326), raster, 100) == {(1, 1), (2, 1)}


def test_edges_are_straight_where_they_were_drawn():
    """A parallel is a curve in UTM: over 5 degrees it leaves the chord between its ends by kilometres."""
    raster = source(Affine(100, 0, 330_000, 0, -100, 5_560_000), 1000, 3600)  # 360 km x 100 km
    asked = area(shapely.box(12.0, 49.7, 18.0, 60.0), epsg=4326)
    found = touched(asked, raster, 40)
    to_lonlat = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    for tile in TileGrid(1000, 3600, 40):
        [ring] = footprint(raster, [tile.core])
        edge = shapely.get_coordinates(shapely.segmentize(shapely.polygons(ring), 100))
        lon, lat = to_lonlat.transform(edge[:, 0], edge[:, 1])
        inside = (lon > 12) & (lon < 18) & (lat > 49.7)
        assert ((tile.row, tile.col) in found) == inside.any()
    assert 0 < len(found) < 25 * 90


def test_an_area_beyond_the_antimeridian_is_found():
    raster = source(Affine(10, 0, 800_000, 0, -10, 1_000_000), 2000, 6000, epsg=32660)
    to_lonlat = pyproj.Transformer.from_crs(32660, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(800_000 + 55_000, 1_000_000 - 10_000)
    assert lon < -179
    here = shapely.box(lon - 0.001, lat - 0.001, lon + 0.001, lat + 0.001)
    assert touched(area(here, epsg=4326), raster, 1000) == {(0, 5), (1, 5)}


def test_the_whole_world_is_everything_and_another_place_is_nothing():
    raster = source(Affine(1, 0, 5e5, 0, -1, 5e6), 300, 500)
    assert len(touched(area(shapely.box(-180, -90, 180, 90), epsg=4326), raster, 100)) == 15
    assert touched(area(shapely.box(100, 10, 110, 20), epsg=4326), raster, 100) == set()


def test_an_area_is_known_by_what_it_says_and_not_by_its_file(tmp_path):
    table = geopandas.GeoDataFrame({"name": ["x"]}, geometry=[shapely.box(12, 49, 13, 50)], crs=4326)
    table.to_file(tmp_path / "a.gpkg")
    table.to_file(tmp_path / "b.geojson", driver="GeoJSON")
    table.to_parquet(tmp_path / "c.parquet")
    digests = {read_area(str(tmp_path / name)).digest for name in ("a.gpkg", "c.parquet")}
    assert len(digests) == 1
    assert read_area(str(tmp_path / "b.geojson")).polygons[0].equals(table.geometry[0])
    table.translate(0.1).to_file(tmp_path / "d.gpkg")
    assert read_area(str(tmp_path / "d.gpkg")).digest not in digests


def test_what_is_no_area_is_refused_in_one_line(tmp_path):
    def refusal(path, kind=SourceRefused) -> str:
        with pytest.raises(kind) as caught:
            read_area(str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no file" in refusal(tmp_path / "none.gpkg", SourceMissing)
    (tmp_path / "text.gpkg").write_text("not a map")
    assert "is no GeoPackage" in refusal(tmp_path / "text.gpkg")
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs=4326)
    points.to_file(tmp_path / "points.geojson")
    assert "Point, polygons are wanted" in refusal(tmp_path / "points.geojson")
    square = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    square.to_file(tmp_path / "two.gpkg", layer="fields")
    square.to_file(tmp_path / "two.gpkg", layer="roads", mode="a")
    assert "2 layers: fields, roads" in refusal(tmp_path / "two.gpkg")
    with pytest.warns(UserWarning, match="crs"):
        square.set_crs(None, allow_override=True).to_file(tmp_path / "nowhere.shp")
    assert "no CRS" in refusal(tmp_path / "nowhere.shp")
