from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import rsqa.cli
from rsqa.sinks.table import SCHEMA

ROWS = [
    {
        "tile_id": f"m.tif/0/{col}",
        "tile_row": 0,
        "tile_col": col,
        "question_id": id_,
        "value": value,
        "confidence": confidence,
        "status": status,
        "text": text,
        "geometry": b"\x01",
    }
    for col, id_, value, confidence, status, text in [
        (0, "water", "yes", 0.9, "ok", None),
        (0, "scene", "a \x1b[31mred[/] roof", None, "ok", "a \x1b[31mred[/] roof\nby a lake"),
        (1, "water", "no", 0.6, "ok", None),
        (1, "scene", None, None, "truncated", "x" * 500),
        (2, "water", None, None, "nodata", None),
        (2, "scene", None, None, "nodata", None),
    ]
]


@pytest.fixture(params=["file", "folder"])
def folder(tmp_path, request):
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    answers = tmp_path / "answers.parquet"
    if request.param == "file":
        pq.write_table(table, answers)
    else:
        answers.mkdir()
        for number in range(3):
            pq.write_table(table.slice(2 * number, 2), answers / f"part-{number}.parquet")
    return tmp_path


def shown(capsys, folder, *options: str) -> list[dict]:
    assert rsqa.cli.run(["show", str(folder), "--json", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["--question", "water"], [0, 2, 4]),
        (["-q", "water", "-q", "scene"], [0, 1, 2, 3, 4, 5]),
        (["--value", "yes"], [0]),
        (["--status", "nodata"], [4, 5]),
        (["--status", "error"], []),
        (["--min-confidence", "0.7"], [0]),
        (["--limit", "2"], [0, 1]),
        (["--limit", "0", "--question", "water", "--status", "ok"], [0, 2]),
    ],
)
def test_filters(capsys, folder, options, rows):
    found = shown(capsys, folder, *options)
    assert [(row["tile_col"], row["question_id"]) for row in found] == [
        (ROWS[n]["tile_col"], ROWS[n]["question_id"]) for n in rows
    ]


def test_json_keeps_the_whole_text_and_no_binary(capsys, folder):
    row = shown(capsys, folder)[1]
    assert row["text"] == ROWS[1]["text"]
    assert "geometry" not in row
    assert row["confidence"] is None


def test_the_table_is_safe_and_short(capsys, folder):
    assert rsqa.cli.run(["show", str(folder), "--limit", "4"]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert "red[/] roof by a lake" in out
    assert len(out.splitlines()) == 5
    assert max(map(len, out.splitlines())) < 180
    assert "4 of 6 rows" in err
    for tool in ("geopandas", "DuckDB", "QGIS"):
        assert tool in err


def test_the_duckdb_hint_works(capsys, folder):
    import duckdb

    rsqa.cli.run(["show", str(folder)])
    [line] = [line for line in capsys.readouterr().err.splitlines() if "DuckDB" in line]
    counts = duckdb.sql(line[line.index("SELECT") :]).fetchall()
    assert sum(n for *_, n in counts) == len(ROWS)


def test_the_xarray_hint_names_a_group_that_is_there(capsys, folder):
    group = zarr.open_group(folder / "tiles.zarr", mode="w", zarr_format=2).create_group("m.tif").create_group("water")
    group.create_array("value", shape=(2, 2), dtype="u1")
    zarr.consolidate_metadata(folder / "tiles.zarr")
    rsqa.cli.run(["show", str(folder)])
    assert 'group="m.tif/water"' in capsys.readouterr().err


def test_a_question_that_was_not_asked(capsys, folder):
    assert rsqa.cli.run(["show", str(folder), "-q", "wter"]) == 2
    assert "no question 'wter' in this output; choose of scene, water" in capsys.readouterr().err


def test_a_folder_without_answers(capsys, tmp_path):
    assert rsqa.cli.run(["show", str(tmp_path)]) == 4
    assert "name an output folder of rsqa ask" in capsys.readouterr().err
    (tmp_path / "parts").mkdir()
    assert rsqa.cli.run(["show", str(tmp_path)]) == 4
    assert "run the same command again" in capsys.readouterr().err


def test_answers_that_are_no_parquet(capsys, tmp_path):
    (tmp_path / "answers.parquet").write_text("not a table")
    assert rsqa.cli.run(["show", str(tmp_path)]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", [["show"], ["report"], ["export"]])
def test_an_address_is_told_to_be_copied_first(capsys, command):
    target = ["out.gpkg"] if command == ["export"] else []
    assert rsqa.cli.run([*command, "s3://bucket/town", *target]) == 2
    said = capsys.readouterr().err
    assert "aws s3 sync s3://bucket/town DIR" in said
    assert len(said.strip().splitlines()) == 1
