"""What is refused before GDAL sees it, and files that would make GDAL open something else."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from truth_rasters import TILED, UTM, opened, places

from rsqa.errors import InputError, SourceChanged, SourceMissing, SourceRefused
from rsqa.raster.describe import check_unchanged


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
