"""The dataset shown to the rule in order of time: what changed, as `changes.parquet`. Rebuilt from nothing each time.

Whatever order scenes arrived in, the same dataset and rule give the same changes under the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rsqa.monitor.change import Change, Tracks
from rsqa.monitor.dataset import LEVEL, Stored, bounds_of, boxes_of, damaged, processing_options
from rsqa.monitor.follow import Follower, ObjectChange, Place, Sighting
from rsqa.monitor.watch import Rule, digest
from rsqa.raster.anchored import AnchoredGrid
from rsqa.sinks.ground import projjson
from rsqa.sinks.table import BBOX, bbox_array, file_keys, geo_metadata, open_writer
from rsqa.sinks.whole import write_whole

CHANGES = "changes.parquet"
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("change_id", pa.string()),
        ("tile_id", pa.string()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("change", pa.string()),
        ("value_before", pa.string()),
        ("value_after", pa.string()),
        ("probability_before", pa.float32()),
        ("probability_after", pa.float32()),
        ("last_before", _TIME),
        ("first_after", _TIME),
        ("confirmed", _TIME),
        ("source", pa.string()),
        ("processing_id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
        ("moved_from", BBOX),
    ]
)
"""`change`: answered, or of a thing appeared, vanished, moved. Both probabilities are those of `value_after`; `source`
is what confirmed it. The geometry is that of the tile, or of the thing, whose middle the tile holds."""
ANSWERED = "answered"
IS_THERE, IS_GONE = "there", "gone"
"""Values of things."""
_COLUMNS = ["tile_row", "tile_col", "question_id", "question", "kind", "source", "acquired", "status", "probabilities",
            "valid_frac", "processing_id", "objects"]  # fmt: skip


def replay(stored: Sequence[Stored], rule: Rule, grid: AnchoredGrid) -> pa.Table:
    """All changes that the rule finds in the dataset, in order of time, with the columns of `SCHEMA`.

    Holds the observations of one day, and of each tile and question as many as confirm a change.
    """
    asked = processing_options(stored)
    series: dict[str, _Answers | _Things] = {}
    rows: list[dict[str, Any]] = []
    for when, processing, group in _moments(stored, rule, {id_ for id_, (kind, _) in asked.items() if kind != "open"}):
        kind, options = asked[processing]
        if processing not in series:
            series[processing] = _Things(rule) if kind == "box" else _Answers(rule, options)
        rows += series[processing].observe(group, when, grid)
    return _table(rows)


class _Answers:
    """A closed question over time."""

    def __init__(self, rule: Rule, options: tuple[str, ...]) -> None:
        self._options = options
        self._tracks = Tracks(len(options), rule.confirmations, rule.min_delta)
        self._numbers: dict[Place, int] = {}

    def observe(self, group: pa.Table, when: datetime, grid: AnchoredGrid) -> list[dict[str, Any]]:
        """Rows of one moment -> what changed, as rows."""
        places = _places(group)
        tiles = np.array([self._numbers.setdefault(place, len(self._numbers)) for place in places], np.int64)
        self._tracks.grow(len(self._numbers))
        where = {int(tile): i for i, tile in enumerate(tiles)}
        changes = self._tracks.observe(tiles, _shares(group["probabilities"], self._options), when)
        at = [where[change.tile] for change in changes]
        facts = group.take(pa.array(at, pa.int64())).to_pylist()
        return [
            _answer_row(change, places[i], self._options, row, grid)
            for change, i, row in zip(changes, at, facts, strict=True)
        ]


class _Things:
    """A kind of thing over time."""

    def __init__(self, rule: Rule) -> None:
        self._follower = Follower(rule.confirmations, rule.min_delta)

    def observe(self, group: pa.Table, when: datetime, grid: AnchoredGrid) -> list[dict[str, Any]]:
        """Rows of one moment -> what changed, as rows."""
        places, objects = _places(group), group["objects"].to_pylist()
        found = [
            Sighting(place, one["score"], shapely.from_wkb(one["geometry"]))
            for place, those in zip(places, objects, strict=True) for one in those or ()
        ]  # fmt: skip
        facts = group.slice(0, 1).to_pylist()[0]
        return [_thing_row(change, facts) for change in self._follower.observe(places, found, when)]


def _places(group: pa.Table) -> list[Place]:
    return list(zip(group["tile_row"].to_pylist(), group["tile_col"].to_pylist(), strict=True))


def _moments(stored: Sequence[Stored], rule: Rule, followed: set[str]) -> Iterator[tuple[datetime, str, pa.Table]]:
    """(when, processing id, known answers) in order of time, a tile at most once in each."""
    for _, files in groupby(stored, key=lambda file: file.path.parent):
        day = pa.concat_tables([_read(file.path) for file in files])
        said = pc.or_(pc.is_valid(day["probabilities"]), pc.is_valid(day["objects"]))
        known = pc.and_(pc.equal(day["status"], "ok"), said)
        known = pc.and_(known, pc.greater_equal(day["valid_frac"], rule.min_valid))
        known = pc.and_(known, pc.is_in(day["processing_id"], pa.array(sorted(followed), pa.string())))
        day = day.filter(known)
        order = [("acquired", "ascending"), ("processing_id", "ascending"), ("valid_frac", "descending"),
                 ("tile_row", "ascending"), ("tile_col", "ascending")]  # fmt: skip
        day = day.take(pc.sort_indices(day, sort_keys=order)) if day.num_rows else day
        keys = list(zip(day["acquired"].to_pylist(), day["processing_id"].to_pylist(), strict=True))
        for (when, processing), positions in groupby(range(len(keys)), key=keys.__getitem__):
            at = list(positions)
            yield when.astimezone(UTC), processing, _once(day.slice(at[0], len(at)))


def _once(group: pa.Table) -> pa.Table:
    """Of several answers about a tile the one with most valid ground, which comes first."""
    pairs = np.stack([group["tile_row"].to_numpy(), group["tile_col"].to_numpy()], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return group.take(pa.array(np.sort(first)))


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=_COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def _shares(column: pa.ChunkedArray, options: Sequence[str]) -> NDArray[np.float32]:
    """The column `probabilities` -> (n, K); what was left out of a long list is 0."""
    maps = column.combine_chunks()
    maps = maps.take(pa.array(np.arange(len(maps))))  # a copy whose children begin with its first row
    lengths = np.diff(maps.offsets.to_numpy())
    at = pc.index_in(maps.keys, pa.array(options, pa.string())).to_numpy()
    table = np.zeros((len(maps), len(options)), np.float32)
    table[np.repeat(np.arange(len(maps)), lengths), at] = maps.items.to_numpy()
    return table


def _answer_row(
    change: Change, place: Place, options: Sequence[str], facts: dict[str, Any], grid: AnchoredGrid
) -> dict[str, Any]:
    before, after = options[change.before], options[change.after]
    about = [*place, facts["question_id"], facts["processing_id"], before, after, change.first_after.isoformat()]
    [box] = boxes_of(grid, np.array([place[0]]), np.array([place[1]]))
    return _row(change, place, facts) | {
        "change_id": digest(about), "change": ANSWERED, "value_before": before, "value_after": after,
        "polygon": shapely.box(*box), "moved_from": None,
    }  # fmt: skip


def _thing_row(change: ObjectChange, facts: dict[str, Any]) -> dict[str, Any]:
    before = IS_GONE if change.what == "appeared" else IS_THERE
    after = IS_GONE if change.what == "vanished" else IS_THERE
    about = [change.what, facts["question_id"], facts["processing_id"], change.polygon.bounds,
             change.first_after.isoformat()]  # fmt: skip
    return _row(change, change.place, facts) | {
        "change_id": digest(about), "change": change.what, "value_before": before, "value_after": after,
        "polygon": change.polygon, "moved_from": change.moved_from,
    }  # fmt: skip


def _row(change: Change | ObjectChange, place: Place, facts: dict[str, Any]) -> dict[str, Any]:
    """What all changes tell. `facts`: a row of the observation that confirmed it."""
    row, col = place
    return {
        "tile_id": f"{row}/{col}", "tile_row": row, "tile_col": col, "question_id": facts["question_id"],
        "question": facts["question"], "probability_before": change.p_before, "probability_after": change.p_after,
        "last_before": change.last_before, "first_after": change.first_after, "confirmed": change.confirmed,
        "source": facts["source"], "processing_id": facts["processing_id"],
    }  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        polygon: shapely.Polygon = row["polygon"]
        return row["confirmed"], row["question_id"], row["tile_row"], row["tile_col"], row["change"], polygon.bounds

    ordered = sorted(rows, key=place)
    polygons, before = (np.array([row[name] for row in ordered], object) for name in ("polygon", "moved_from"))
    made = {
        "geometry": pa.array(shapely.to_wkb(polygons, byte_order=1), pa.binary()),
        "bbox": bbox_array(shapely.bounds(polygons).reshape(-1, 4)),
        "moved_from": bbox_array(shapely.bounds(before).reshape(-1, 4)),
    }
    columns = [
        made[field.name] if field.name in made else pa.array([row[field.name] for row in ordered], field.type)
        for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def write_changes(path: Path, table: pa.Table, grid: AnchoredGrid, basis: str) -> None:
    """Write changes as GeoParquet. `basis`: digest of the dataset and rule that they come from."""
    bounds = bounds_of(table)
    geo = geo_metadata(projjson(grid.crs_wkt), ["Polygon"] if bounds else [], bounds)

    def write(temporary: Path) -> None:
        with open_writer(temporary, LEVEL, SCHEMA) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(file_keys(geo, {"basis": basis}))

    write_whole(path, write)


def read_changes(path: Path) -> tuple[pa.Table, str]:
    """-> what `write_changes` wrote, and its basis; nothing and "" where there is no file that can be read."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            facts = json.loads(file.metadata.metadata[b"rsqa"])
            return file.read().cast(SCHEMA), str(facts["basis"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return SCHEMA.empty_table(), ""


def basis_of(stored: Sequence[Stored], rule: Rule) -> str:
    """Of the observations, their names among them, and the rule, however the observations are spread over files."""
    observed = sorted((observation.id, observation.files) for file in stored for observation in file.observations)
    return digest([observed, asdict(rule)])


def rule_id(rule: Rule) -> str:
    """Another rule, another id."""
    return digest(asdict(rule))


def lines(table: pa.Table) -> list[str]:
    """One line a change, for people."""
    return [
        f"{row['confirmed']:%Y-%m-%d %H:%M} tile {row['tile_id']} {row['question_id']}: {what(row)} "
        f"(probability {row['probability_before']:.2f} -> {row['probability_after']:.2f}, "
        f"since {row['first_after']:%Y-%m-%d %H:%M})"
        for row in table.to_pylist()
    ]


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The changes for JSON: times as ISO 8601, without the geometry, which their boxes tell."""
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in table.drop_columns(["geometry"]).to_pylist()
    ]


def what(row: dict[str, Any]) -> str:
    """`no -> yes`, `appeared`, `moved by 12.5`: in units of the CRS."""
    if row["change"] == ANSWERED:
        return f"{row['value_before']} -> {row['value_after']}"
    if row["moved_from"] is None:
        return str(row["change"])
    (x, y), (x0, y0) = (
        ((box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2) for box in (row["bbox"], row["moved_from"])
    )
    return f"moved by {hypot(x - x0, y - y0):.1f}"
