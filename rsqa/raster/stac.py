"""From STAC Items and Collections to the rasters that they name.

What is read from disk may name files on disk; only what the user named by its URL may name others on the network.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import pystac

from rsqa.errors import SourceMissing, SourceRefused, UsageError
from rsqa.raster.opening import require_file

MAX_BYTES = 64 << 20
TIMEOUT_S = 20.0
PAUSES_S = (1.0, 2.0, 4.0)
"""Before each time that a server is asked again."""
RASTERS = ("image/tiff", "image/vnd.stac.geotiff")
"""How the media types of TIFFs begin."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A raster that an item names."""

    argument: str
    """As if the user had typed it: a path or a URL."""
    acquired: datetime | None
    """UTC; the begin of a range."""


def is_stac(argument: str) -> bool:
    """Whether an argument names STAC, by its ending; no raster ends so."""
    return argument.split("?")[0].lower().endswith((".json", ".geojson"))


def rasters(argument: str, asset: str | None) -> list[Dated]:
    """The rasters of a file or URL of STAC; of each item the asset of that name, by default its only TIFF.

    SourceMissing or SourceRefused, UsageError where an asset has to be named.
    """
    found = [_raster(item, asset) for item in _items(argument)]
    if not found:
        raise SourceRefused(f"{_shown(argument)!r} holds no STAC items; name the items or their assets themselves")
    return found


def _items(argument: str) -> Iterator[pystac.Item]:
    href = argument if _remote(argument) else os.path.abspath(argument)
    content = _read(href)
    try:
        match content.get("type"):
            case "Feature":
                yield pystac.Item.from_dict(content, href=href)
            case "Collection":
                collection = pystac.Collection.from_dict(content, href=href)
                for link in collection.get_links("item"):
                    item = _allowed(link.get_absolute_href() or "", collection, "an item")
                    yield pystac.Item.from_dict(_read(item), href=item)
            case other:
                raise SourceRefused(f"{_shown(argument)!r} is no STAC Item or Collection, its type is {other!r}")
    except (KeyError, TypeError, ValueError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        reason = " ".join(str(error).split())
        raise SourceRefused(f"{_shown(argument)!r} is no valid STAC: {type(error).__name__} {reason}") from error


def _raster(item: pystac.Item, asset: str | None) -> Dated:
    if asset is None:
        tiffs = [key for key, value in item.assets.items() if (value.media_type or "").startswith(RASTERS)]
        if len(tiffs) != 1:
            raise UsageError(f"item {item.id!r} has {len(tiffs)} TIFFs; choose with --asset: {_named(item)}")
        asset = tiffs[0]
    if asset not in item.assets:
        raise SourceMissing(f"item {item.id!r} has no asset {asset!r}; choose with --asset: {_named(item)}")
    href = _allowed(item.assets[asset].get_absolute_href() or "", item, f"the asset {asset!r}")
    begin = item.datetime or item.common_metadata.start_datetime
    return Dated(href, begin and begin.astimezone(UTC))


def _named(item: pystac.Item) -> str:
    return ", ".join(item.assets) or "it has none"


def _allowed(href: str, named_by: pystac.STACObject, what: str) -> str:
    """The href, unless what names it may not name it."""
    by = named_by.get_self_href() or ""
    on_disk = os.path.isabs(href) and not href.startswith("/vsi")
    if _remote(href) if _remote(by) else on_disk:
        return href
    mend = "name its URL on the command line" if _remote(href) else "name the file on the command line"
    raise SourceRefused(f"{_shown(by)!r} names {what} at {_shown(href)!r}, which it may not open by itself; {mend}")


def _remote(href: str) -> bool:
    return href.startswith(("https://", "http://", "s3://"))


def _shown(href: str) -> str:
    """Without what may be a secret in a URL."""
    parts = urlsplit(href)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if _remote(href) else os.path.basename(href)


def _read(href: str) -> dict[str, Any]:
    try:
        content = json.loads(_fetched(href) if _remote(href) else _on_disk(href))
    except ValueError as error:
        raise SourceRefused(f"{_shown(href)!r} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise SourceRefused(f"{_shown(href)!r} is no STAC Item or Collection")
    return content


def _on_disk(path: str) -> bytes:
    require_file(path, os.path.basename(path))
    if os.path.getsize(path) > MAX_BYTES:
        raise SourceRefused(f"{os.path.basename(path)!r} is larger than {MAX_BYTES >> 20} MB")
    with open(path, "rb") as file:
        return file.read()


def _fetched(url: str) -> bytes:
    """What a server answers; asked again where that may help. SourceMissing when there is no answer in time."""
    if url.startswith("s3://"):
        raise SourceRefused(f"{_shown(url)!r}: STAC is read from disk and over https; name its https address")
    for pause in (*PAUSES_S, None):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                content: bytes = answer.read(MAX_BYTES + 1)
                break
        except (OSError, HTTPException) as error:  # URLError is an OSError
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if final or pause is None:
                raise SourceMissing(f"{_shown(url)!r} can't be fetched: {error}") from error
            time.sleep(pause)
    if len(content) > MAX_BYTES:
        raise SourceRefused(f"{_shown(url)!r} is larger than {MAX_BYTES >> 20} MB")
    return content


def resolved(arguments: Sequence[str], asset: str | None) -> list[Dated]:
    """Each argument, or the rasters that it names; UsageError when `asset` is asked of none."""
    found: list[Dated] = []
    for argument in arguments:
        found.extend(rasters(argument, asset) if is_stac(argument) else [Dated(argument, None)])
    if asset is not None and not any(map(is_stac, arguments)):
        raise UsageError(f"--asset {asset!r} asked, but no source is a STAC Item or Collection (.json)")
    return found
