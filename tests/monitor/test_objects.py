"""Things that come, go and move, through whole passes, with an engine that sees all of them."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import spotter
from painted_scenes import LEFT, PIXEL, TOP, watch_text, when, write_scene
from shapely import from_wkb

from rsqa.errors import ExitCode, QuestionError, UsageError
from rsqa.monitor.changes import lines, read_changes
from rsqa.monitor.dataset import ledger
from rsqa.monitor.run import questions_of, run_pass
from rsqa.monitor.upkeep import compact
from rsqa.monitor.views import history
from rsqa.monitor.watch import read_watch

HERE = f'name = "{spotter.MODEL}"'
FOUND = 'objects = ["magenta square", "cyan square"]\nlabels = ["magenta", "green"]'


def write(folder, **sections):
    (folder / "incoming").mkdir(exist_ok=True)
    text = watch_text(**{"change": "confirmations = 1"} | sections).replace('name = "rsqa.testing:ColourEngine"', HERE)
    (folder / "WATCH.toml").write_text(text)
    return read_watch(folder / "WATCH.toml")


def ground(row, col, height=16, width=16):
    """(xmin, ymin, xmax, ymax) of a rectangle of pixels, counted from the corner of tile 0/0."""
    return LEFT + col * PIXEL, TOP - (row + height) * PIXEL, LEFT + (col + width) * PIXEL, TOP - row * PIXEL


# Rows and columns of pixels: one within a tile, one on a corner of four, one that a cloud hides, one that will move.
STAYS, ON_SEAM, HIDDEN, GOES, COMES = (20, 20), (104, 104), (188, 20), (20, 132), (132, 188)
MOVES, MOVED = (132, 20), (142, 34)


@pytest.fixture(scope="module")
def three_nights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    watch = write(folder, ask=FOUND)
    for night, (squares, holes) in enumerate([
        ([STAYS, ON_SEAM, HIDDEN, GOES, MOVES], ()),
        ([STAYS, ON_SEAM, COMES, MOVED], [(3, 0)]),
        ([STAYS, ON_SEAM, HIDDEN, COMES, MOVED], ()),
    ]):  # fmt: skip
        scene, shift = folder / f"incoming/{night}.tif", (0, -3 * night)
        write_scene(scene, squares=squares, holes=holes, night=night, shift_px=shift)
    return folder, watch, run_pass(watch, print, change_code=True)


def test_what_came_went_and_moved(three_nights):
    folder, _, report = three_nights
    assert report.exit_code == ExitCode.CHANGED
    table, _ = read_changes(folder / "port.monitor/changes.parquet")
    things = [row for row in table.to_pylist() if row["question_id"] == "magenta-square"]
    assert {row["change"]: from_wkb(row["geometry"]).bounds for row in things} == {
        what: pytest.approx(ground(*square), abs=1.0)
        for what, square in [("appeared", COMES), ("vanished", GOES), ("moved", MOVED)]
    }
    assert len(things) == 3
    assert {row["confirmed"] for row in things} == {when(1)}
    moved = next(row for row in things if row["change"] == "moved")
    assert list(moved["moved_from"].values()) == pytest.approx(list(ground(*MOVES)), abs=1.0)
    assert (moved["tile_id"], moved["value_before"], moved["value_after"]) == ("2/0", "there", "there")
    assert "tile 2/0 magenta-square: moved by 8." in " ".join(lines(table))
    assert not [row for row in table.to_pylist() if row["question_id"] == "cyan-square"]


def test_each_thing_is_a_row_of_one_tile(three_nights):
    folder, watch, _ = three_nights
    values = [row["value"] for row in history(watch, "1/1", "magenta-square")]
    assert values == ["0", "0", "0"] or values == ["1", "1", "1"]  # the square on the corner is in one of four tiles
    found = duckdb.sql(f"""
        SELECT sum(value::int), sum(len(objects)) FROM
        read_parquet('{folder}/port.monitor/observations/*/*.parquet') WHERE question_id = 'magenta-square'
        GROUP BY acquired ORDER BY acquired
    """).fetchall()
    assert found == [(5, 5), (4, 4), (5, 5)]
    assert [row["value"] for row in history(watch, "3/0", "magenta-square")] == ["1", None, "1"]
    rows = ds.dataset(folder / "port.monitor/observations").to_table(filter=ds.field("question_id") == "mark")
    assert rows["objects"].null_count == len(rows) > 0


def test_each_tile_has_a_label(three_nights):
    folder, watch, _ = three_nights
    assert [row["value"] for row in history(watch, "0/0", "class")] == ["magenta"] * 3
    rows = ds.dataset(folder / "port.monitor/observations").to_table(filter=ds.field("question_id") == "class")
    assert set(rows["kind"].to_pylist()) == {"label"}


def test_compaction_keeps_things(three_nights, tmp_path):
    folder, _, _ = three_nights
    read = ds.dataset([str(file.path) for file in ledger(folder / "port.monitor")]).to_table()
    assert compact(folder / "port.monitor", None) == 0  # a file a day
    assert ds.dataset([str(file.path) for file in ledger(folder / "port.monitor")]).to_table().equals(read)
    assert pa.types.is_list(read.schema.field("objects").type)


def test_a_pass_has_nothing_left_to_do(three_nights):
    _, watch, _ = three_nights
    report = run_pass(watch, print, change_code=True)
    assert (report.exit_code, report.observed, report.changes) == (ExitCode.DONE, 0, 0)


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        ('objects = ["ship", "Ship"]', QuestionError, "is looked for by"),
        ('objects = ["mark"]', QuestionError, "'mark' is the id of two things"),
        ('labels = ["one"]', QuestionError, "at least two labels"),
        ('objects = ["ship"]\nthreshold = 0.4', UsageError, "choose 0.5 to 1"),
    ],
)
def test_what_makes_no_sense(tmp_path, ask, error, said):
    with pytest.raises(error, match=said):
        questions_of(write(tmp_path, ask=ask))
