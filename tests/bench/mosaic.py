"""A large COG that repeats a real raster, for benchmarks: `python tests/bench/mosaic.py SOURCE OUT SIDE`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import rasterio
import rasterio.shutil


def repeat(source: Path, out: Path, side: int) -> Path:
    """Write a JPEG COG of `side` x `side` pixels that repeats `source` from its upper left corner."""
    with rasterio.open(source) as file:
        height, width, n_bands = file.height, file.width, file.count
        place = ", ".join(map(repr, file.transform.to_gdal()))
        crs = file.crs.to_wkt().replace("&", "&amp;").replace("<", "&lt;")
    bands = []
    for band in range(1, n_bands + 1):
        pieces = [
            f'<SimpleSource><SourceFilename relativeToVRT="0">{source.resolve()}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{min(width, side - col)}" ySize="{min(height, side - row)}"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="{min(width, side - col)}" ySize="{min(height, side - row)}"/>'
            "</SimpleSource>"
            for row in range(0, side, height)
            for col in range(0, side, width)
        ]
        colour = ("Red", "Green", "Blue")[band - 1]
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>{"".join(pieces)}'
            "</VRTRasterBand>"
        )
    text = (
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{crs}</SRS><GeoTransform>{place}</GeoTransform>'
        f"{''.join(bands)}</VRTDataset>"
    )
    with tempfile.TemporaryDirectory() as folder:
        vrt = Path(folder) / "repeat.vrt"
        vrt.write_text(text)
        options = {"COMPRESS": "JPEG", "QUALITY": "85", "BLOCKSIZE": "512", "OVERVIEW_RESAMPLING": "AVERAGE"}
        with rasterio.Env(GDAL_CACHEMAX=512 << 20):
            rasterio.shutil.copy(vrt, out, driver="COG", BIGTIFF="IF_SAFER", **options)
    return out


if __name__ == "__main__":
    repeat(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
