"""The dataset: one GeoParquet file per observation, in folders by date of acquisition. It is the truth and the ledger.

OUT/observations/acquired_date=2026-05-01/20260501T101500Z.0123456789ab.parquet

A file is there whole or not at all, and being there is the record that its scene was asked its questions. All files
together are one table, with the columns of `answers.parquet` and one for things that were found, see
`rsqa.monitor.objects`; `tile_id` is `row/col` of the anchored grid.

Its bytes do not tell in which order scenes arrived: ids come from what files hold, a file that came under several names
goes by the first of them, and what was replaced is forgotten once it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rsqa.errors import OutputError
from rsqa.monitor.objects import OBSERVED
from rsqa.monitor.scenes import Acquisition, acquisition_id, source_label
from rsqa.monitor.watch import digest
from rsqa.raster.anchored import AnchoredGrid, Bounds, Tiles
from rsqa.sinks.ground import crs_label, projjson
from rsqa.sinks.table import FORMAT, SCHEMA, bbox_array, file_keys, geo_metadata, open_writer
from rsqa.sinks.whole import discard, write_whole
from rsqa.tasks.question import Question

OBSERVATIONS = "observations"
LEVEL = 9
"""zstd: files are written once and read for years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one commit says: these questions were asked of this acquisition."""

    acquired: datetime
    files: tuple[tuple[str, str], ...]
    """(name, fingerprint) of each file that was looked at; of copies the first name that was ever seen."""
    asked: tuple[tuple[str, str], ...]
    """(question id, processing id)"""
    questions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(processing id, kind, options) of each of them."""
    replaces: tuple[str, ...] = ()
    """Ids of observations that hold the same acquisition with older files, until those are gone."""

    @property
    def id(self) -> str:
        """Name of its file: the moment, and 12 digits that tell its content and questions."""
        return f"{acquisition_id(self.acquired)}.{digest([sorted(self.content), sorted(self.asked)])[:12]}"

    @property
    def content(self) -> frozenset[str]:
        """Fingerprints of its files."""
        return frozenset(fingerprint for _, fingerprint in self.files)

    @property
    def label(self) -> str:
        """The `source` of its rows."""
        return source_label(name for name, _ in self.files)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "acquired": self.acquired.isoformat(), "files": self.files, "asked": self.asked,
            "questions": self.questions, "replaces": self.replaces,
        }  # fmt: skip

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Observation:
        """The inverse of `to_json`."""
        return cls(
            acquired=datetime.fromisoformat(raw["acquired"]),
            files=tuple((name, fingerprint) for name, fingerprint in raw["files"]),
            asked=tuple((question, processing) for question, processing in raw["asked"]),
            questions=tuple((processing, kind, tuple(options)) for processing, kind, options in raw["questions"]),
            replaces=tuple(raw["replaces"]),
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the dataset; after compaction it holds many observations."""

    path: Path
    observations: tuple[Observation, ...]


def folder_of(out: Path, acquired: datetime) -> Path:
    """The partition of a moment."""
    return out / OBSERVATIONS / f"acquired_date={acquired:%Y-%m-%d}"


def path_of(out: Path, observation: Observation) -> Path:
    """Where an observation lies that was not compacted."""
    return folder_of(out, observation.acquired) / f"{observation.id}.parquet"


def ledger(out: Path) -> list[Stored]:
    """All files of the dataset, by footer alone, oldest first. OutputError when one is damaged."""
    return [_stored(path) for path in sorted((out / OBSERVATIONS).glob("acquired_date=*/[!.]*.parquet"))]


def _stored(path: Path) -> Stored:
    try:
        facts = json.loads((pq.read_metadata(path).metadata or {})[b"rsqa"])
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r}, this rsqa reads {FORMAT}")
        return Stored(path, tuple(map(Observation.from_json, facts["observations"])))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> OutputError:
    """What to say of a file of the dataset that can't be read."""
    reason = " ".join(str(error).split())[:200]
    return OutputError(
        f"{str(path)!r} is damaged ({reason}); delete it, and its scene is asked again while its file is there"
    )


def drop_replaced(stored: Sequence[Stored], grid: AnchoredGrid) -> list[Stored]:
    """Remove the observations that a newer one stands for; -> the files that are left."""
    stale = {id_ for file in stored for observation in file.observations for id_ in observation.replaces}
    kept = _rewritten(stored, lambda observation: None if observation.id in stale else observation, grid)
    return _rewritten(kept, lambda observation: replace(observation, replaces=()), grid)


def under_first_names(stored: Sequence[Stored], there: Sequence[Acquisition], grid: AnchoredGrid) -> list[Stored]:
    """Rename files of the dataset's scenes of which a copy is `there` under a name before theirs; -> the dataset."""
    names = {(one.acquired, scene.fingerprint): scene.found.name for one in there for scene in one.scenes}

    def renamed(observation: Observation) -> Observation:
        files = ((min(name, names.get((observation.acquired, of), name)), of) for name, of in observation.files)
        return replace(observation, files=tuple(files))

    return _rewritten(stored, renamed, grid)


def _rewritten(
    stored: Sequence[Stored], become: Callable[[Observation], Observation | None], grid: AnchoredGrid
) -> list[Stored]:
    """Rewrite the files that hold what becomes another observation, with the same rows, or none; -> what is left."""
    left = []
    for file in stored:
        new = [become(observation) for observation in file.observations]
        observations = tuple(observation for observation in new if observation is not None)
        if not observations:
            discard(file.path)
            continue
        if observations != file.observations:
            pieces = zip(new, pieces_of(file), strict=True)
            write_file(file.path, [(one, _of_source(rows, one.label)) for one, (_, rows) in pieces if one], grid)
        left.append(Stored(file.path, observations))
    return left


def _of_source(rows: pa.Table, source: str) -> pa.Table:
    names = pa.repeat(pa.scalar(source, SCHEMA.field("source").type), rows.num_rows)
    return rows.set_column(rows.schema.get_field_index("source"), SCHEMA.field("source"), names)


def pieces_of(file: Stored) -> list[tuple[Observation, pa.Table]]:
    """Each observation of a file with its rows. OutputError when it is damaged."""
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
            counts = json.loads(parquet.metadata.metadata[b"rsqa"])["n_rows"]
            table = parquet.read()
    except (OSError, pa.ArrowException) as error:
        raise damaged(file.path, error) from error
    ends = np.cumsum(counts).tolist()
    rows = [table.slice(end - n, n) for end, n in zip(ends, counts, strict=True)]
    return list(zip(file.observations, rows, strict=True))


def write_observation(out: Path, observation: Observation, table: pa.Table, grid: AnchoredGrid) -> Path:
    """Commit the rows of an observation, none where the scene lies outside the area. OutputError as `write_whole`."""
    path = path_of(out, observation)
    make_folder(path.parent)
    write_file(path, [(observation, table)], grid)
    return path


def make_folder(path: Path) -> None:
    """Make a folder of the monitor, if it is not there. OutputError when that can't be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't write {str(path)!r}: {error.strerror}; choose another out") from error


def write_file(path: Path, pieces: Sequence[tuple[Observation, pa.Table]], grid: AnchoredGrid) -> None:
    """Write a file of the dataset: observations, and the rows of each."""
    table = pa.concat_tables([rows for _, rows in pieces]).combine_chunks()  # pages end where chunks do
    bounds = bounds_of(table)
    geo = geo_metadata(projjson(grid.crs_wkt), ["Polygon"] if bounds else [], bounds)
    facts = {
        "observations": [observation.to_json() for observation, _ in pieces],
        "n_rows": [rows.num_rows for _, rows in pieces],
    }

    def write(temporary: Path) -> None:
        with open_writer(temporary, LEVEL, OBSERVED) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(file_keys(geo, facts))

    write_whole(path, write)


def bounds_of(table: pa.Table) -> Bounds | None:
    """The box around the boxes of a table's rows; None without any."""
    if not table.num_rows:
        return None
    sides = table["bbox"].combine_chunks().flatten()
    xmin, ymin, xmax, ymax = (
        find(side).as_py() for find, side in zip((pc.min, pc.min, pc.max, pc.max), sides, strict=True)
    )
    return xmin, ymin, xmax, ymax


def placed(
    parts: pa.Table, grid: AnchoredGrid, tiles: Tiles, unread: frozenset[tuple[int, int]], source: str,
    acquired: datetime, processing: dict[str, str],
) -> pa.Table:  # fmt: skip
    """Rows of a run over the resampled scene -> the same on the grid.

    tiles: what the resampled scene covers. unread: (row, col) of tiles whose pixels could not be read.
    processing: question id -> processing id.
    """
    rows, cols = (parts[name].to_numpy() for name in ("tile_row", "tile_col"))
    rows, cols = rows + tiles.row0, cols + tiles.col0
    bad = np.array([place in unread for place in zip(rows.tolist(), cols.tolist(), strict=True)], bool)
    boxes = boxes_of(grid, rows, cols)
    ids = parts["question_id"].to_pylist()
    known = {
        "tile_id": pa.array([f"{row}/{col}" for row, col in zip(rows.tolist(), cols.tolist(), strict=True)]),
        "tile_row": pa.array(rows, pa.int32()),
        "tile_col": pa.array(cols, pa.int32()),
        "source": pa.repeat(source, len(rows)),
        "acquired": pa.repeat(pa.scalar(acquired, SCHEMA.field("acquired").type), len(rows)),
        "geometry": pa.array(shapely.to_wkb(shapely.box(*boxes.T), byte_order=1), pa.binary()),
        "bbox": bbox_array(boxes),
        "window_bbox": bbox_array(np.full((len(rows), 4), np.nan)),
        "processing_id": pa.array([processing[id_] for id_ in ids], pa.string()),
        "source_crs": pa.repeat(crs_label(grid.crs_wkt), len(rows)),
        "status": _or(parts["status"], bad, "error"),
        "error": _or(parts["error"], bad, "block_unreadable"),
    }
    answers = ("value", "confidence", "option_mass", "probabilities", "text", "token_logprob", "reasoning",
               "valid_frac")  # fmt: skip
    known |= {name: _or(parts[name], bad, None) for name in answers}
    columns = [known[field.name] if field.name in known else parts[field.name] for field in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def _or(column: pa.ChunkedArray, there: NDArray[np.bool_], value: str | None) -> pa.ChunkedArray:
    """The column with another value `there`."""
    if not there.any():
        return column
    if column.type == SCHEMA.field("probabilities").type:  # if_else does not know maps
        return pa.chunked_array([column.combine_chunks().take(pa.array(np.arange(len(there)), mask=there))])
    return pc.if_else(pa.array(there), pa.scalar(value, column.type), column)


def boxes_of(grid: AnchoredGrid, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 4) xmin, ymin, xmax, ymax of tiles."""
    left, top = grid.x0 + cols * grid.tile, grid.y0 - rows * grid.tile
    return np.stack([left, top - grid.tile, left + grid.tile, top], axis=1)


def processing_options(stored: Iterable[Stored]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Processing id -> kind and options, of all that was ever asked."""
    return {
        processing: (kind, options)
        for file in stored
        for observation in file.observations
        for processing, kind, options in observation.questions
    }


def asked_questions(questions: Sequence[Question], processing: dict[str, str]) -> dict[str, Any]:
    """The `asked` and `questions` of an observation."""
    return {
        "asked": tuple((question.id, processing[question.id]) for question in questions),
        "questions": tuple((processing[q.id], q.kind, q.options) for q in questions),
    }
