"""What a lower precision changes: `RSQA_TEST_DATA=DIR python tests/bench/bench_dtype.py`.

Six questions about every fifth picture of UC Merced to the embedded model, on one core: speed in CPU seconds against
float32, and the share of answers that stay the same. Prints a line each and, last, one JSON object.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from rsqa.engines.registry import load_engine
from rsqa.tasks.question import YES_NO, Question

NOUNS = ("tree", "building", "car", "road", "ship")
ASKED = ("Is there water?", *(f"Is there a {noun}?" for noun in NOUNS))
SIDE, BATCH = 256, 16


def compare(chips: np.ndarray, dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", "int8")) -> dict[str, Any]:
    """-> per precision its speed and agreement, the first one being what the others are held against."""
    torch.set_num_threads(1)
    questions = [Question(f"q{i}", text, "yesno", YES_NO) for i, text in enumerate(ASKED)]
    rows: dict[str, Any] = {}
    for dtype in dtypes:
        session = load_engine(None, "cpu", dtype).prepare(questions, chips.shape[2:], BATCH)
        session.answer(chips[:BATCH])
        start = time.process_time()
        scores = np.stack([reply.option_logprob for reply in session.answer(chips)])
        seconds = time.process_time() - start
        said = scores.argmax(axis=-1)
        if not rows:
            first, first_seconds = said, seconds
        rows[dtype] = {"times_as_fast": first_seconds / seconds, "same": float((said == first).mean())}
        print(
            f"{dtype:>9} {first_seconds / seconds:5.2f} times as fast, {(said == first).mean():.2%} of {said.size} same"
        )
    return {"bench": "dtype", "answers": int(said.size), "dtypes": rows}


def pictures(folder: Path) -> np.ndarray:
    """Every fifth of the first two thousand."""
    cells = pq.read_table(folder / "ucm.parquet", columns=["image"])["image"].to_pylist()[::5][:400]
    raw = (cell["bytes"] if isinstance(cell, dict) else cell for cell in cells)
    shown = (Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE)) for data in raw)
    return np.stack([np.moveaxis(np.asarray(picture), 2, 0) for picture in shown])


if __name__ == "__main__":
    print(json.dumps(compare(pictures(Path(os.environ["RSQA_TEST_DATA"])))))
