"""GRPO records as JSON lines and with the published columns."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsqa.errors import InputError, SourceMissing
from rsqa.train.check import check
from rsqa.train.grpo_records import GoldQuestion, index_gold, read_gold


def png(value, side=(4, 6)):
    file = io.BytesIO()
    Image.new("RGB", side[::-1], (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


GOOD = {"image": "a.png", "question": "<image>\n{VQA} Is there water? ", "answer_type": "1", "answer": "yes"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"answer_type": 1}, None),
        ({"answer_type": "0", "answer": ""}, None),
        ({"answer_type": "2", "answer": "[[1,2,3,4]]"}, None),
        ({"answer_type": "2", "answer": "[[1,2,3,4000]]"}, "box outside the picture"),
        ({"answer_type": "3"}, "answer type is none of 0, 1, 2"),
        ({"answer": " "}, "empty answer"),
        ({"question": "<image>\n"}, "empty question"),
        ({"answer": None}, "record lacks image, question, answer_type or answer"),
        ({"image": "none.png"}, "no such picture"),
        ({"image": "../a.png"}, "image path leaves the folder"),
    ],
)
def test_json_lines(tmp_path, change, reason):
    (tmp_path / "a.png").write_bytes(png(7))
    file = tmp_path / "g.jsonl"
    file.write_text(json.dumps(GOOD | change) + "\n")
    found = index_gold(file, tmp_path)
    assert found.left_out.counts == ({} if reason is None else {reason: 1})
    if reason is None:
        asked = GOOD | change | {"question": "{VQA} Is there water? "}
        texts = {key: str(value) for key, value in asked.items()}
        assert found.questions == (GoldQuestion(**texts),)
        assert found.pixels(0)[:, 0, 0].tolist() == [7, 0, 0]
    else:
        with pytest.raises(InputError, match=f"1 of 1 records of g.jsonl can't be used, most .*{reason}"):
            read_gold(file, tmp_path, skip_bad=False)


MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "Think."}]},
    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]},
]


def published(file, n=5, prompt=MESSAGES, image=lambda i: {"bytes": png(i), "path": None}, size=2):
    rows = [{"prompt": prompt, "image": image(i), "solution": ["1", f"ship {i}", "What is it?", ""]} for i in range(n)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=size)


MIXED = json.dumps([{"role": "system", "content": ["Think."]}, MESSAGES[1]])


@pytest.mark.parametrize("prompt", [MESSAGES, MIXED, [{"role": "user", "content": "What is it?"}]])
def test_published_columns(tmp_path, prompt):
    file = tmp_path / "g.parquet"
    published(file, prompt=prompt)
    found = read_gold(file, tmp_path, skip_bad=False)
    assert [q.question for q in found.questions] == ["What is it?"] * 5
    assert [q.answer for q in found.questions] == [f"ship {i}" for i in range(5)]
    assert [found.pixels(i)[0, 0, 0] for i in (4, 0, 3, 1, 2)] == [4, 0, 3, 1, 2]
    assert found.questions[3].image == "row 1 of row group 1 of g.parquet"
    assert check(file, tmp_path).n_usable == 5


def test_pictures_of_published_columns_may_be_paths(tmp_path):
    Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(tmp_path / "a.png")
    published(tmp_path / "g.parquet", 1, image=lambda _: {"bytes": None, "path": "a.png"})
    assert read_gold(tmp_path / "g.parquet", tmp_path, skip_bad=False).pixels(0)[0, 0, 0] == 9


def test_bad_rows_of_published_columns(tmp_path):
    published(tmp_path / "g.parquet", 2, prompt=[{"role": "system", "content": "Think."}])
    found = index_gold(tmp_path / "g.parquet", tmp_path)
    assert found.left_out.counts == {"prompt or solution not as published": 2}
    published(tmp_path / "h.parquet", 1, image=lambda _: {"bytes": b"none", "path": None})
    assert index_gold(tmp_path / "h.parquet", tmp_path).left_out.counts == {"picture can't be read": 1}


def test_files_that_are_no_records(tmp_path):
    with pytest.raises(SourceMissing, match=r"no file g\.parquet"):
        index_gold(tmp_path / "g.parquet", tmp_path)
    (tmp_path / "g.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"g\.parquet can't be read as Parquet"):
        index_gold(tmp_path / "g.parquet", tmp_path)
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "g.parquet")
    with pytest.raises(InputError, match=r"g\.parquet has no column 'image'"):
        index_gold(tmp_path / "g.parquet", tmp_path)
