"""Things that were found, as a monitor keeps them: with the row of the tile that holds their middle.

They are looked for as `rsqa detect` does, in the tiles of the grid and a margin around each; what several tiles saw is
one object. A row about a kind of thing has their number as value, and the objects themselves in one more column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rsqa.raster.anchored import Tiles
from rsqa.sinks.table import SCHEMA
from rsqa.tasks.detect import box_questions, gather_things
from rsqa.tasks.question import Question

OBJECTS = pa.field(
    "objects", pa.list_(pa.struct([("score", pa.float32()), ("box_logprob", pa.float32()), ("geometry", pa.binary())]))
)
"""What was found: probability that it is there, that of its box's words, its polygon in the grid's CRS as WKB. Null in
rows about questions."""
OBSERVED = SCHEMA.append(OBJECTS)
"""Columns of the dataset."""


def things_of(objects: Sequence[str], threshold: float) -> dict[str, Question]:
    """Kinds of things as people name them -> what the rows about each are about, under the id of a detect run.

    QuestionError where a name says nothing or two are the same.
    """
    names = gather_things(objects, ())[0] if objects else ()
    return {name: box_questions((name,), (), threshold, "many")[1] for name in names}


def margin_px(tile_px: int) -> int:
    """Half of it is shown on each side of a tile in which things are looked for, as `rsqa detect` does by default."""
    return tile_px // 4


def without_objects(rows: pa.Table) -> pa.Table:
    """Rows of questions -> rows of `OBSERVED`."""
    return rows.append_column(OBJECTS, pa.nulls(rows.num_rows, OBJECTS.type))


def with_objects(rows: pa.Table, found: Path, tiles: Tiles) -> pa.Table:
    """Rows about things on the grid -> rows of `OBSERVED`.

    found: `detections.parquet` of the resampled scene. tiles: what that covers; its own tiles are counted from there.
    """
    names = ["tile_row", "tile_col", "question_id", *OBJECTS.type.value_type.names]
    objects = pq.read_table(found, columns=names)
    row_of = {key: row for row, key in enumerate(_keys(rows, 0, 0))}
    at = np.array([row_of[key] for key in _keys(objects, tiles.row0, tiles.col0)], np.int64)
    n_objects = np.bincount(at, minlength=rows.num_rows)
    ends = pa.array(np.append(0, np.cumsum(n_objects)), pa.int32())
    ordered = objects.take(pa.array(np.argsort(at, kind="stable"))).combine_chunks()
    fields = list(OBJECTS.type.value_type)
    columns = [pa.array(ordered[field.name].to_pylist(), field.type) for field in fields]
    lists = pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(columns, fields=fields))
    known = pc.equal(rows["status"], "ok")
    value = pc.if_else(known, pa.array(n_objects.astype(str).tolist(), pa.string()), pa.scalar(None, pa.string()))
    rows = rows.set_column(rows.schema.get_field_index("value"), SCHEMA.field("value"), value)
    return rows.append_column(OBJECTS, lists)


def _keys(table: pa.Table, row0: int, col0: int) -> list[tuple[int, int, str]]:
    """(tile row, tile column, question id) of each row, tiles counted from elsewhere."""
    rows, cols = table["tile_row"].to_numpy() + row0, table["tile_col"].to_numpy() + col0
    return list(zip(rows.tolist(), cols.tolist(), table["question_id"].to_pylist(), strict=True))
