"""From what was seen and said of the tiles of a part to its rows.

N tiles of one source, n of them shown to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Replies
from rsqa.raster.grid import Block
from rsqa.raster.read import Chips
from rsqa.raster.source import footprint
from rsqa.run.plan import Plan, PlannedSource
from rsqa.run.said import read_replies, source_corners
from rsqa.sinks.part import PartRows, QuestionColumns
from rsqa.tasks.parse import Answers
from rsqa.tasks.question import Question


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What reading said of tiles of one source, in the part's order."""

    tiles: NDArray[np.int64]
    """(N, 2) tile row, tile column."""
    valid_frac: NDArray[np.float32]
    """(N,) valid share of the core; NaN where it could not be read."""
    status: NDArray[np.object_]
    """(N,) of ok, nodata, error."""
    error: NDArray[np.object_]
    """(N,) why, or None."""

    @classmethod
    def of(cls, chips: Chips, min_valid: float) -> Seen:
        """Tiles that were read; those with less than that share of valid pixels are nodata."""
        failed = np.array([error is not None for error in chips.error], bool)
        enough = (chips.valid_frac >= min_valid) & (chips.valid_frac > 0)
        status = np.where(failed, "error", np.where(enough, "ok", "nodata")).astype(object)
        return cls(np.asarray(chips.tiles, np.int64).reshape(-1, 2), chips.valid_frac, status, chips.error)

    @classmethod
    def unseen(cls, tiles: Sequence[tuple[int, int]], error: str) -> Seen:
        """Tiles that nobody could look at."""
        n = len(tiles)
        return cls(
            tiles=np.array(tiles, np.int64).reshape(n, 2),
            valid_frac=np.full(n, np.nan, np.float32),
            status=np.full(n, "error", object),
            error=np.full(n, error, object),
        )

    @classmethod
    def join(cls, pieces: Sequence[Seen]) -> Seen:
        """One after another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(cls)))

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) whether the tile is shown to the model."""
        return np.asarray(self.status == "ok", bool)

    @property
    def around(self) -> Block:
        """The smallest block with all of them in it."""
        (row0, col0), (row1, col1) = self.tiles.min(axis=0).tolist(), (self.tiles.max(axis=0) + 1).tolist()
        return Block(0, row0, row1, col0, col1)


def part_rows(
    plan: Plan,
    seen: Sequence[tuple[PlannedSource, Seen]],
    ids: Callable[[PlannedSource], tuple[str, ...]],
    replies: list[Replies],
) -> list[PartRows]:
    """The rows of each source, in order. `ids`: of a source the processing id of each row question."""
    questions, said = plan.row_questions, read_replies(plan, replies)
    rows, begin = [], 0
    for planned, tiles in seen:
        end = begin + int(tiles.ok.sum())
        answered: list[Answers | None] = [_take(answers, begin, end) for answers in said]
        columns = tuple(
            _columns(planned, tiles, *about, plan.evidence)
            for about in zip(questions, ids(planned), answered or [None] * len(questions), strict=True)
        )
        rows.append(_source_rows(planned, tiles, columns))
        begin = end
    return rows


def _source_rows(planned: PlannedSource, seen: Seen, questions: tuple[QuestionColumns, ...]) -> PartRows:
    source, grid = planned.source, planned.grid
    tiles = [grid.tile(row, col) for row, col in seen.tiles.tolist()]
    cores = footprint(source, [tile.core for tile in tiles])
    shown = footprint(source, [tile.window for tile in tiles])
    windows = np.hstack([shown.min(axis=1), shown.max(axis=1)])
    windows[[tile.window == tile.core or not source.placed for tile in tiles]] = np.nan
    return PartRows(
        source=source.name,
        source_crs_wkt=source.crs_wkt,
        acquired=source.acquired,
        tile_rows=seen.tiles[:, 0],
        tile_cols=seen.tiles[:, 1],
        polygons=cores if source.placed else None,
        windows=windows,
        valid_frac=seen.valid_frac,
        tile_status=seen.status,
        tile_error=seen.error,
        questions=questions,
        scale=planned.scale,
    )


def _columns(
    planned: PlannedSource, seen: Seen, question: Question, processing_id: str, said: Answers | None, side: int
) -> QuestionColumns:
    """Answers of the `ok` tiles, spread over all tiles of the source. `side`: see `Plan.evidence`."""
    ok = seen.ok
    n_tiles = len(ok)
    whole: dict[str, NDArray[Any]] = {
        "status": np.full(n_tiles, "error", object),  # replaced for `ok` tiles, not looked at for the others
        "value": np.full(n_tiles, None, object),
        "confidence": np.full(n_tiles, np.nan, np.float32),
    }
    if question.kind == "box":  # a part without any has the columns too
        whole |= {"boxes": np.full(n_tiles, None, object), "malformed": np.zeros(n_tiles, np.int64)}
    if said is not None:
        for name, values in _values(planned, seen.tiles[ok], said).items():
            whole[name] = values if ok.all() else _spread(values, ok)
    if side:  # also where nothing was asked: all parts have the same columns
        whole.setdefault("evidence", np.full((n_tiles, side * side), np.nan, np.float32))
    return QuestionColumns(question=question, processing_id=processing_id, **whole)


def _values(planned: PlannedSource, tiles: NDArray[np.int64], said: Answers) -> dict[str, NDArray[Any]]:
    """Column -> (n,) values of n tiles; boxes in pixels of the source."""
    values = {column.name: getattr(said, column.name) for column in fields(Answers)}
    if said.boxes is not None:
        values["boxes"], values["malformed"] = source_corners(planned, tiles, said.boxes)
    return {name: column for name, column in values.items() if column is not None}


def _spread(values: NDArray[Any], ok: NDArray[np.bool_]) -> NDArray[Any]:
    """(n ok, …) -> (N, …), None or NaN for the other tiles."""
    empty = {"O": None, "i": 0}.get(values.dtype.kind, np.nan)
    whole = np.full((len(ok), *values.shape[1:]), empty, values.dtype)
    whole[ok] = values
    return whole


def _take(said: Answers, begin: int, end: int) -> Answers:
    """Rows begin to end - 1."""
    columns = (getattr(said, f.name) for f in fields(Answers))
    return Answers(*(None if column is None else column[begin:end] for column in columns))  # type: ignore[arg-type]
