import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import geoparquet_validator
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from answer_key import ACQUIRED, PLAN_ID, QUESTIONS, SHIPS, all_tiles, confidence, ring, rows, source, status, wkt
from answer_key import value as true_value

from rsqa.errors import OutputError
from rsqa.sinks.part import write_part
from rsqa.sinks.part_reading import read_parts, valid_part

SOURCE = source()
TILES = all_tiles(SOURCE)


@pytest.fixture
def part(tmp_path) -> Path:
    path = tmp_path / "00000003.parquet"
    write_part(path, [rows(SOURCE, TILES)], plan_id=PLAN_ID, number=3)
    return path


def test_every_tile_and_question_has_one_row_the_questions_of_a_tile_together(part):
    found = [(r["tile_row"], r["tile_col"], r["question_id"]) for r in pq.read_table(part).to_pylist()]
    assert found == [(*tile, question.id) for tile in TILES for question in QUESTIONS]


def test_rows_say_what_was_answered(part):
    by_id = {question.id: question for question in QUESTIONS}
    for row in pq.read_table(part).to_pylist():
        tile, question = (row["tile_row"], row["tile_col"]), by_id[row["question_id"]]
        assert row["tile_id"] == f"dir/a b.tif/{tile[0]}/{tile[1]}"
        assert row["source"] == "dir/a b.tif"
        assert row["acquired"] == ACQUIRED
        assert (row["question"], row["kind"]) == (question.text, question.kind)
        assert row["processing_id"] == f"processing-{question.id}"
        assert row["source_crs"] == "EPSG:32633"
        assert row["status"] == status(question, *tile)
        assert row["value"] == true_value(question, *tile)
        assert row["error"] == ("block_unreadable" if row["status"] == "error" else None)
        assert row["valid_frac"] == {"nodata": 0, "error": None}.get(row["status"], 1)
        sure = confidence(question, *tile)
        assert row["confidence"] == (None if np.isnan(sure) else sure)
        polygon = shapely.from_wkb(row["geometry"])
        assert shapely.get_coordinates(polygon).tolist() == ring(SOURCE, *tile).tolist()
        assert tuple(row["bbox"].values()) == polygon.bounds
        assert row["window_bbox"] is None


def test_what_was_never_asked_is_null(part):
    unasked = [r for r in pq.read_table(part).to_pylist() if r["status"] in {"nodata", "error"}]
    assert len(unasked) > 10
    empty = ("value", "confidence", "option_mass", "probabilities", "text", "token_logprob", "reasoning")
    assert {row[name] for row in unasked for name in empty} == {None}


def test_short_lists_keep_all_probabilities_in_order_long_ones_the_five_likeliest(part):
    for row in pq.read_table(part).to_pylist():
        if row["status"] in {"nodata", "error"} or row["question_id"] == "status":
            assert row["probabilities"] is None
        elif row["question_id"] == "water":
            assert [option for option, _ in row["probabilities"]] == ["yes", "no"]
            assert sum(p for _, p in row["probabilities"]) == 1
        else:
            options = [option for option, _ in row["probabilities"]]
            best = SHIPS.options[(5 * row["tile_row"] + 3 * row["tile_col"]) % 102]
            others = [option for option in SHIPS.options if option != best]
            assert options == [best, *others[:4]]
            assert row["probabilities"][0][1] == 0.5


def test_windows_larger_than_the_core_are_kept(tmp_path):
    windows = np.full((len(TILES), 4), np.nan)
    windows[5] = 1, 2, 3, 4
    path = tmp_path / "p.parquet"
    write_part(path, [replace(rows(SOURCE, TILES), windows=windows)], plan_id=PLAN_ID, number=0)
    found = pq.read_table(path)["window_bbox"].to_pylist()[:: len(QUESTIONS)]
    assert found[5] == {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
    assert found[:5] + found[6:] == [None] * (len(TILES) - 1)


def test_columns_and_types_are_the_promised_ones(part):
    box = "struct<xmin: double, ymin: double, xmax: double, ymax: double>"
    schema = pq.read_schema(part)
    assert {field.name: str(field.type) for field in schema} == {
        "tile_id": "string",
        "tile_row": "int32",
        "tile_col": "int32",
        "source": "string",
        "acquired": "timestamp[us, tz=UTC]",
        "question_id": "string",
        "question": "string",
        "kind": "string",
        "value": "string",
        "confidence": "float",
        "option_mass": "float",
        "probabilities": "map<string, float ('probabilities')>",
        "text": "string",
        "token_logprob": "float",
        "reasoning": "string",
        "status": "string",
        "error": "string",
        "valid_frac": "float",
        "geometry": "binary",
        "bbox": box,
        "window_bbox": box,
        "processing_id": "string",
        "source_crs": "string",
    }
    assert not schema.field("geometry").metadata  # GDAL loses the CRS of fields tagged geoarrow.wkb


def test_the_footer_tells_place_and_plan(part):
    metadata = pq.read_metadata(part).metadata
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == ("1.1.0", "WKB", ["Polygon"])
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    assert column["bbox"] == [500_000, 4_600_000 - 2 * SOURCE.height, 500_000 + 2 * SOURCE.width, 4_600_000]
    assert json.loads(metadata[b"rsqa"]) == {
        "format": 1,
        "plan_id": PLAN_ID,
        "part": 3,
        "n_rows": 324,
        "n_tiles": 108,
        "tiles": ["dir/a b.tif/0/0", "dir/a b.tif/11/8"],
    }


def test_parts_pass_the_geoparquet_rules(part):
    report = geoparquet_validator.check(str(part))
    assert geoparquet_validator.failed(report) == []
    assert sum(outcome["status"] == "pass" for outcome in report["outcomes"]) > 10


def test_the_receipt_describes_the_file(tmp_path):
    path = tmp_path / "p.parquet"
    receipt = write_part(path, [rows(SOURCE, TILES)], plan_id=PLAN_ID, number=3)
    content = path.read_bytes()
    tiles = Counter(r["status"] for r in pq.read_table(path).to_pylist() if r["question_id"] == "water")
    assert (receipt.name, receipt.size) == ("p.parquet", len(content))
    assert receipt.sha256 == hashlib.sha256(content).hexdigest()
    assert (receipt.n_rows, receipt.n_tiles) == (324, 108)
    assert (receipt.n_nodata, receipt.n_error) == (tiles["nodata"], tiles["error"])


def test_many_small_sources_share_a_part(tmp_path):
    sources = [source(f"{i}.tif", shape=(1, i)) for i in range(1, 5)]
    path = tmp_path / "p.parquet"
    receipt = write_part(path, [rows(s, all_tiles(s)) for s in sources], plan_id=PLAN_ID, number=0)
    assert receipt.n_tiles == 10
    assert pq.read_table(path)["source"].to_pylist()[::3] == [f"{i}.tif" for i in range(1, 5) for _ in range(i)]


def test_a_part_has_one_crs(tmp_path):
    sources = [source("a.tif"), source("b.tif", crs_wkt=wkt(32634))]
    with pytest.raises(ValueError, match="mixes coordinate reference systems"):
        write_part(tmp_path / "p.parquet", [rows(s, TILES) for s in sources], plan_id=PLAN_ID, number=0)


def test_columns_of_another_length_are_refused():
    good = rows(SOURCE, TILES)
    with pytest.raises(ValueError, match=r"polygons of dir/a b.tif has shape \(3, 5, 2\), not \(108, 5, 2\)"):
        replace(good, polygons=good.polygons[:3])
    with pytest.raises(ValueError, match="question 'water' has 3 tiles, not 108"):
        replace(good, questions=(rows(SOURCE, TILES[:3]).questions[0],))
    with pytest.raises(ValueError, match="probabilities of 'water'"):
        replace(good.questions[0], probabilities=np.ones((108, 3), np.float32))
    with pytest.raises(ValueError, match="needs a time zone"):
        replace(good, acquired=ACQUIRED.replace(tzinfo=None))


WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from answer_key import *
src = source()
write_part(Path(sys.argv[2]), [rows(src, all_tiles(src))], plan_id=PLAN_ID, number=3)
"""


def test_same_answers_same_bytes_in_any_surroundings(part, tmp_path):
    other = tmp_path / "elsewhere" / "x.parquet"
    other.parent.mkdir()
    surroundings = os.environ | {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITE, str(Path(__file__).parent), str(other)]
    subprocess.run(command, env=surroundings, check=True, umask=0o077)
    assert other.read_bytes() == part.read_bytes()


def test_a_part_is_valid_for_its_own_plan_number_and_rows_only(part):
    assert valid_part(part, PLAN_ID, 3, 324)
    assert not valid_part(part, "another", 3, 324)
    assert not valid_part(part, PLAN_ID, 4, 324)
    assert not valid_part(part, PLAN_ID, 3, 325)
    assert not valid_part(part.with_name("absent"), PLAN_ID, 3, 324)


@pytest.mark.parametrize(
    "harm", ["empty", "magic", "half", "minus one byte", "zeros", "another table", "not JSON", "a name"]
)
def test_damaged_files_are_no_parts(part, harm):
    content = part.read_bytes()
    harmed = {
        "empty": b"",
        "magic": content[:4],
        "half": content[: len(content) // 2],
        "minus one byte": content[:-1],
        "zeros": bytes(len(content)),
        "not JSON": content.replace(b'{"format": 1', b'{"format= 1'),
        "a name": content.replace(b"token_logprob", b"token_logprib"),
    }
    if harm == "another table":
        pq.write_table(pa.table({"a": range(324)}), part)
    else:
        assert harmed[harm] != content
        part.write_bytes(harmed[harm])
    assert not valid_part(part, PLAN_ID, 3, 324)


def test_a_flipped_bit_is_never_read_as_an_answer(part):
    content = part.read_bytes()
    truth = pa.concat_tables(read_parts([part], 10_000))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    dice = random.Random(0)
    detected = 0
    for _ in range(60):
        harmed = bytearray(content)
        harmed[dice.randrange(4, footer)] ^= 1 << dice.randrange(8)
        part.write_bytes(harmed)
        try:
            found = pa.concat_tables(read_parts([part], 10_000))
        except OutputError:
            detected += 1
        else:
            assert found.equals(truth)
    assert detected > 30


def test_read_parts_gives_groups_of_one_size_wherever_parts_end(tmp_path):
    paths = []
    for number, size in enumerate([1, 40, 2, 65]):
        start = sum([1, 40, 2, 65][:number])
        paths.append(tmp_path / f"{number}.parquet")
        write_part(paths[-1], [rows(SOURCE, TILES[start : start + size])], plan_id=PLAN_ID, number=number)
    groups = list(read_parts(paths, 30, ["tile_id"]))
    assert [group.num_rows for group in groups] == [30] * 10 + [24]
    together = pa.concat_tables(groups)["tile_id"].to_pylist()
    assert together == [f"dir/a b.tif/{row}/{col}" for row, col in TILES for _ in QUESTIONS]


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from answer_key import *
from rsqa.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
src = source()
try:
    write_part(Path(sys.argv[2]), [rows(src, all_tiles(src))], plan_id=PLAN_ID, number=3)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_the_old_part(part):
    content = part.read_bytes()
    command = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(part)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"can't write {part}: File too large; free some space and run the same command again\n"
    assert part.read_bytes() == content
    assert list(part.parent.iterdir()) == [part]
