"""`classify` with the embedded model: what a command says of files is what the model says of their pixels."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsqa.engines.registry import find_model, load_engine
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.labels import class_questions
from rsqa.tasks.schemes import SCHEMES, UCM_NAMES
from rsqa.tasks.task import Classify


def classify(folder: Path, out: Path, labels: tuple[str, ...], prompts: tuple[str, ...] = ()) -> dict[str, dict]:
    """Source -> row."""
    request = Request(
        sources=(str(folder),), questions=class_questions(labels, prompts), task=Classify(top_k=16), out=out,
        tile_px=None, device="cpu", part_tiles=8, batch_size=4,
    )  # fmt: skip
    return {row["source"]: row for row in pq.read_table(ask(request).out / "classes.parquet").to_pylist()}


@pytest.mark.parametrize(
    ("n_labels", "prompts"), [(21, ()), (100, ()), (10, ("Which is it: {labels}?", "What kind of place is this?"))]
)
def test_the_probabilities_are_those_of_the_model_for_each_file_s_own_pixels(tmp_path, n_labels, prompts):
    labels = SCHEMES["ucm"][:n_labels] if n_labels <= 21 else tuple(f"{c} {i}" for c in "ab" for i in range(50))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    shapes = [(128, 128), (128, 96), (128, 128), (60, 60)]
    chips = {f"{i}.png": rng.integers(0, 256, (3, *shape), dtype=np.uint8) for i, shape in enumerate(shapes)}
    for name, pixels in chips.items():
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "in" / name)
    table = classify(tmp_path / "in", tmp_path / "out", labels, prompts)
    engine, questions = load_engine(find_model(None, None), "cpu", "float32"), class_questions(labels, prompts)
    temperature = engine.card.temperatures.get("label", 1.0)
    for name, pixels in chips.items():
        replies = engine.prepare(questions, pixels.shape[1:], 1).answer(pixels[None])
        mean = np.mean([np.exp(reply.option_logprob[0].astype(float)) for reply in replies], axis=0)
        assert table[name]["option_mass"] == pytest.approx(mean.sum(), rel=1e-4)
        flat = mean ** (1 / temperature)
        shares = dict(zip(labels, flat / flat.sum(), strict=True))
        assert dict(table[name]["probabilities"]) == pytest.approx(
            dict(sorted(shares.items(), key=lambda item: -item[1])[:16]), abs=1e-5
        )


@pytest.mark.data
@pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA names no folder of real pictures")
def test_real_chips_that_it_never_saw_are_mostly_named_rightly(tmp_path):
    rows = pq.read_table(Path(os.environ["RSQA_TEST_DATA"]) / "ucm.parquet", columns=["id", "image", "cls"]).to_pylist()
    held_out = [row for row in rows if zlib.crc32(row["id"].encode()) % 100 < 15][:60]
    (tmp_path / "in").mkdir()
    for i, row in enumerate(held_out):
        (tmp_path / "in" / f"{i:03d}.webp").write_bytes(row["image"])
    table = classify(tmp_path / "in", tmp_path / "out", SCHEMES["ucm"])
    right = [table[f"{i:03d}.webp"]["label"] == UCM_NAMES[row["cls"]] for i, row in enumerate(held_out)]
    assert len(table) == 60
    assert np.mean(right) > 0.4  # one in 21 by chance
