"""STAC items in a Parquet file: stac-geoparquet, a row per item.

Of its published columns five are read: `id`, `geometry` (WKB, degrees), `datetime`, `start_datetime`, and `assets`, a
struct of one struct per asset, null where an item has not that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import shapely

ROWS = 1024
"""Held as Python values at a time."""
_NEEDED = ("id", "geometry", "assets")
_TIMES = ("datetime", "start_datetime")


def table_items(file: str | BinaryIO, href: str) -> Iterator[pystac.Item]:
    """The items of a table at `href`, with what is needed to choose and open their assets.

    ValueError when it is no stac-geoparquet.
    """
    table = pq.ParquetFile(file)  # ArrowInvalid is a ValueError
    names = table.schema_arrow.names
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValueError(f"it has no column {missing[0]!r}, as stac-geoparquet has")
    wanted = [name for name in (*_NEEDED, *_TIMES) if name in names]
    for batch in table.iter_batches(ROWS, columns=wanted):
        columns = {name: batch.column(name) for name in wanted}
        for name in columns.keys() & {*_TIMES}:
            columns[name] = columns[name].cast(pa.timestamp("us", "UTC"), safe=False)
        for row in pa.table(columns).to_pylist():
            yield _item(row, href)


def _item(row: dict[str, Any], href: str) -> pystac.Item:
    assets = {
        key: pystac.Asset(facts["href"], media_type=facts.get("type"))
        for key, facts in row["assets"].items()
        if facts is not None
    }
    bounds = None if row["geometry"] is None else list(shapely.from_wkb(row["geometry"]).bounds)
    when = row.get("datetime") or row.get("start_datetime")
    return pystac.Item(row["id"], None, bounds, when, {}, assets=assets, href=href)
