import numpy as np
import pytest
import shapely
from answer_key import wkt
from pyproj import CRS

from rsqa.errors import SourceRefused
from rsqa.sinks.ground import common_crs, crs_label, lonlat, on_earth, projjson

EUROPA = CRS.from_proj4("+proj=eqc +R=1560800 +units=m").to_wkt()
LOCAL = 'LOCAL_CS["somewhere",UNIT["metre",1]]'
MOON = (
    'GEOGCS["Moon",DATUM["Moon_2000",SPHEROID["Moon_2000",1737400,0]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
)


def shape(epsg: int, xmin: float, ymin: float, xmax: float, ymax: float):
    ring = [(xmin, ymax), (xmax, ymax), (xmax, ymin), (xmin, ymin), (xmin, ymax)]
    found = lonlat(np.array([ring], float), wkt(epsg))[0]
    assert found.is_valid
    return found


@pytest.mark.parametrize("epsg", [4326, 3857, 32633, 26910, 2263, 3413, 2056])
def test_registered_systems_are_named_by_their_code(epsg):
    assert crs_label(wkt(epsg)) == f"EPSG:{epsg}"
    assert CRS.from_json_dict(projjson(wkt(epsg))) == CRS.from_epsg(epsg)


@pytest.mark.parametrize("text", [EUROPA, LOCAL, MOON])
def test_others_are_named_by_their_wkt_and_are_not_on_earth(text):
    assert crs_label(text) == text
    assert not on_earth(text)
    with pytest.raises(ValueError, match="not on Earth"):
        lonlat(np.zeros((1, 5, 2)), text)


def test_one_system_is_kept_several_become_longitude_and_latitude():
    assert common_crs([wkt(32633), wkt(32633)]) == wkt(32633)
    assert common_crs([MOON, MOON]) == MOON
    assert common_crs([wkt(32633), wkt(32634)]) == "OGC:CRS84"
    with pytest.raises(SourceRefused, match="'Moon' has none on Earth; run rsqa once for each system"):
        common_crs([wkt(32633), MOON])


def test_small_polygons_keep_their_corners():
    assert shape(32633, 500_000, 0, 500_448, 448).bounds == pytest.approx((15, 0, 15.00402, 0.004052), abs=1e-5)
    assert len(shapely.get_coordinates(shape(32633, 500_000, 0, 500_448, 448))) == 5


def test_longitude_comes_first_even_where_the_system_says_otherwise():
    assert shape(4326, 10, 50, 10.5, 50.25).bounds == (10, 50, 10.5, 50.25)


def test_polygons_over_the_antimeridian_are_cut_there():
    found = shape(4326, 179.5, 0, 180.5, 1)
    assert found.geom_type == "MultiPolygon"
    assert sorted(part.bounds for part in found.geoms) == [(-180, 0, -179.5, 1), (179.5, 0, 180, 1)]
    utm = shape(32660, 830_000, 0, 840_000, 10_000)  # 33 to 43 km east of where zone 60 meets zone 1
    assert utm.geom_type == "MultiPolygon"
    assert utm.area == pytest.approx(shape(32660, 820_000, 0, 830_000, 10_000).area, rel=0.01)


def test_longitudes_beyond_180_are_turned_back():
    assert shape(4326, 200, 0, 200.5, 1).bounds == (-160, 0, -159.5, 1)
    assert shape(4326, 350, 0, 370.5, 10).bounds == pytest.approx((-10, 0, 10.5, 10))


@pytest.mark.parametrize(("epsg", "latitude"), [(3413, 90), (3031, -90)])
def test_a_polygon_around_a_pole_reaches_it(epsg, latitude):
    found = shape(epsg, -100_000, -100_000, 100_000, 100_000)
    assert found.covers(shapely.MultiPoint([(lon, latitude) for lon in range(-180, 181, 10)]))
    west, south, east, north = found.bounds
    assert (west, east) == (-180, 180)
    assert max(abs(south), abs(north)) == 90
    assert min(abs(south), abs(north)) > 88


def test_four_polygons_that_meet_at_the_pole_share_the_circle_between_them():
    corners = [(0, 0), (-1e5, 0), (0, -1e5), (-1e5, -1e5)]
    quarters = [shape(3413, x, y, x + 1e5, y + 1e5) for x, y in corners]
    assert sum(quarter.area for quarter in quarters) == pytest.approx(shape(3413, -1e5, -1e5, 1e5, 1e5).area, rel=1e-3)
    for a in range(4):
        for b in range(a):
            assert shapely.intersection(quarters[a], quarters[b]).area < 1e-6


def test_the_whole_world_is_the_whole_world():
    assert shape(4326, -180, -90, 180, 90).area == 360 * 180
    assert shape(3857, -20_037_508, -20_037_508, 20_037_508, 20_037_508).bounds == pytest.approx(
        (-180, -85.0511, 180, 85.0511), abs=1e-3
    )


def test_corners_that_are_nowhere_on_earth_give_no_shape():
    disk = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +ellps=GRS80").to_wkt()
    ring = np.array([(-5.4e6, 5.4e6), (5.4e6, 5.4e6), (5.4e6, -5.4e6), (-5.4e6, -5.4e6), (-5.4e6, 5.4e6)])
    whole, middle = lonlat(np.stack([ring, ring / 100]), disk)
    assert whole is None
    assert middle.is_valid
