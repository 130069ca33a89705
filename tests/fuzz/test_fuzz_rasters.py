"""Rasters and files of shapes with damaged headers: described and read, or refused, never wrong in another way."""

from __future__ import annotations

import io

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from mutated import documented, fuzzed, mutated
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from rsqa.errors import SourceRefused
from rsqa.raster.describe import check_unchanged, open_source
from rsqa.raster.grid import TileGrid, block_grid
from rsqa.raster.read import read_block
from rsqa.raster.stretch import fit_stretch
from rsqa.raster.vectors import read_shapes

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # a damaged place is none
SIDE = 96
PIXELS = np.random.default_rng(0).integers(0, 1000, (3, SIDE, SIDE)).astype(np.uint16)


def geotiff(**options) -> bytes:
    """Small, so that most faults are in its header."""
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "crs": "EPSG:32633"}
    pixels = PIXELS.astype(options.setdefault("dtype", "uint8"))
    with MemoryFile() as memory:
        with memory.open(**profile, transform=from_origin(5e5, 4.6e6, 1, 1), **options) as file:
            file.write(pixels)
        return memory.read()


TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32}
GEOTIFFS = {
    "plain": geotiff(),
    "tiles": geotiff(**TILED, compress="deflate"),
    "planes": geotiff(**TILED, interleave="band", compress="lzw", dtype="uint16", nodata=7),
    "bigtiff": geotiff(**TILED, bigtiff="yes", compress="zstd"),
    "big endian": geotiff(endianness="big", dtype="float32"),
    "jpeg": geotiff(**TILED, compress="jpeg", photometric="ycbcr"),
}


def read_all(path, chips: bool = False) -> None:
    """As a run does; what can't be decoded is an error of its tiles."""
    source = open_source(str(path), name="a", chips=chips)
    if source.width * source.height > 1 << 22:
        return  # its first megapixels take as long as those of a file that does hold them
    stretch = fit_stretch([source])
    grid = TileGrid(source.height, source.width, 64)
    for block in block_grid(grid, source.layout, bytes_per_px=source.bytes_per_px, max_tiles=64):
        sheet = read_block(source, grid, block, stretch, 1)
        chips_read = sheet.chips()
        assert chips_read.pixels.shape == (len(sheet), 3, 64, 64)
        known = chips_read.valid_frac[~np.isnan(chips_read.valid_frac)]
        assert ((known >= 0) & (known <= 1)).all()
    check_unchanged(source)


@pytest.mark.parametrize("kind", GEOTIFFS)
@fuzzed
@given(data=st.data())
def test_geotiffs(tmp_path, kind, data):
    path = tmp_path / "a.tif"
    path.write_bytes(data.draw(mutated([GEOTIFFS[kind]])))
    documented(lambda: read_all(path))


@pytest.mark.parametrize("kind", GEOTIFFS)
@fuzzed
@given(data=st.data())
def test_headers_of_geotiffs(tmp_path, kind, data):
    """All faults in the bytes that are no pixels."""
    whole = GEOTIFFS[kind]
    head = data.draw(mutated([whole[:600]]))
    (tmp_path / "a.tif").write_bytes(head + whole[len(head) :])
    documented(lambda: read_all(tmp_path / "a.tif"))


@pytest.mark.parametrize("side", [1e300, 1e-160])
def test_a_pixel_without_a_size_is_refused(tmp_path, side):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=20, height=20, count=3, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(5e5, 4.6e6, side, side),
    ):  # fmt: skip
        pass
    with pytest.raises(SourceRefused, match="can't be placed on the ground"):
        read_all(tmp_path / "a.tif")


VRT = b"""<VRTDataset rasterXSize="96" rasterYSize="96"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 1, 0, 4600000, 0, -1</GeoTransform><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename relativeToVRT="1">good.tif</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="96" ySize="96"/><DstRect xOff="0" yOff="0" xSize="96" ySize="96"/>
</SimpleSource></VRTRasterBand></VRTDataset>"""


@fuzzed
@given(content=mutated([VRT]))
def test_vrts(tmp_path, content):
    (tmp_path / "good.tif").write_bytes(GEOTIFFS["plain"])
    (tmp_path / "a.vrt").write_bytes(content)
    documented(lambda: read_all(tmp_path / "a.vrt"))


def picture(kind: str) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8).transpose(1, 2, 0)).save(memory, kind)
    return memory.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "JPEG2000"])
@fuzzed
@given(data=st.data())
def test_pictures(tmp_path, kind, data):
    (tmp_path / "a.img").write_bytes(data.draw(mutated([picture(kind)])))
    documented(lambda: read_all(tmp_path / "a.img", chips=True))


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.geojson", "a.parquet"])
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@fuzzed
@given(data=st.data())
def test_files_of_shapes(tmp_path, name, data):
    good = tmp_path / f"good-{name}"
    if not good.exists():
        table = geopandas.GeoDataFrame({"name": ["x"]}, geometry=[shapely.box(12, 49, 13, 50)], crs=4326)
        table.to_parquet(good) if name.endswith("parquet") else table.to_file(good)
    (tmp_path / name).write_bytes(data.draw(mutated([good.read_bytes()])))
    documented(lambda: read_shapes(str(tmp_path / name), "--aoi"))


def test_the_corpus_is_good(tmp_path):
    for content in GEOTIFFS.values():
        (tmp_path / "a.tif").write_bytes(content)
        read_all(tmp_path / "a.tif")
    (tmp_path / "good.tif").write_bytes(GEOTIFFS["plain"])
    (tmp_path / "a.vrt").write_bytes(VRT)
    read_all(tmp_path / "a.vrt")
