from __future__ import annotations

import json
import os
import threading
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from truth_rasters import TILED, UTM, places, read_all

from rsqa.errors import InputError, SourceChanged, SourceMissing, SourceRefused, UsageError
from rsqa.raster.bands import Masked, asked_mask
from rsqa.raster.describe import check_unchanged, open_source
from rsqa.raster.folders import expand
from rsqa.raster.grid import TileGrid, Window
from rsqa.raster.read import choose_level
from rsqa.raster.source import RasterSource, damage, footprint


def opened(path, **kwargs):
    return open_source(path, name=Path(path).name, **kwargs)


@pytest.fixture
def no_network():
    """Host and port of a server on this machine that must not be asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def handle(self):
            asked.append(self.client_address)  # and hang up

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    assert not asked


# ---- what is described


def test_description_survives_json(write):
    path = write(places(700, 1000).astype(np.float32), nodata=np.nan, **TILED)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
        dataset.update_tags(TIFFTAG_DATETIME="2021:06:05 10:11:12")
    source = opened(path)
    text = json.dumps(source.to_json(), allow_nan=False)
    again = RasterSource.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert {f: getattr(again, f) for f in again.__slots__ if f != "nodata"} == {
        f: getattr(source, f) for f in source.__slots__ if f != "nodata"
    }
    assert np.isnan(again.nodata)
    assert (again.height, again.width, again.dtype, again.overviews) == (700, 1000, "float32", (2, 4))
    assert again.acquired == datetime(2021, 6, 5, 10, 11, 12, tzinfo=UTC)
    assert choose_level(again, 448, 112) == 4


def test_time_is_never_made_up(write):
    path = write(places(10, 10))
    assert opened(path).acquired is None
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="0000:00:00 00:00:00")
    assert opened(path).acquired is None
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2020-02-03 04:05:06")
    assert opened(path).acquired == datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("profile", "gsd_m"),
    [
        ({"crs": "EPSG:32633"}, 1.0),
        ({"crs": "EPSG:2263", "transform": from_origin(985_000, 200_000, 3, 3)}, 3 * 0.3048006),  # US feet
        ({"crs": "EPSG:4326", "transform": from_origin(10, 60, 0.001, 0.001)}, 78.9),  # 55.8 m by 111.4 m
        ({"crs": "EPSG:3857", "transform": from_origin(0, 8_399_738, 10, 10)}, 5.0),  # latitude 60: half the map metre
        ({"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 1, 3)}, 3**0.5),
        ({"crs": "EPSG:32633", "transform": Affine(0.8, 0.6, 5e5, 0.6, -0.8, 4.6e6)}, 1.0),  # rotated
        ({"crs": 'LOCAL_CS["shed",UNIT["US survey foot",0.304800609601219]]'}, 0.3048006),
        ({"crs": "+proj=eqc +R=1560800 +units=m +no_defs", "transform": from_origin(0, 1000, 282, 282)}, 282.0),
        ({"crs": "EPSG:32660", "transform": from_origin(820_000, 5_000_000, 100, 100)}, 100.0),  # antimeridian
        ({"crs": "EPSG:4326", "transform": from_origin(359.9, 0.1, 0.01, 0.01)}, 1109.0),
    ],
)
def test_ground_size_of_a_pixel(write, profile, gsd_m):
    assert opened(write(places(64, 64), **profile)).gsd_m == pytest.approx(gsd_m, rel=5e-3)


def test_block_facts_and_damage_in_words(write):
    path = write(np.random.default_rng(0).integers(1, 255, (3, 1024, 1024), dtype=np.uint8), **TILED)
    assert damage(opened(path)) is None
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    source = opened(path)
    assert (
        damage(source)
        == f"'a.tif': {source.blocks.past_end} of 16 blocks lie past the end of the file (it is truncated)"
    )


# ---- bands


@pytest.mark.parametrize(
    ("descriptions", "bands"),
    [
        (("B02", "B03", "B04", "B08"), (3, 2, 1)),
        (("blue", "green", "Red ", "nir"), (3, 2, 1)),
        (("B1", "B2", "B3", "B4"), (1, 2, 3)),  # another mission's names say nothing
        ((None, None, None, None), (1, 2, 3)),
    ],
)
def test_four_bands_are_chosen_by_name(write, descriptions, bands):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = descriptions
    assert opened(path).bands == bands


def test_bands_on_request(write):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "B08")
    assert opened(path, bands=("4", "3", "2")).bands == (4, 3, 2)
    assert opened(path, bands=("nir", "red", "green")).bands == (4, 3, 2)
    assert opened(path, bands=("NIR",)).band_names == ("B08",)


def test_bands_by_the_names_that_they_have_in_the_file(write):
    path = write(np.ones((4, 20, 20), np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B2, central wavelength 490 nm", "B3", "B8A", "Scene Classification")
    assert opened(path, bands=("b8a", "B03", "B02")).bands == (3, 2, 1)
    source = opened(path, masked=Masked("scene classification", (3, 8)))
    assert (source.bands, source.mask_band, source.mask_values) == ((1, 2, 3), 4, (3, 8))
    with pytest.raises(UsageError, match="--bands asks for 'B08', it has 1 B2, central"):
        opened(path, bands=("B08", "B03", "B02"))
    with pytest.raises(UsageError, match="--mask-band asks for 'SCL', it has 1 B2, central"):
        opened(path, masked=Masked("SCL", (3,)))


def test_the_mask_band_is_shown_only_when_asked_for(write):
    path = write(np.ones((2, 20, 20), np.uint8))
    assert opened(path, masked=Masked("1", (0,))).bands == (2,)
    assert opened(path, masked=Masked("1", (0,)), bands=("1",)).bands == (1,)


@pytest.mark.parametrize(
    ("band", "values", "said"),
    [("SCL", None, "go together"), (None, "3", "go together"), ("SCL", "", "together"), ("SCL", "3,cloud", "cloud")],
)
def test_half_a_mask_is_refused(band, values, said):
    with pytest.raises(UsageError, match=said):
        asked_mask(band, values)
    assert asked_mask(None, None) is None
    assert asked_mask("SCL", "9, 3,3") == Masked("SCL", (3, 9))


@pytest.mark.parametrize("bands", [("5", "1", "2"), ("0",), ("swir",), ("1", "2"), ("",)])
def test_bands_that_are_not_there(write, bands):
    with pytest.raises(UsageError, match="--bands"):
        opened(write(np.ones((4, 20, 20), np.uint16)), bands=bands)


def test_two_bands_need_a_choice(write):
    path = write(np.ones((2, 20, 20), np.uint8))
    with pytest.raises(SourceRefused, match="--bands"):
        opened(path)
    assert opened(path, bands=("2",)).bands == (2,)


# ---- what can't be placed on the ground


def test_no_crs_is_refused_with_the_command(write):
    with pytest.raises(SourceRefused, match=r"no CRS: gdal_edit.py -a_srs EPSG:… 'a.tif'"):
        opened(write(places(20, 20), crs=None))


def test_gcps_only_are_refused_with_the_command(tmp_path):
    path = tmp_path / "gcp.tif"
    gcps = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in [(0, 0), (0, 20), (20, 0), (20, 20)]]
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=20, count=3, dtype="uint8", gcps=gcps, crs="EPSG:4326"
    ) as dataset:
        dataset.write(places(20, 20))
    with pytest.raises(SourceRefused, match="gdalwarp -tps"):
        opened(str(path))


def test_rpcs_only_are_refused_with_the_command(write):
    ones = [1.0] * 20
    rpc = RPC(
        height_off=0, height_scale=1, lat_off=50, lat_scale=1, long_off=10, long_scale=1, line_off=10, line_scale=10,
        samp_off=10, samp_scale=10, line_num_coeff=ones, line_den_coeff=ones, samp_num_coeff=ones, samp_den_coeff=ones,
    )  # fmt: skip
    path = write(places(20, 20), crs=None, transform=None, rpcs=rpc)
    with pytest.raises(SourceRefused, match="gdalwarp -rpc"):
        opened(path)


@pytest.mark.parametrize(
    "transform", [None, Affine(0, 0, 5e5, 0, 0, 4e6), Affine(1, 2, 0, 2, 4, 0), Affine(float("nan"), 0, 0, 0, -1, 0)]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_transform_that_places_nothing_is_refused(write, transform):
    with pytest.raises(SourceRefused, match="can't be placed on the ground"):
        opened(write(places(20, 20), transform=transform))


# ---- footprints


TRANSFORMS = {
    "north up": Affine(1, 0, 5e5, 0, -1, 4.6e6),
    "south up": Affine(1, 0, 5e5, 0, 1, 4.6e6),
    "rotated": Affine(0.8, 0.6, 5e5, 0.6, -0.8, 4.6e6),
    "rotated south up": Affine(0.8, -0.6, 5e5, 0.6, 0.8, 4.6e6),
    "mirrored": Affine(-1, 0, 5e5, 0, -1, 4.6e6),
    "1 x 3 m": Affine(1, 0, 5e5, 0, -3, 4.6e6),
    "degrees over the antimeridian": Affine(0.01, 0, 179.5, 0, -0.01, 10),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_footprints_tile_the_raster_exactly(write, transform):
    crs = "EPSG:4326" if transform.c < 1000 else "EPSG:32633"
    source = opened(write(places(97, 131), transform=transform, crs=crs))
    tiles = list(TileGrid(97, 131, 40))
    rings = footprint(source, [tile.core for tile in tiles])
    assert rings.shape == (len(tiles), 5, 2)
    np.testing.assert_array_equal(rings[:, 0], rings[:, -1])
    polygons = shapely.polygons(rings)
    assert shapely.is_ccw(shapely.linearrings(rings)).all()
    area = abs(transform.a * transform.e - transform.b * transform.d)
    for tile, polygon in zip(tiles, polygons, strict=True):
        assert polygon.area == pytest.approx(tile.core.height * tile.core.width * area, rel=1e-6)
        for row, col in [(tile.core.row, tile.core.col), (tile.core.row_end - 1, tile.core.col_end - 1)]:
            assert polygon.contains(shapely.Point(transform @ (col + 0.5, row + 0.5)))
    assert shapely.union_all(polygons, grid_size=1e-9).area == pytest.approx(97 * 131 * area, rel=1e-6)


def test_footprint_corners_are_pixel_corners(write):
    source = opened(write(places(97, 131)))
    ring = footprint(source, [Window(10, 20, 5, 7)])[0]
    assert ring.tolist() == [
        [500020, 4599990],
        [500020, 4599985],
        [500027, 4599985],
        [500027, 4599990],
        [500020, 4599990],
    ]
    assert footprint(source, []).shape == (0, 5, 2)


def test_south_up_and_other_planets_keep_their_crs(write):
    source = opened(write(places(20, 20), crs="+proj=eqc +R=1560800 +units=m +no_defs"))
    assert pyproj.CRS.from_wkt(source.crs_wkt).get_geod().a == 1560800


# ---- what is refused before it is opened


def assert_refused(path, *words):
    with pytest.raises(SourceRefused) as caught:
        opened(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    for word in words:
        assert word in message


def test_missing(tmp_path):
    with pytest.raises(SourceMissing, match=r"no\.tif"):
        opened(str(tmp_path / "no.tif"))
    with pytest.raises(SourceMissing, match="/vsicurl/"):
        opened("https://example.org/a.tif")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"II*\0\x08\0\0\0", ["truncated"]),
        (b"II*\0", ["truncated"]),
        (b"II+\0\x08\0\0\0", ["truncated"]),
        (b"<!DOCTYPE html><title>404</title>", ["not a readable GeoTIFF"]),
        (b"hello\nworld", ["not a readable GeoTIFF"]),
        (b"\x89PNG\r\n\x1a\n", ["PNG picture", "rsqa classify"]),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", ["not a readable GeoTIFF"]),
    ],
)
def test_files_that_are_no_tiff(tmp_path, content, words):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert_refused(path, *words)


def test_a_header_cut_short_is_refused(write):
    path = Path(write(places(300, 300), **TILED))
    whole = path.read_bytes()
    for size in (9, 60, 120, 200):
        path.write_bytes(whole[:size])
        assert_refused(path, "truncated")


def test_fifo_folder_and_symlinks(tmp_path):
    fifo, folder, link, loop = (tmp_path / name for name in ("fifo.tif", "folder.tif", "link.tif", "loop.tif"))
    os.mkfifo(fifo)
    folder.mkdir()
    link.symlink_to("/etc/passwd")
    loop.symlink_to(loop)
    assert_refused(fifo, "regular file")
    assert_refused(folder, "*.tif")
    assert_refused(link, "not a readable GeoTIFF")
    assert_refused(loop)
    with pytest.raises(SourceRefused, match="regular file"):
        opened("/dev/null")


@pytest.mark.parametrize(
    "name", ["a\n[bold]b.tif", "=cmd|.tif", "-rf.tif", " a?b#c.tif", "a!b.tif", "zip:x.tif", "été\u202e.tif"]
)
def test_odd_names_are_read(write, name):
    assert opened(write(places(20, 20), name)).width == 20


def test_a_name_that_is_not_utf8_is_refused(write, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.tif"
    os.rename(write(places(20, 20)), odd)
    with pytest.raises(SourceRefused, match="UTF-8"):
        opened(os.fsdecode(odd))


def test_hostile_sizes_are_refused_at_once(write, tmp_path):
    with pytest.raises(SourceRefused, match="70 bands"):
        opened(write(np.zeros((70, 8, 8), np.uint8)))
    huge = str(tmp_path / "huge.tif")
    profile = UTM | {"driver": "GTiff", "count": 3, "dtype": "uint8", "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(
        huge, "w", width=10_240, height=10_240, **profile | TILED | {"blockxsize": 10_240, "blockysize": 10_240}
    ):
        pass
    assert_refused(huge, "blocks of 300 MB")
    with rasterio.open(
        huge, "w", width=1_100_000, height=1_000_000, **profile | TILED | {"blockxsize": 8192, "blockysize": 8192}
    ):
        pass
    assert_refused(huge, "pixels")


def test_complex_pixels_are_refused(write):
    assert_refused(write(np.ones((1, 20, 20), np.complex64)), "complex64")


# ---- files that would make GDAL open something else


VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 1, 0, 4600000, 0, -1</GeoTransform>{bands}</VRTDataset>"""
SIMPLE = """<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="{relative}">{file}
</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"""
RAW = """<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{file}
</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>20</LineOffset></VRTRasterBand>"""
PYTHON = """<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode>open({canary!r}, "w")</PixelFunctionCode>
<SimpleSource><SourceFilename relativeToVRT="0">{file}</SourceFilename></SimpleSource></VRTRasterBand>"""


def simple(file, relative=0):
    return SIMPLE.format(file=file, relative=relative).replace("\n", "")


def hostile_vrts(good, server, canary):
    return {
        "other file": simple("/etc/passwd"),
        "raw": RAW.format(file=canary).replace("\n", ""),
        "python": PYTHON.format(file=good, canary=canary + ".made"),
        "remote": simple(f"/vsicurl/http://{server}/a.tif"),
        "remote, relative": simple(f"/vsicurl/http://{server}/a.tif", relative=1),
        "url": simple(f"http://{server}/a.tif"),
        "subdataset": simple(f"GTIFF_DIR:1:{good}"),
        "vrt connection": simple(f"vrt://{good}?bands=1"),
        "itself": simple("a.vrt", relative=1),
        "inline": simple("&lt;VRTDataset/&gt;"),
        "nothing": simple(""),
        "missing": simple("no.tif", relative=1),
        "in the cwd": simple("good.tif"),
        "raw, other case": RAW.format(file=canary).replace("subClass", "subclass"),
        "raw, child element": RAW.format(file=canary).replace(' subClass="VRTRawRasterBand"', "").replace(
            "<ImageOffset>", "<subClass>VRTRawRasterBand</subClass><ImageOffset>"
        ),
        "attribute for element": f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource SourceFilename="/vsicurl/http://'
        f'{server}/a.tif"/></VRTRasterBand>',
        "hidden in a comment": simple(good) + "<!-->" + simple(f"/vsicurl/http://{server}/a.tif") + "<!-- -->",
        "entity": simple("&x;"),
        "warped": f"<GDALWarpOptions><SourceDataset>/vsicurl/http://{server}/a.tif</SourceDataset></GDALWarpOptions>",
        "open options": simple(good).replace("<SourceBand>", "<OpenOptions/><SourceBand>"),
        "metadata": f'<Metadata domain="xml:VRT">{simple(good)}</Metadata>',
    }  # fmt: skip


@pytest.mark.parametrize("kind", hostile_vrts("", "", ""))
@pytest.mark.parametrize("name", ["a.tif", "a.vrt"])
def test_a_vrt_opens_nothing_that_it_should_not(write, tmp_path, no_network, monkeypatch, kind, name):
    good = write(places(20, 20), "good.tif")
    canary = tmp_path / "canary"
    canary.write_bytes(b"secret" * 200)
    monkeypatch.chdir("/")
    path = tmp_path / name
    path.write_text(VRT.format(bands=hostile_vrts(good, no_network, str(canary))[kind]))
    with pytest.raises(InputError) as caught:
        opened(str(path))
    assert "secret" not in str(caught.value)
    assert not Path(str(canary) + ".made").exists()


@pytest.mark.parametrize("place", ["http://{}/crs", "/etc/passwd"])
def test_the_crs_of_a_vrt_is_not_fetched(write, tmp_path, no_network, place):
    good = write(places(20, 20), "good.tif")
    path = tmp_path / "a.vrt"
    path.write_text(VRT.format(bands=simple(good)).replace("EPSG:32633", place.format(no_network)))
    assert_refused(path, "a.vrt")


def test_a_web_service_in_a_tif_is_refused(tmp_path, no_network):
    path = tmp_path / "a.tif"
    path.write_text(f"<GDAL_WMS><Service name='TMS'><ServerUrl>http://{no_network}/</ServerUrl></Service></GDAL_WMS>")
    assert_refused(path, "not a readable GeoTIFF")


def test_a_plain_vrt_is_read(write, tmp_path):
    good = write(places(20, 20), "sub/good.tif")
    band = """<VRTRasterBand dataType="Byte" band="{0}"><ColorInterp>{1}</ColorInterp><SimpleSource>
    <SourceFilename relativeToVRT="1">sub/good.tif</SourceFilename><SourceBand>{0}</SourceBand>
    <SourceProperties RasterXSize="20" RasterYSize="20" DataType="Byte" BlockXSize="20" BlockYSize="20"/>
    <SrcRect xOff="0" yOff="0" xSize="20" ySize="20"/><DstRect xOff="0" yOff="0" xSize="20" ySize="20"/>
    </SimpleSource></VRTRasterBand>"""
    path = tmp_path / "a.vrt"
    path.write_text(VRT.format(bands="".join(band.format(i, c) for i, c in [(1, "Red"), (2, "Green"), (3, "Blue")])))
    source = opened(str(path))
    assert (source.bands, source.width, source.blocks) == ((1, 2, 3), 20, None)
    check_unchanged(source)
    with rasterio.open(good, "r+") as dataset:
        dataset.write(places(20, 20)[::-1])
    with pytest.raises(SourceChanged):
        check_unchanged(source)
    Path(good + ".msk").write_text(VRT.format(bands=simple("/etc/passwd")))
    assert_refused(path, "good.tif.msk")


@pytest.mark.parametrize("suffix", [".msk", ".ovr", ".MSK", ".OVR"])
@pytest.mark.parametrize("target", ["remote", "canary"])
def test_a_sidecar_that_is_no_tiff_is_not_used(write, tmp_path, no_network, suffix, target):
    path = write(places(20, 20))
    canary = tmp_path / "canary"
    canary.write_bytes(b"\0" * 1200)
    file = f"/vsicurl/http://{no_network}/a.tif" if target == "remote" else str(canary)
    Path(path + suffix).write_text(VRT.format(bands=simple(file)))
    source = opened(path)
    assert (source.mask, source.overviews, source.sidecars) == ("none", (), False)
    assert f"a.tif{suffix}" in source.notes[0]


def test_a_sidecar_of_a_sidecar_is_looked_at(write, no_network):
    path = write(places(20, 20))
    write(np.full((1, 20, 20), 255, np.uint8), "a.tif.msk")
    assert opened(path).sidecars
    Path(path + ".msk.ovr").write_text(VRT.format(bands=simple(f"/vsicurl/http://{no_network}/a.tif")))
    source = opened(path)
    assert (source.sidecars, source.mask) == (False, "none")


def test_aux_xml_moves_nothing(write):
    path = write(places(20, 20))
    before = opened(path)
    Path(path + ".aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>77</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert opened(path) == before


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_world_file_gives_corners_to_a_file_that_has_a_crs(write):
    path = write(places(20, 20), transform=None)
    Path(path).with_suffix(".tfw").write_text("2\n0\n0\n-2\n500001\n4599999\n")
    assert opened(path).transform == (2, 0, 500000, 0, -2, 4600000)


# ---- changes


def test_an_unchanged_file_is_recognised_also_after_a_copy(write, tmp_path):
    path = write(places(300, 300), **TILED)
    source = opened(path)
    check_unchanged(source)
    os.utime(path, (0, 0))
    check_unchanged(source)
    copy = tmp_path / "copy.tif"
    copy.write_bytes(Path(path).read_bytes())
    assert opened(str(copy)).fingerprint == source.fingerprint


def rewritten(path):
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 1:-1] ^= 1  # first and last byte of the file stay
        dataset.write(pixels)


def moved(path):
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = from_origin(0, 100, 1, 1)


def truncated(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)


def masked(path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.zeros((300, 300), bool))


@pytest.mark.parametrize("compress", [None, "deflate"])
@pytest.mark.parametrize("change", [rewritten, moved, truncated, masked, os.unlink])
def test_a_change_is_noticed(write, change, compress):
    path = write(places(300, 300), compress=compress)
    source = opened(path)
    change(path)
    with pytest.raises(SourceChanged, match=r"a\.tif"):
        check_unchanged(source)


# ---- /vsi


def test_vsi_paths_are_opened_when_typed(write, tmp_path):
    path = write(places(300, 300), **TILED)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inner.tif")
    source = opened(f"/vsizip/{tmp_path}/a.zip/inner.tif")
    assert (source.width, source.blocks) == (300, None)
    check_unchanged(source)
    with pytest.raises(SourceRefused):
        opened(f"/vsizip/{tmp_path}/a.zip/no.tif")
    with pytest.raises(SourceRefused, match="VRT"):
        opened(f"/vsizip/{tmp_path}/a.zip/a.vrt")


# ---- arguments


def test_names_are_short_and_unique(tmp_path):
    for name in ("x/a.tif", "y/a.tif", "x/b.tif", "u/x/c.tif", "w/x/c.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    arguments = [str(tmp_path / n) for n in ("x/a.tif", "y/a.tif", "x/b.tif", "u/x/c.tif", "w/x/c.tif", "x/b.tif")]
    assert [name for _, name in expand(arguments)] == ["x/a.tif", "y/a.tif", "b.tif", "u/x/c.tif", "w/x/c.tif"]
    assert [path for path, _ in expand(arguments)] == arguments[:-1]


def test_names_hold_no_credentials():
    typed = ["/vsicurl/https://user:pass@host/x/a.tif?X-Amz-Signature=s", "/vsicurl/https://user:pass@host/y/a.tif"]
    assert expand(typed) == [(typed[0], "x/a.tif"), (typed[1], "y/a.tif")]


def test_a_folder_is_refused_with_a_hint(tmp_path):
    with pytest.raises(UsageError, match=r"\*\.tif"):
        expand([str(tmp_path)])


# ---- real rasters


@pytest.mark.data
@pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA is not set")
def test_real_rasters_are_described_or_refused():
    folder = Path(os.environ["RSQA_TEST_DATA"]) / "geotiff"
    refused = set()
    for path in sorted(folder.glob("*.tif")):
        try:
            source = opened(str(path))
        except SourceRefused:
            refused.add(path.name)
            continue
        with rasterio.open(path) as dataset:
            assert (source.height, source.width) == dataset.shape
            truth = dataset.read(source.bands) if source.dtype == "uint8" else None
            valid = dataset.dataset_mask() != 0
        found, grid = read_all(source, 448)
        for (row, col), (pixels, chip_valid, valid_frac, error) in found.items():
            tile = grid.tile(row, col)
            rows, cols = tile.window.slices
            shown = (slice(tile.window.height), slice(tile.window.width))
            assert error is None
            np.testing.assert_array_equal(chip_valid[shown], valid[rows, cols])
            assert valid_frac == pytest.approx(valid[tile.core.slices].mean(), abs=1e-6)
            if truth is not None:
                np.testing.assert_array_equal(pixels[:, *shown], np.where(valid, truth, 0)[:, rows, cols])
    assert refused == {"rotated.tif"}
