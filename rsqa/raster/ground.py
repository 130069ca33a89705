"""Where a raster lies and how large its pixels are on the ground."""

from __future__ import annotations

from functools import lru_cache
from math import hypot, isfinite, sqrt

import numpy as np
import pyproj
import pyproj.exceptions
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from rsqa.errors import SourceRefused

Transform = tuple[float, float, float, float, float, float]
"""Affine a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f, in CRS units; pixel corners are integers."""


def place(dataset: DatasetReader, name: str) -> tuple[str, Transform, float]:
    """(WKT of the CRS, transform, metres per pixel); SourceRefused with the command that gives it a place."""
    if dataset.crs is None or not dataset.crs.to_wkt():
        if dataset.gcps[0]:
            mend = "it has ground control points only: gdalwarp -tps in.tif out.tif"
        elif dataset.rpcs:
            mend = "it has RPCs only: gdalwarp -rpc in.tif out.tif"
        else:
            mend = f"it has no CRS: gdal_edit.py -a_srs EPSG:… {name!r} (and -a_ullr if it has no corners either)"
        raise SourceRefused(f"{name!r} can't be placed on the ground; {mend}")
    a, b, c, d, e, f = (float(value) for value in tuple(dataset.transform)[:6])
    if dataset.transform.is_identity or not all(map(isfinite, (a, b, c, d, e, f))) or a * e == b * d:
        mend = "gdalwarp -tps in.tif out.tif" if dataset.gcps[0] else f"gdal_edit.py -a_ullr ulx uly lrx lry {name!r}"
        raise SourceRefused(
            f"{name!r} can't be placed on the ground; its CRS is known, but its transform {(a, b, c, d, e, f)} "
            f"places nothing: {mend}"
        )
    wkt = dataset.crs.to_wkt()
    try:
        gsd_m = ground_gsd(wkt, (a, b, c, d, e, f), dataset.width, dataset.height)
    except pyproj.exceptions.CRSError as error:
        raise SourceRefused(
            f"{name!r} can't be placed on the ground; its CRS is not understood ({' '.join(str(error).split())}): "
            f"gdal_edit.py -a_srs EPSG:… {name!r}"
        ) from error
    if not (isfinite(gsd_m) and gsd_m > 0):
        raise SourceRefused(
            f"{name!r} can't be placed on the ground; with its transform {(a, b, c, d, e, f)} a pixel has no size: "
            f"gdal_edit.py -a_ullr ulx uly lrx lry {name!r}"
        )
    return wkt, (a, b, c, d, e, f), gsd_m


def ground_rings(corners: NDArray[np.float64], transform: Transform) -> NDArray[np.float64]:
    """Ground polygons of quadrangles of pixels, exact also for rotated, sheared and south-up rasters.

    corners: (N, 4, 2) col, row of the upper left, lower left, lower right, upper right one, pixel corners being
    integers -> (N, 5, 2) closed rings of x, y in the CRS of the transform, counter-clockwise on the ground.
    """
    a, b, c, d, e, f = transform
    cols, rows = corners[:, [0, 1, 2, 3, 0]].transpose(2, 0, 1)
    rings = np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=2)
    # down, right, up is counter-clockwise where rows run south; a positive determinant mirrors the picture
    return rings if a * e - b * d < 0 else rings[:, ::-1]


def ground_gsd(crs_wkt: str, transform: Transform, width: int, height: int) -> float:
    """Side of the pixel in the middle of a raster, metres: the root of its two sides' product.

    Measured along the CRS's own ellipsoid (also of other planets, and free of Web Mercator's stretch); a CRS without
    an ellipsoid, or a middle outside its domain, is measured in the CRS's unit.
    """
    middle = width / 2, height / 2
    steps = ((0.5, 0.0), (0.0, 0.5))
    sides = [
        _pixel_to_crs(transform, middle[0] + dx * sign, middle[1] + dy * sign) for dx, dy in steps for sign in (-1, 1)
    ]
    across, down = (_geodesic(crs_wkt, sides[i], sides[i + 1]) for i in (0, 2))
    return sqrt(across * down)


@lru_cache(maxsize=64)
def _system(wkt: str) -> tuple[pyproj.CRS, pyproj.Transformer | None]:
    """A system, and its way to longitude and latitude on its own ellipsoid; None where it has neither.

    Kept: the sources of a folder have few systems, and making one takes as long as opening a small file.
    """
    crs = pyproj.CRS.from_user_input(wkt)
    known = crs.get_geod() is not None and crs.geodetic_crs is not None
    return crs, pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True) if known else None


def _pixel_to_crs(transform: Transform, col: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * col + b * row + c, d * col + e * row + f


def _geodesic(crs_wkt: str, start: tuple[float, float], end: tuple[float, float]) -> float:
    """Metres between two (x, y) of the CRS."""
    crs, to_lonlat = _system(crs_wkt)
    geod = crs.get_geod()
    if geod is not None and to_lonlat is not None:
        lons, lats = to_lonlat.transform((start[0], end[0]), (start[1], end[1]))
        if all(map(isfinite, (*lons, *lats))):
            return float(geod.inv(lons[0], lats[0], lons[1], lats[1])[2])
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    return float(hypot(end[0] - start[0], end[1] - start[1]) * unit)
