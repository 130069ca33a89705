from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from answer_key import PLAN_ID, all_tiles, rows, source

from rsqa.sinks.caption_summary import write_summary
from rsqa.sinks.part import write_part
from rsqa.tasks.question import Question

CAPTION = Question("caption", "Describe the image.", "open")


def test_captions_and_words_are_counted_over_the_tiles_that_were_described(tmp_path):
    made = rows(source(shape=(3, 3)), all_tiles(source(shape=(3, 3))), (CAPTION,))
    said = ["A river near the river bank."] * 3 + ["Many boats in a river."] * 2 + ["Forest."] * 2 + [None] * 2
    status = np.array(["ok" if text else "truncated" for text in said], object)
    columns = replace(made.questions[0], value=np.array(said, object), status=status)
    made = replace(made, questions=(columns,), tile_status=np.full(9, "ok", object))
    write_part(tmp_path / "0.parquet", [made], plan_id=PLAN_ID, number=0)
    write_summary(tmp_path / "summary.json", [tmp_path / "0.parquet"])
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["tiles"], summary["described"], summary["different_captions"]) == (9, 7, 3)
    assert summary["captions"][0] == {"caption": "A river near the river bank.", "tiles": 3}
    assert [(word["word"], word["tiles"]) for word in summary["words"]] == [
        ("river", 5), ("bank", 3), ("boats", 2), ("forest", 2),
    ]  # fmt: skip
    assert summary["words"][0]["share"] == round(5 / 7, 4)


def test_nothing_described_is_no_fault(tmp_path):
    made = rows(source(shape=(1, 1)), [(0, 0)], (CAPTION,))
    columns = replace(made.questions[0], value=np.array([None], object), status=np.array(["truncated"], object))
    write_part(tmp_path / "0.parquet", [replace(made, questions=(columns,))], plan_id=PLAN_ID, number=0)
    write_summary(tmp_path / "summary.json", [tmp_path / "0.parquet"])
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["words"] == []
