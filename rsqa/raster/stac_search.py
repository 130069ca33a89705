"""Searches of STAC APIs: `https://…/search?collections=…` as a source.

The address is that of a GET search of the STAC API (item-search and features of the specification), and its values may
be written as pystac-client takes them: `datetime=2024-05`, `query=eo:cloud_cover<10`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from rsqa.errors import SourceMissing, UsageError
from rsqa.raster.addresses import shown

Bounds = tuple[float, float, float, float]
"""West, south, east, north, degrees; across the antimeridian west is larger than east."""

TIMEOUT_S = 20.0
RETRIES = 3
PAUSE_S = 1.0
"""Before a server is asked again, twice as long each time."""
MOST_S = 600.0
"""Of a search, all pages together."""
MOST_ITEMS = 10_000
_SINGLE = ("bbox", "datetime", "limit", "intersects", "filter", "sortby")
_LISTS = ("collections", "ids")
_MEANT = {*_SINGLE, *_LISTS, "query", "filter-lang"}


def is_search(argument: str) -> bool:
    """Whether an argument is a search: its path ends in /search, or in /items of a collection."""
    parts = urlsplit(argument)
    return parts.scheme in ("https", "http") and parts.path.rstrip("/").endswith(("/search", "/items"))


def search_name(argument: str) -> str:
    """What a search is about, for the name of a folder: its first collection."""
    parts = urlsplit(argument)
    [*_, above, last] = parts.path.rstrip("/").split("/")
    asked = parse_qs(parts.query).get("collections", [""])[0].split(",")[0]
    name = asked if last == "search" else above
    return name if re.fullmatch(r"\w[\w .-]*", name) else "search"


def search(argument: str, bounds: Bounds | None) -> Iterator[dict[str, Any]]:
    """The items of a search, page by page, as they come over the wire.

    bounds: of what is asked about, where the search itself says nothing about its place. UsageError for a search that
    makes no sense or finds too much, SourceMissing when there is no answer in time; ValueError, TypeError, KeyError or
    AttributeError for an answer that is not of this kind.
    """
    try:
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise UsageError(
            f"{shown(argument)!r} is a STAC search, which needs pystac-client; pip install 'rsqa[stac]'"
        ) from error
    deadline, n_items = time.monotonic() + MOST_S, 0
    try:
        for page in _prepared(argument, bounds).pages_as_dicts():
            n_items += len(page["features"])
            if n_items > MOST_ITEMS:
                raise UsageError(
                    f"{shown(argument)!r} finds more than {MOST_ITEMS:,} items; narrow it by bbox=, datetime= or --aoi"
                )
            yield from page["features"]
            if time.monotonic() > deadline:
                raise SourceMissing(
                    f"{shown(argument)!r} was not answered whole in {MOST_S:.0f} s; narrow it, or try again later"
                )
    except APIError as error:
        raise SourceMissing(f"{shown(argument)!r} can't be searched: {_said(error)}") from error


def _prepared(argument: str, bounds: Bounds | None) -> Any:
    """The pystac_client.ItemSearch of an address."""
    from pystac_client.item_search import ItemSearch
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    parts = urlsplit(argument)
    asked = parse_qs(parts.query, keep_blank_values=True)
    values: dict[str, Any] = {name: asked[name][-1] for name in _SINGLE if name in asked}
    values |= {name: ",".join(asked[name]).split(",") for name in _LISTS if name in asked}
    if not values.keys() & {*_LISTS} and parts.path.rstrip("/").endswith("/search"):
        raise UsageError(f"{shown(argument)!r} names no collection to search; add ?collections=NAME")
    if bounds is not None and not values.keys() & {"bbox", "intersects", "ids"}:
        values["bbox"] = bounds
    retry = Retry(
        RETRIES, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, backoff_factor=PAUSE_S,
        raise_on_status=False, respect_retry_after_header=False,  # a server may ask for hours
    )  # fmt: skip
    keys = {name: said for name, said in asked.items() if name not in _MEANT}  # of the server's own, as an API key
    try:
        return ItemSearch(
            urlunsplit(parts._replace(query="", fragment="")),
            method="GET",
            stac_io=StacApiIO(parameters=keys, timeout=TIMEOUT_S, max_retries=retry),
            query=asked.get("query"),
            filter_lang=asked["filter-lang"][-1] if "filter-lang" in asked else None,
            **values | ({"limit": int(values["limit"])} if "limit" in values else {}),
        )
    except Exception as error:  # pystac-client raises the bare class for values that it can't read
        raise UsageError(f"{shown(argument)!r} asks what can't be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What a server or library says, in one short line without what may be a secret in an address."""
    words = re.sub(r"\?\S+", "?…", " ".join(str(error).split()))[:200]
    status = getattr(error, "status_code", None)
    return f"HTTP {status} {words}".strip() if status else words
