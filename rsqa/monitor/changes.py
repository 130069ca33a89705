"""The dataset shown to the rule in order of time: what changed, as `changes.parquet`. Rebuilt from nothing each time.

Whatever order scenes arrived in, the same dataset and rule give the same changes under the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
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
    ]
)
"""Both probabilities are those of `value_after`; `source` is what confirmed it."""
_COLUMNS = ["tile_row", "tile_col", "question_id", "question", "source", "acquired", "status", "probabilities",
            "valid_frac", "processing_id"]  # fmt: skip


def replay(stored: Sequence[Stored], rule: Rule, grid: AnchoredGrid) -> pa.Table:
    """All changes that the rule finds in the dataset, in order of time, with the columns of `SCHEMA`.

    Holds the observations of one day, and of each tile and question as many as confirm a change.
    """
    options = {id_: names for id_, (_, names) in processing_options(stored).items() if names}
    tracks: dict[str, Tracks] = {}
    places: dict[tuple[int, int], int] = {}
    """(row, col) of a tile -> its index in all tracks."""
    rows = []
    for when, processing, group in _moments(stored, rule, set(options)):
        names = options[processing]
        track = tracks.setdefault(processing, Tracks(len(names), rule.confirmations, rule.min_delta))
        pairs = list(zip(group["tile_row"].to_pylist(), group["tile_col"].to_pylist(), strict=True))
        tiles = np.array([places.setdefault(pair, len(places)) for pair in pairs], np.int64)
        track.grow(len(places))
        where = {int(tile): i for i, tile in enumerate(tiles)}
        for change in track.observe(tiles, _shares(group["probabilities"], names), when):
            i = where[change.tile]
            rows.append(_row(change, pairs[i], names, group.slice(i, 1).to_pylist()[0], grid))
    return _table(rows)


def _moments(
    stored: Sequence[Stored], rule: Rule, closed: set[str]
) -> Iterator[tuple[datetime, str, pa.Table]]:  # fmt: skip
    """(when, processing id, known answers) in order of time, a tile at most once in each."""
    for _, files in groupby(stored, key=lambda file: file.path.parent):
        day = pa.concat_tables([_read(file.path) for file in files])
        known = pc.and_(pc.equal(day["status"], "ok"), pc.is_valid(day["probabilities"]))
        known = pc.and_(known, pc.greater_equal(day["valid_frac"], rule.min_valid))
        known = pc.and_(known, pc.is_in(day["processing_id"], pa.array(sorted(closed), pa.string())))
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


def _row(
    change: Change, place: tuple[int, int], options: Sequence[str], facts: dict[str, Any], grid: AnchoredGrid
) -> dict[str, Any]:
    row, col = place
    before, after = options[change.before], options[change.after]
    about = [row, col, facts["question_id"], facts["processing_id"], before, after, change.first_after.isoformat()]
    return {
        "change_id": digest(about), "tile_id": f"{row}/{col}", "tile_row": row, "tile_col": col,
        "question_id": facts["question_id"], "question": facts["question"], "value_before": before,
        "value_after": after, "probability_before": change.p_before, "probability_after": change.p_after,
        "last_before": change.last_before, "first_after": change.first_after, "confirmed": change.confirmed,
        "source": facts["source"], "processing_id": facts["processing_id"],
        "box": boxes_of(grid, np.array([row]), np.array([col]))[0],
    }  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    ordered = sorted(rows, key=lambda row: (row["confirmed"], row["question_id"], row["tile_row"], row["tile_col"]))
    boxes = np.array([row["box"] for row in ordered], np.float64).reshape(-1, 4)
    made = {
        "geometry": pa.array(shapely.to_wkb(shapely.box(*boxes.T), byte_order=1), pa.binary()),
        "bbox": bbox_array(boxes),
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
    """Of the observations and the rule, however the observations are spread over files."""
    ids = sorted(observation.id for file in stored for observation in file.observations)
    return digest([ids, asdict(rule)])


def rule_id(rule: Rule) -> str:
    """Another rule, another id."""
    return digest(asdict(rule))


def lines(table: pa.Table) -> list[str]:
    """One line a change, for people."""
    return [
        f"{row['confirmed']:%Y-%m-%d %H:%M} tile {row['tile_id']} {row['question_id']}: {row['value_before']} -> "
        f"{row['value_after']} (probability {row['probability_before']:.2f} -> {row['probability_after']:.2f}, "
        f"since {row['first_after']:%Y-%m-%d %H:%M})"
        for row in table.to_pylist()
    ]
