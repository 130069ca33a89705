"""What a process must have before it can do parts, and what it is given: asked of workers that nobody here started."""

from __future__ import annotations

import os

import rsqa
from rsqa.engines.registry import choose_device
from rsqa.errors import RsqaError
from rsqa.run.place import place_at

GDAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING",
    "AWS_NO_SIGN_REQUEST", "AWS_REQUEST_PAYER",
    "GS_ACCESS_KEY_ID", "GS_SECRET_ACCESS_KEY", "GS_NO_SIGN_REQUEST", "GS_USER_PROJECT",
    "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_NO_SIGN_REQUEST",
    "GDAL_HTTP_AUTH", "GDAL_HTTP_BEARER", "GDAL_HTTP_HEADERS", "GDAL_HTTP_USERPWD",
    "GDAL_HTTP_PROXY", "GDAL_HTTPS_PROXY", "GDAL_HTTP_PROXYUSERPWD", "GDAL_HTTP_CONNECTTIMEOUT",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS", "CPL_VSIL_CURL_CHUNK_SIZE", "VSI_CACHE", "VSI_CACHE_SIZE",
)  # fmt: skip
"""What GDAL reads /vsi paths and s3fs writes parts with, nothing else: the workers of a running cluster get these of
the driver's environment. Names of files are not among them: those lie on the driver's machine."""


def gdal_environment() -> tuple[tuple[str, str], ...]:
    """Those of GDAL_VARIABLES that this process has, with their values."""
    return tuple((name, os.environ[name]) for name in GDAL_VARIABLES if name in os.environ)


def unfit(version: str, device: str, out: str) -> str:
    """Why this process can't do parts; empty when it can. Asked of each worker before it gets any.

    `version` is the driver's, `out` where the output goes, or empty. Only plain values: another rsqa is to understand
    it.
    """
    if version != rsqa.__version__:
        return f"it has rsqa {rsqa.__version__}, this is {version}; install the same there"
    try:
        choose_device(device)
        return place_at(out).out_of_reach() if out else ""
    except RsqaError as error:
        return str(error)
