"""How GDAL is spoken to: options for every open and read, what it raises, what it says."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, UnicodeDecodeError)
"""Everything that a failing read or open of rasterio raises; the last where a name in the file is not in UTF-8."""

FILE_CACHE_BYTES = 25_000_000
"""Of an open file GDAL keeps at most so much in memory: its default of VSI_CACHE_SIZE."""

_FILTERING = threading.Lock()


def gdal_env(*, sidecars: bool) -> dict[str, Any]:
    """Options of rasterio.Env for every open and read; they hold per thread, so each thread enters its own Env.

    sidecars: let GDAL look for masks, overviews and world files beside the file.
    """
    return {
        "GDAL_CACHEMAX": 16 << 20,  # bytes; file blocks up to this size that reads share are decoded once
        "GDAL_PAM_ENABLED": "NO",  # no .aux.xml: it can move a raster to another place
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR",
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_NUM_THREADS": "1",  # rsqa's own slots are the parallelism; with threads GDAL's retries fail (gdal#11552)
        "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # else what is missing of a picture that was cut short is grey
        "PROJ_NETWORK": "OFF",
        "GDAL_HTTP_MAX_RETRY": "3",
        "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, twice as long each time; by default minutes pass before GDAL gives up
        "GDAL_HTTP_RETRY_CODES": "ALL",
        "GDAL_HTTP_CONNECTTIMEOUT": "10",
        "GDAL_HTTP_LOW_SPEED_TIME": "20",  # a server that says nothing for so long is asked again
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_MULTIRANGE": "SERIAL",
        "GDAL_HTTP_TIMEOUT": "60",
        "VSI_CACHE": "TRUE",
    }


@contextmanager
def unplaced_unsaid() -> Iterator[None]:
    """Let rasterio open what has no place on the ground without a warning: who opens it says more about it.

    Python's filters of warnings are one list for all threads, so one thread at a time is in here.
    """
    with _FILTERING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def gdal_words(error: Exception, path: str, name: str) -> str:
    """What GDAL says of a file, in one line; a URL, which may hold a secret, is called by the file's name."""
    words = " ".join(str(error).split())
    if path.startswith("/vsi"):
        words = words.replace(path, name).replace(path.removeprefix("/vsicurl/"), name)
    return words
