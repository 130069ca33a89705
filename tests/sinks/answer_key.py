"""Answers that can be computed from a tile's row and column, and parts that hold them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from affine import Affine
from pyproj import CRS

from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.part import PartRows, QuestionColumns, write_part
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import COUNTS, YES_NO, Question

PLAN_ID = "0123456789abcdef"
ACQUIRED = datetime(2021, 6, 5, 4, 3, 2, tzinfo=UTC)

WATER = Question("water", "Is there water?", "yesno", YES_NO)
SHIPS = Question("ships", "How many ships are there?", "count", COUNTS)
SCENE = Question("status", "Describe the scene.", "open")  # its id is also the name of an array of the cube
QUESTIONS = (WATER, SHIPS, SCENE)


def wkt(epsg: int) -> str:
    return CRS.from_epsg(epsg).to_wkt("WKT1_GDAL")


NORTH_UP = (2.0, 0, 500_000, 0, -2.0, 4_600_000)


def source(name="dir/a b.tif", crs_wkt=None, transform=NORTH_UP, shape=(12, 9), tile_px=56):
    """A source of `shape` (rows, cols) of tiles, the last row and column 10 px short."""
    return TiledSource(
        name=name,
        crs_wkt=crs_wkt or wkt(32633),
        transform=transform,
        width=shape[1] * tile_px - 10,
        height=shape[0] * tile_px - 10,
        tile_px=tile_px,
        acquired=ACQUIRED,
    )


def tile_status(row: int, col: int) -> str:
    if (row + col) % 11 == 0:
        return "nodata"
    return "error" if (3 * row + col) % 13 == 0 else "ok"


def status(question: Question, row: int, col: int) -> str:
    if tile_status(row, col) != "ok":
        return tile_status(row, col)
    if question.kind == "count":
        return "off_list" if (row + 2 * col) % 7 == 0 else "ok"
    return "truncated" if question.kind == "open" and (row * col) % 5 == 4 else "ok"


def value(question: Question, row: int, col: int) -> str | None:
    if status(question, row, col) != "ok":
        return None
    if not question.closed:
        return f"row {row}, col {col}"
    return question.options[(5 * row + 3 * col) % len(question.options)]


def confidence(question: Question, row: int, col: int) -> float:
    """NaN: none."""
    if not question.closed or tile_status(row, col) != "ok":
        return np.nan
    return float(np.float32((31 * row + 17 * col) % 97 / 97))


def ring(src: TiledSource, row: int, col: int) -> np.ndarray:
    """(5, 2) corners of the core."""
    left, top = col * src.tile_px, row * src.tile_px
    right, bottom = min(left + src.tile_px, src.width), min(top + src.tile_px, src.height)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return np.array([Affine(*src.transform) @ corner for corner in corners])


def columns(question: Question, tiles) -> QuestionColumns:
    probabilities = None
    if question.closed:
        k = len(question.options)
        probabilities = np.full((len(tiles), k), 0.5 / (k - 1), np.float32)
        for i, (row, col) in enumerate(tiles):
            probabilities[i, (5 * row + 3 * col) % k] = 0.5
    return QuestionColumns(
        question,
        f"processing-{question.id}",
        status=np.array([status(question, *tile) for tile in tiles], object),
        value=np.array([value(question, *tile) or "never shown" for tile in tiles], object),
        confidence=np.array([confidence(question, *tile) for tile in tiles], np.float32),
        probabilities=probabilities,
        text=None if question.closed else np.array([f"row {r}, col {c}" for r, c in tiles], object),
    )


def rows(src: TiledSource, tiles, questions=QUESTIONS) -> PartRows:
    statuses = np.array([tile_status(*tile) for tile in tiles], object)
    return PartRows(
        source=src.name,
        source_crs_wkt=src.crs_wkt,
        acquired=src.acquired,
        tile_rows=np.array([row for row, _ in tiles]),
        tile_cols=np.array([col for _, col in tiles]),
        polygons=np.array([ring(src, *tile) for tile in tiles]),
        windows=None,
        valid_frac=np.array([0 if s == "nodata" else np.nan if s == "error" else 1 for s in statuses], np.float32),
        tile_status=statuses,
        tile_error=np.where(statuses == "error", "block_unreadable", None),
        questions=tuple(columns(question, tiles) for question in questions),
    )


def all_tiles(src: TiledSource) -> list[tuple[int, int]]:
    return [(row, col) for row in range(src.n_rows) for col in range(src.n_cols)]


def write_parts(folder: Path, sources, tiles_per_part=25, questions=QUESTIONS) -> list[Path]:
    """Parts of one source each, in order."""
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []
    for src in sources:
        tiles = all_tiles(src)
        for start in range(0, len(tiles), tiles_per_part):
            path = folder / f"{len(paths):08d}.parquet"
            portion = rows(src, tiles[start : start + tiles_per_part], questions)
            write_part(path, [portion], plan_id=PLAN_ID, number=len(paths))
            paths.append(path)
    return paths


def finished(folder: Path, *sources) -> Path:
    """A folder with a whole table of answers, as other tools find it."""
    folder.mkdir(exist_ok=True)
    parts = write_parts(folder / "parts", sources)
    finish_answers(folder / "answers.parquet", parts, QUESTIONS, [src.crs_wkt for src in sources], PLAN_ID)
    (folder / "run.json").write_text("{}")
    return folder
