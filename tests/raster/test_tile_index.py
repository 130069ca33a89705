"""GDAL's tile indexes: one source, the same pixels as GDAL's own driver shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from truth_rasters import UTM, places, read_all

from rsqa.errors import InputError, SourceMissing, SourceRefused
from rsqa.raster.describe import check_unchanged
from rsqa.raster.folders import expand
from rsqa.raster.tile_index import is_tile_index, open_index

OVERLAPPING = {"a.tif": (0, 0, 200), "b.tif": (0, 150, 250), "c.tif": (150, 0, 400)}
"""Row, column, width; all are 200 px high."""


@pytest.fixture
def index(tmp_path, write):
    """index(name, **metadata) -> path of an index of three files, each darker than the one before."""

    pixels = places(350, 400)
    boxes = []
    for number, (file, (row, col, width)) in enumerate(OVERLAPPING.items()):
        shown = pixels[:, row : row + 200, col : col + width] // (number + 1)
        path = write(shown, f"t/{file}", transform=UTM["transform"] @ Affine.translation(col, row))
        with rasterio.open(path) as dataset:
            boxes.append(shapely.box(*dataset.bounds))

    def make(name: str = "m.gti.gpkg", field: str = "location", driver: str = "GPKG", **metadata: str) -> str:
        table = geopandas.GeoDataFrame(
            {field: [f"t/{name}" for name in OVERLAPPING], "rank": [2, 3, 1]}, geometry=boxes, crs=UTM["crs"]
        )
        path = tmp_path / name
        pyogrio.write_dataframe(table, path, driver=driver, layer_metadata=metadata or None)
        return str(path)

    return make


def opened(path: str, **options):
    [(full, name)] = expand([path])
    assert is_tile_index(full)
    return open_index(full, name, options.get("bands"), None)


def shown(path: str) -> np.ndarray:
    """(3, H, W) of a source in one tile."""
    source = opened(path)
    tiles, _ = read_all(source, 400)
    return tiles[0, 0][0][:, : source.height, : source.width]


@pytest.mark.parametrize(
    "metadata",
    [{}, {"SORT_FIELD": "rank"}, {"SORT_FIELD": "rank", "SORT_FIELD_ASC": "NO"}, {"RESX": "1", "RESY": "1.0"}],
)
def test_files_lie_above_one_another_as_gdal_lays_them(index, metadata):
    path = index(**metadata)
    with rasterio.open(path, driver="GTI") as dataset:
        expected = dataset.read()
        source = opened(path)
        assert source.transform == tuple(dataset.transform)[:6]
    assert expected.shape == (3, 350, 400)
    np.testing.assert_array_equal(shown(path), expected)


def test_an_index_of_another_format_is_named_with_a_prefix(index):
    as_gdal = shown(index())
    np.testing.assert_array_equal(shown(f"GTI:{index('m.shp', driver='ESRI Shapefile')}"), as_gdal)
    np.testing.assert_array_equal(shown(index("m.gti.fgb", driver="FlatGeobuf", SORT_FIELD="rank")),
                                  shown(index(SORT_FIELD="rank")))  # fmt: skip
    np.testing.assert_array_equal(shown(index(field="path", LOCATION_FIELD="path")), as_gdal)


def test_the_files_and_their_order_are_what_it_is_known_by(index, tmp_path, write):
    path = index()
    source = opened(path)
    assert (source.name, len(source.members)) == ("m.gti.gpkg", 3)
    assert opened(index(SORT_FIELD="rank")).fingerprint != source.fingerprint
    index()  # as it was
    elsewhere = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_moved"))
    assert opened(str(elsewhere / "m.gti.gpkg")).fingerprint == source.fingerprint
    check_unchanged(source)
    write(places(200, 200) // 9, "t/a.tif")
    with pytest.raises(InputError, match=r"'a\.tif' is not the file"):
        check_unchanged(source)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"RESX": "2"}, "sets RESX to '2', other than its files"),
        ({"NODATA": "7"}, "sets NODATA to '7'"),
        ({"SRS": "EPSG:4326"}, "sets SRS"),
        ({"SORT_FIELD": "date"}, "has no field 'date'"),
        ({"LOCATION_FIELD": "path"}, "has no field 'path'"),
    ],
)
def test_what_can_not_be_followed_is_refused(index, metadata, words):
    with pytest.raises(SourceRefused, match=words) as caught:
        opened(index(**metadata))
    assert "\n" not in str(caught.value)


def test_an_index_or_a_file_of_it_that_can_not_be_read_is_told(index, tmp_path):
    path = index()
    (tmp_path / "t/b.tif").unlink()
    with pytest.raises(SourceMissing, match=r"b\.tif"):
        opened(path)
    Path(path).write_bytes(b"cut short")
    with pytest.raises(SourceRefused, match="is no GeoPackage"):
        opened(path)
    with pytest.raises(SourceMissing, match="there is no file"):
        opened(str(tmp_path / "none.gti.fgb"))
    with pytest.raises(SourceRefused, match="copy it here"):
        opened("https://host.example/m.gti.fgb")


@pytest.mark.parametrize("location", ["/vsizip//etc/a.zip", None, ""])
def test_an_index_names_files_and_addresses_and_nothing_else(tmp_path, location):
    table = geopandas.GeoDataFrame({"location": [location]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    table.to_file(tmp_path / "m.gti.gpkg")
    with pytest.raises(SourceRefused, match=r"names no file|only the command line may"):
        opened(str(tmp_path / "m.gti.gpkg"))
