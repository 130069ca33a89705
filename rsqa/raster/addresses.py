"""Names of rasters and of what names rasters: which are on the network, and how they are shown."""

from __future__ import annotations

import os
from urllib.parse import urlsplit


def is_remote(href: str) -> bool:
    """Whether it is an address, not a path."""
    return href.startswith(("https://", "http://", "s3://"))


def shown(href: str) -> str:
    """An address without what may be a secret in it; of a path the last part."""
    parts = urlsplit(href)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if is_remote(href) else os.path.basename(href)
