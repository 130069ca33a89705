"""Where the prompt of an adapter looked, as the page draws it: on the cells that the cores of tiles are cut into.

T tiles of all sources, N tiles of a batch, k cells along a side of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsqa.report.answers import NO_PROBABILITY, PROBABILITY_STEPS
from rsqa.sinks.evidence import on_cores, shares_of
from rsqa.sinks.finished import FinishedTable
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import Question


def gather_evidence(
    table: FinishedTable, sources: Sequence[TiledSource], questions: Sequence[Question], side: int
) -> dict[str, NDArray[np.uint8]]:
    """Id of each question -> (T, k, k) weights in 1 / PROBABILITY_STEPS, or NO_PROBABILITY; `side` is k."""
    first = [0, *accumulate(source.n_rows * source.n_cols for source in sources)]
    found = {question.id: np.full((first[-1], side, side), NO_PROBABILITY, np.uint8) for question in questions}
    columns = ["source", "tile_row", "tile_col", "question_id", "evidence"]
    for batch in table.data.to_batches(columns=columns, batch_readahead=2, fragment_readahead=1):
        rows = pa.Table.from_batches([batch])
        for number, source in enumerate(sources):
            here = rows.filter(pc.equal(rows["source"], source.name))
            for question_id in here["question_id"].unique().to_pylist():
                own = here.filter(pc.equal(here["question_id"], question_id))
                tile_rows, tile_cols = (own[name].to_numpy() for name in ("tile_row", "tile_col"))
                cells = on_cores(shares_of(own["evidence"], side), source, tile_rows, tile_cols)
                steps = np.where(np.isnan(cells), NO_PROBABILITY, np.rint(cells * PROBABILITY_STEPS))
                tiles = first[number] + tile_rows.astype(np.int64) * source.n_cols + tile_cols
                found[question_id][tiles] = steps.astype(np.uint8)
    return found
