"""The commit unit: one GeoParquet file with every planned tile of a part, one row per tile and question.

Being there is the record that the part's work is done, so it is written whole or not at all, and the same answers
give the same bytes.

N tiles, Q questions, K options of one question.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rsqa.sinks.ground import crs_label, projjson
from rsqa.sinks.table import (
    BOX_SCHEMA,
    EVIDENCE,
    SCHEMA,
    bbox_array,
    file_keys,
    geo_metadata,
    open_writer,
    probability_map,
)
from rsqa.sinks.tiling import tile_id
from rsqa.sinks.whole import write_whole_bytes
from rsqa.tasks.question import Question

ALL_OPTIONS = 16
"""Up to so many options every probability is kept, above only the `TOP_OPTIONS` likeliest; of labels so many."""
TOP_OPTIONS = 5

ZSTD_LEVEL = 3
"""Parts are read once and are small; the finished table is packed harder."""


@dataclass(frozen=True, slots=True, eq=False)
class QuestionColumns:
    """What became of one question on N tiles. Entries of tiles that are not "ok" are ignored and written as null."""

    question: Question
    processing_id: str
    status: NDArray[Any]
    """(N,) of "ok", "off_list", "unparsed", "truncated", "error"."""
    value: NDArray[np.object_]
    """(N,) of str or None; written only where the status is "ok"."""
    confidence: NDArray[np.float32]
    """(N,) NaN: none."""
    option_mass: NDArray[np.float32] | None = None
    """(N,) NaN: none."""
    probabilities: NDArray[np.float32] | None = None
    """(N, K) in the order of the question's options; rows with NaN: none."""
    text: NDArray[np.object_] | None = None
    """(N,) of str or None."""
    token_logprob: NDArray[np.float32] | None = None
    """(N,) NaN: none."""
    reasoning: NDArray[np.object_] | None = None
    """(N,) of str or None."""
    error: NDArray[np.object_] | None = None
    """(N,) of str or None."""
    boxes: NDArray[np.object_] | None = None
    """(N,) of (B, 4, 2) corners in pixels of the source, kept whatever the status; None: no boxes were asked for."""
    malformed: NDArray[np.integer[Any]] | None = None
    """(N,) boxes that were begun and are none."""
    evidence: NDArray[np.float32] | None = None
    """(N, blocks) share of each block in what an adapter told the model, NaN: without ground; None: not kept."""

    def __post_init__(self) -> None:
        n_tiles = len(self.status)
        names = (
            "value",
            "confidence",
            "option_mass",
            "text",
            "token_logprob",
            "reasoning",
            "error",
            "boxes",
            "malformed",
        )
        for name in names:
            column = getattr(self, name)
            if column is not None and column.shape != (n_tiles,):
                raise ValueError(f"{name} of question {self.question.id!r} is {column.shape}, status {n_tiles} tiles")
        shape = (n_tiles, len(self.question.options))
        if self.probabilities is not None and self.probabilities.shape != shape:
            raise ValueError(f"probabilities of {self.question.id!r} are {self.probabilities.shape}, not {shape}")


@dataclass(frozen=True, slots=True, eq=False)
class PartRows:
    """All planned tiles of one source within a part, in the plan's order."""

    source: str
    """Path relative to the argument it came from; first half of the tile ids."""
    source_crs_wkt: str
    """Empty without a place on the ground."""
    acquired: datetime | None
    """With a time zone."""
    tile_rows: NDArray[np.integer[Any]]
    """(N,)."""
    tile_cols: NDArray[np.integer[Any]]
    """(N,)."""
    polygons: NDArray[np.float64] | None
    """(N, 5, 2) closed rings of the cores, x and y in the source's CRS; None without a place."""
    windows: NDArray[np.float64] | None
    """(N, 4) xmin, ymin, xmax, ymax of the windows, NaN where the window is the core; None: everywhere so."""
    valid_frac: NDArray[np.float32]
    """(N,) share of the core's pixels that are valid; NaN: unknown, the core could not be read."""
    tile_status: NDArray[Any]
    """(N,) of "ok", "nodata", "error"."""
    tile_error: NDArray[np.object_]
    """(N,) of str or None."""
    questions: tuple[QuestionColumns, ...]
    scale: int = 1
    """See `TiledSource.scale`."""

    def __post_init__(self) -> None:
        n_tiles = len(self.tile_rows)
        shapes = [
            *((name, (n_tiles,)) for name in ("tile_cols", "valid_frac", "tile_status", "tile_error")),
            ("polygons", (n_tiles, 5, 2)),
            ("windows", (n_tiles, 4)),
        ]
        for name, shape in shapes:
            column = getattr(self, name)
            if column is not None and column.shape != shape:
                raise ValueError(f"{name} of {self.source} has shape {column.shape}, not {shape}")
        for columns in self.questions:
            if len(columns.status) != n_tiles:
                raise ValueError(f"question {columns.question.id!r} has {len(columns.status)} tiles, not {n_tiles}")
        if self.acquired is not None and self.acquired.tzinfo is None:
            raise ValueError(f"acquired of {self.source} needs a time zone")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a written part is, small enough to send between processes."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    n_rows: int
    n_tiles: int
    n_nodata: int
    """Tiles without enough valid pixels to be asked."""
    n_error: int
    """Tiles that could not be read or answered."""


def write_part(path: Path, rows: Sequence[PartRows], *, plan_id: str, number: int, batch: int | None = None) -> Receipt:
    """Commit a part to a file; see `pack_part`. Raises OutputError when the folder can't be written."""
    content, receipt = pack_part(path.name, rows, plan_id=plan_id, number=number, batch=batch)
    write_whole_bytes(path, content)
    return receipt


def pack_part(
    name: str, rows: Sequence[PartRows], *, plan_id: str, number: int, batch: int | None = None
) -> tuple[memoryview, Receipt]:
    """The bytes of a part, and what they are; all sources in it share one CRS.

    `batch`: of this part, where it is not the plan's; its last digits may then differ. The file's metadata say so.
    """
    table = part_table(rows)
    crs_wkt = rows[0].source_crs_wkt
    if any(crs_label(source.source_crs_wkt) != crs_label(crs_wkt) for source in rows):
        raise ValueError(f"part {number} mixes coordinate reference systems; the plan must cut it in two")
    n_tiles = sum(len(source.tile_rows) for source in rows)
    tile_ids = table.column("tile_id")
    facts = {
        "plan_id": plan_id,
        "part": number,
        "n_rows": table.num_rows,
        "n_tiles": n_tiles,
        "tiles": [tile_ids[0].as_py(), tile_ids[-1].as_py()],
        **({} if batch is None else {"batch": batch}),
    }
    sink = pa.BufferOutputStream()
    with open_writer(sink, ZSTD_LEVEL, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(file_keys(_geo(crs_wkt, rows), facts))
    content = memoryview(sink.getvalue())
    statuses = Counter(status for source in rows for status in source.tile_status.tolist())
    receipt = Receipt(
        name=name,
        size=content.nbytes,
        sha256=hashlib.sha256(content).hexdigest(),
        n_rows=table.num_rows,
        n_tiles=n_tiles,
        n_nodata=statuses["nodata"],
        n_error=statuses["error"],
    )
    return content, receipt


def _geo(crs_wkt: str, rows: Sequence[PartRows]) -> dict[str, Any]:
    rings = [source.polygons for source in rows if source.polygons is not None]
    if not rings:
        return geo_metadata(projjson(crs_wkt), [], None)
    corners = np.concatenate(rings).reshape(-1, 2)
    bounds = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    return geo_metadata(projjson(crs_wkt), ["Polygon"], bounds)


def part_table(rows: Sequence[PartRows]) -> pa.Table:
    """-> the rows of `SCHEMA`, or `BOX_SCHEMA` if boxes were asked for, tile by tile, a tile's questions together.

    Sources are joined before anything is made of them: a part may hold thousands of one tile each.
    """
    tiles = [len(source.tile_rows) for source in rows]
    n_tiles, n_questions = sum(tiles), len(rows[0].questions)
    shared = _tile_columns(rows, tiles)
    by_question = pa.concat_tables([_question_table(rows, tiles, shared, i) for i in range(n_questions)])
    tile_major = np.arange(n_questions * n_tiles).reshape(n_questions, n_tiles).T.ravel()
    return by_question.take(pa.array(tile_major)).combine_chunks()


def _tile_columns(rows: Sequence[PartRows], tiles: Sequence[int]) -> dict[str, pa.Array]:
    """-> the columns that are the same for all questions of a tile. `tiles`: how many each source has."""
    tile_rows = np.concatenate([source.tile_rows for source in rows])
    tile_cols = np.concatenate([source.tile_cols for source in rows])
    names = np.repeat(np.array([source.source for source in rows], object), tiles)
    scales = np.repeat([source.scale for source in rows], tiles).tolist()
    labels = [crs_label(source.source_crs_wkt) or None for source in rows]
    windows = _joined([source.windows for source in rows], tiles, (4,))
    return {
        "tile_id": pa.array(list(map(tile_id, names.tolist(), tile_rows.tolist(), tile_cols.tolist(), scales))),
        "tile_row": pa.array(tile_rows, pa.int32()),
        "tile_col": pa.array(tile_cols, pa.int32()),
        "source": pa.array(names, pa.string()),
        "acquired": _repeated([source.acquired for source in rows], tiles, "acquired"),
        "valid_frac": _floats(np.concatenate([source.valid_frac for source in rows]), np.ones(sum(tiles), bool)),
        **_geometry(_joined([source.polygons for source in rows], tiles, (5, 2)), sum(tiles)),
        "window_bbox": bbox_array(np.full((sum(tiles), 4), np.nan) if windows is None else windows),
        "source_crs": _repeated(labels, tiles, "source_crs"),
    }


def _question_table(
    rows: Sequence[PartRows], tiles: Sequence[int], shared: Mapping[str, pa.Array], number: int
) -> pa.Table:
    """-> one question's rows, a row per tile."""
    columns = [source.questions[number] for source in rows]
    question = columns[0].question

    def joined(name: str, shape: tuple[int, ...] = ()) -> NDArray[Any] | None:
        return _joined([getattr(column, name) for column in columns], tiles, shape)

    tile_status = np.concatenate([source.tile_status for source in rows])
    tile_error = np.concatenate([source.tile_error for source in rows])
    status, error = np.concatenate([column.status for column in columns]), joined("error")
    asked, none = tile_status == "ok", np.full(sum(tiles), None)
    values = {
        **shared,
        "question_id": pa.repeat(question.id, sum(tiles)),
        "question": pa.repeat(question.text, sum(tiles)),
        "kind": pa.repeat(question.kind, sum(tiles)),
        "value": _strings(joined("value"), asked & (status == "ok")),
        "confidence": _floats(joined("confidence"), asked),
        "option_mass": _floats(joined("option_mass"), asked),
        "probabilities": _probabilities(question, joined("probabilities", (len(question.options),)), asked),
        "text": _strings(joined("text"), asked),
        "token_logprob": _floats(joined("token_logprob"), asked),
        "reasoning": _strings(joined("reasoning"), asked),
        "status": pa.array(np.where(asked, status, tile_status), pa.string()),
        "error": pa.array(np.where(asked, none if error is None else error, tile_error), pa.string()),
        "processing_id": _repeated([column.processing_id for column in columns], tiles, "processing_id"),
    }
    table = pa.table([values[name] for name in SCHEMA.names], schema=SCHEMA)
    kept = [column.evidence.shape[1:] for column in columns if column.evidence is not None]
    if kept:
        return table.append_column(EVIDENCE, _evidence(joined("evidence", kept[0]), asked))
    boxes = joined("boxes")
    if boxes is None:
        return table
    malformed = [
        np.zeros(n, np.int32) if column.malformed is None else column.malformed
        for column, n in zip(columns, tiles, strict=True)
    ]
    found = [_boxes(boxes, asked), pa.array(np.concatenate(malformed), pa.int32(), mask=~asked)]
    return pa.table([*table.columns, *found], schema=BOX_SCHEMA)


def _boxes(corners: NDArray[np.object_], asked: NDArray[np.bool_]) -> pa.ListArray:
    """(N,) of (B, 4, 2) -> the column `boxes`, empty where there is none, null where nothing was asked."""
    lengths = np.array([len(boxes) if known else 0 for boxes, known in zip(corners, asked, strict=True)], np.int64)
    flat = np.concatenate([np.zeros(0), *(boxes.ravel() for boxes in corners[lengths > 0])])
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32(), mask=np.append(~asked, False))
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(flat), 8))


def _evidence(shares: NDArray[np.float32] | None, asked: NDArray[np.bool_]) -> pa.ListArray:
    """(N, blocks) -> the column `evidence`."""
    assert shares is not None
    ends = np.append(0, np.cumsum(asked)) * shares.shape[1]
    offsets = pa.array(ends, pa.int32(), mask=np.append(~asked, False))
    known = shares[asked].ravel()
    return pa.ListArray.from_arrays(offsets, pa.array(known, pa.float32(), mask=np.isnan(known)))


def _joined(pieces: Sequence[NDArray[Any] | None], tiles: Sequence[int], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """(tiles, *shape) of each source -> of all; None where no source has it, None or NaN where only some have."""
    known = [piece for piece in pieces if piece is not None]
    if not known:
        return None
    empty = None if known[0].dtype == object else np.nan
    filled = (
        np.full((n, *shape), empty, known[0].dtype) if piece is None else piece
        for piece, n in zip(pieces, tiles, strict=True)
    )
    return np.concatenate(list(filled))


def _repeated(values: Sequence[Any], tiles: Sequence[int], column: str) -> pa.Array:
    """A value per source -> one per tile."""
    return pa.array(values, SCHEMA.field(column).type).take(pa.array(np.repeat(np.arange(len(tiles)), tiles)))


def _geometry(polygons: NDArray[np.float64] | None, n_tiles: int) -> dict[str, pa.Array]:
    if polygons is None:
        return {"geometry": pa.nulls(n_tiles, pa.binary()), "bbox": bbox_array(np.full((n_tiles, 4), np.nan))}
    return {
        "geometry": pa.array(shapely.to_wkb(shapely.polygons(polygons), byte_order=1), pa.binary()),
        "bbox": bbox_array(np.hstack([polygons.min(axis=1), polygons.max(axis=1)])),
    }


def _strings(values: NDArray[np.object_] | None, keep: NDArray[np.bool_]) -> pa.Array:
    if values is None:
        return pa.nulls(len(keep), pa.string())
    return pa.array(values, pa.string(), mask=~keep)


def _floats(values: NDArray[np.float32] | None, keep: NDArray[np.bool_]) -> pa.Array:
    if values is None:
        return pa.nulls(len(keep), pa.float32())
    return pa.array(values.astype(np.float32), mask=~keep | np.isnan(values))


def _probabilities(question: Question, shares: NDArray[np.float32] | None, asked: NDArray[np.bool_]) -> pa.Array:
    """-> option → probability: all of a short list in its order, the likeliest of a long one, best first."""
    if shares is None:
        return pa.nulls(len(asked), SCHEMA.field("probabilities").type)
    known = asked & ~np.isnan(shares).any(axis=1)
    shown = shares[known]
    if len(question.options) > ALL_OPTIONS:
        kept = ALL_OPTIONS if question.kind == "label" else TOP_OPTIONS
        order = np.argsort(-shown, axis=1, kind="stable")[:, :kept]
    else:
        order = np.broadcast_to(np.arange(shown.shape[1]), shown.shape)
    names = pa.array(question.options, pa.string()).take(pa.array(order.ravel()))
    return probability_map(names, np.take_along_axis(shown, order, axis=1), known)
