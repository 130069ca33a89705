"""Observations without a model: the answers of each tile are given, and written as a pass writes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from rsqa.monitor.dataset import Observation, asked_questions, placed, write_observation
from rsqa.monitor.objects import without_objects
from rsqa.raster.anchored import AnchoredGrid, Tiles, crs_wkt
from rsqa.sinks.part import PartRows, QuestionColumns, part_table
from rsqa.tasks.question import YES_NO, Question

MARK = Question("mark", "Is there magenta?", "yesno", YES_NO)
SHIP = Question("ship", "Is there a ship?", "yesno", YES_NO)


def grid(tile_px: int = 56) -> AnchoredGrid:
    return AnchoredGrid(crs_wkt("EPSG:32631"), 500_000.0, 4_600_000.0, 0.5, tile_px)


def write_answers(
    out: Path, when: datetime, shares, *, name: str, fingerprint: str, processing=None, replaces=(), questions=(MARK,)
) -> Observation:
    """`shares`: (rows, cols) of p(yes) from tile 0/0, NaN where nothing is known."""
    shares = np.asarray(shares, np.float64)
    n_rows, n_cols = shares.shape
    tile_rows, tile_cols = (index.ravel() for index in np.indices(shares.shape))
    yes = shares.ravel()
    known = ~np.isnan(yes)
    pair = np.stack([yes, 1 - yes], axis=1).astype(np.float32)
    ids = processing or {question.id: f"made-{question.id}" for question in questions}
    columns = tuple(
        QuestionColumns(
            question, ids[question.id], np.where(known, "ok", "nodata").astype(object),
            np.where(yes >= 0.5, "yes", "no").astype(object), pair.max(axis=1), probabilities=pair,
        )
        for question in questions
    )  # fmt: skip
    rows = PartRows(
        source="scene.tif", source_crs_wkt="", acquired=None, tile_rows=tile_rows, tile_cols=tile_cols, polygons=None,
        windows=None, valid_frac=known.astype(np.float32), tile_status=np.where(known, "ok", "nodata").astype(object),
        tile_error=np.full(len(yes), None), questions=columns,
    )  # fmt: skip
    observation = Observation(
        acquired=when, files=((name, fingerprint),), replaces=replaces, **asked_questions(questions, ids)
    )
    (out / "observations").mkdir(parents=True, exist_ok=True)
    table = placed(part_table([rows]), grid(), Tiles(0, n_rows, 0, n_cols), frozenset(), name, when, ids)
    write_observation(out, observation, without_objects(table), grid())
    return observation
