"""From STAC to the rasters that it names: Items, Collections, item collections, stac-geoparquet, searches of an API.

What is read from disk may name files on disk and addresses; what comes from a server only addresses. GDAL's /vsi names
and other schemes are for the command line alone.
"""

from __future__ import annotations

import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import pystac

from rsqa.errors import InputError, SourceMissing, SourceRefused, UsageError
from rsqa.raster.addresses import is_remote, shown
from rsqa.raster.opening import require_file
from rsqa.raster.stac_search import Bounds, is_search, search
from rsqa.raster.stac_table import table_items

MAX_BYTES = 64 << 20
TIMEOUT_S = 20.0
PAUSES_S = (1.0, 2.0, 4.0)
"""Before each time that a server is asked again."""
RASTERS = ("image/tiff", "image/vnd.stac.geotiff")
"""How the media types of TIFFs begin."""
TABLES = (".parquet", ".geoparquet")


@dataclass(frozen=True, slots=True)
class Dated:
    """A raster that an item names."""

    argument: str
    """As if the user had typed it: a path or an address."""
    acquired: datetime | None
    """UTC; the begin of a range."""


@dataclass(frozen=True, slots=True)
class Named:
    """What an argument names."""

    rasters: tuple[Dated, ...]
    failed: tuple[tuple[str, str], ...] = ()
    """(item, why) of those that name nothing to be read."""


class NoItems(SourceRefused):
    """A list or search without an item, or with none where it was asked for: tomorrow there may be one."""


def is_stac(argument: str) -> bool:
    """Whether an argument names STAC, by its ending; no raster ends so."""
    return is_search(argument) or argument.split("?")[0].lower().endswith((".json", ".geojson", *TABLES))


def resolved(argument: str, asset: str | None, bounds: Bounds | None = None) -> Named:
    """The rasters of STAC; of each item the asset of that name, by default its only TIFF.

    bounds: items that lie elsewhere are left out. An item that can't be used is no reason to give up the others.
    SourceMissing or SourceRefused when none can, UsageError where an asset has to be named.
    """
    found: list[Dated] = []
    failed: list[tuple[str, InputError]] = []
    n_elsewhere = 0
    for item in _items(argument, bounds):
        if _elsewhere(item, bounds):
            n_elsewhere += 1
            continue
        try:
            found.append(_raster(item, asset))
        except InputError as error:
            failed.append((item.id, error))
    if not (found or failed) and n_elsewhere:
        raise NoItems(f"--aoi touches none of the {n_elsewhere:,} items of {shown(argument)!r}")
    if not (found or failed):
        raise NoItems(f"{shown(argument)!r} holds no STAC items; name the items or their assets themselves")
    if not found:
        raise failed[0][1]
    return Named(tuple(found), tuple((name, str(error)) for name, error in failed))


def _items(argument: str, bounds: Bounds | None) -> Iterator[pystac.Item]:
    href = argument if is_remote(argument) else os.path.abspath(argument)
    try:
        if is_search(argument):
            yield from (_feature(feature, href) for feature in search(argument, bounds))
        elif argument.split("?")[0].lower().endswith(TABLES):
            if not is_remote(href):
                require_file(href, os.path.basename(href))
            yield from table_items(io.BytesIO(_fetched(href)) if is_remote(href) else href, href)
        else:
            yield from _listed(_read(href), href)
    except (KeyError, TypeError, ValueError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        reason = " ".join(str(error).split())
        raise SourceRefused(f"{shown(argument)!r} is no valid STAC: {type(error).__name__} {reason}") from error


def _listed(content: dict[str, Any], href: str) -> Iterator[pystac.Item]:
    match content.get("type"):
        case "Feature":
            yield pystac.Item.from_dict(content, href=href)
        case "FeatureCollection":
            yield from (_feature(feature, href) for feature in content["features"])
        case "Collection":
            collection = pystac.Collection.from_dict(content, href=href)
            for link in collection.get_links("item"):
                item = _allowed(link.get_absolute_href() or "", collection, "an item")
                yield pystac.Item.from_dict(_read(item), href=item)
        case other:
            raise SourceRefused(f"{shown(href)!r} is no STAC Item or Collection, its type is {other!r}")


def _feature(content: dict[str, Any], href: str) -> pystac.Item:
    """An item of a list at `href`; where it says itself on the network, what it names is beside that."""
    own = [link["href"] for link in content.get("links", ()) if link.get("rel") == "self"]
    return pystac.Item.from_dict(content, href=own[0] if own and is_remote(own[0]) else href)


def _elsewhere(item: pystac.Item, bounds: Bounds | None) -> bool:
    """Whether its box says so; one across the antimeridian is compared by its latitudes alone."""
    if bounds is None or item.bbox is None:
        return False
    west, south, east, north = *item.bbox[:2], *item.bbox[len(item.bbox) // 2 :][:2]
    if south > bounds[3] or north < bounds[1]:
        return True
    return west <= east and bounds[0] <= bounds[2] and (west > bounds[2] or east < bounds[0])


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
    if is_remote(href) or (on_disk and not is_remote(by)):
        return href
    raise SourceRefused(
        f"{shown(by)!r} names {what} at {shown(href)!r}, which it may not open by itself; name it on the command line"
    )


def _read(href: str) -> dict[str, Any]:
    try:
        content = json.loads(_fetched(href) if is_remote(href) else _on_disk(href))
    except (ValueError, RecursionError) as error:
        raise SourceRefused(f"{shown(href)!r} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise SourceRefused(f"{shown(href)!r} is no STAC Item or Collection")
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
        raise SourceRefused(f"{shown(url)!r}: STAC is read from disk and over https; name its https address")
    for pause in (*PAUSES_S, None):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                content: bytes = answer.read(MAX_BYTES + 1)
                break
        except (OSError, HTTPException) as error:  # URLError is an OSError
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if final or pause is None:
                raise SourceMissing(f"{shown(url)!r} can't be fetched: {error}") from error
            time.sleep(pause)
    if len(content) > MAX_BYTES:
        raise SourceRefused(f"{shown(url)!r} is larger than {MAX_BYTES >> 20} MB")
    return content
