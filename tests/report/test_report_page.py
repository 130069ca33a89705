from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from painted import COLS, ROWS, TILE_PX
from PIL import Image

import rsqa.cli
from rsqa.errors import UsageError
from rsqa.report import answers as answers_module
from rsqa.report import boxes as boxes_module
from rsqa.report.answers import (
    CONFIDENCE_STEPS,
    NO_CONFIDENCE,
    NO_PROBABILITY,
    PROBABILITY_STEPS,
    TABLE_STATUSES,
    Strings,
    class_question,
    confidence_steps,
    gather_answers,
)  # fmt: skip
from rsqa.report.boxes import gather_boxes
from rsqa.report.build import gather, write_report
from rsqa.report.layout import lay_out
from rsqa.report.still import draw_map
from rsqa.sinks.finished import FinishedTable, open_tables
from rsqa.sinks.ground import projjson
from rsqa.sinks.table import STATUSES, file_keys, geo_metadata


class Page(HTMLParser):
    """Elements by name, and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.inside = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data):
        self.inside.append((self.tags[-1] if self.tags else None, data))

    def of(self, tag: str, **wanted) -> list[str]:
        return ["".join(text for at, text in self.inside if at is found) for found in self.tags
                if found[0] == tag and wanted.items() <= found[1].items()]  # fmt: skip


@pytest.fixture(scope="module")
def report(folder):
    return gather(folder, 10**7)


@pytest.fixture(scope="module")
def page(folder, report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, report)
    return Page(path.read_text())


@pytest.fixture(scope="module")
def rows(folder):
    return {(row["question_id"], row["tile_row"], row["tile_col"]): row
            for row in pq.read_table(folder / "answers.parquet").to_pylist()}  # fmt: skip


def unpacked(page: Page) -> tuple[dict, object]:
    facts = json.loads(page.of("script", id="facts-json")[0])
    content = gzip.decompress(base64.b64decode(page.of("script", id="arrays")[0]))
    types = {"Uint8Array": "u1", "Uint16Array": "<u2", "Uint32Array": "<u4", "Float32Array": "<f4"}
    return facts, lambda where: np.frombuffer(content, types[where["type"]], where["n"], where["at"])


def test_the_page_holds_every_answer(page, rows):
    facts, array = unpacked(page)
    strings = json.loads(array(facts["strings"]).tobytes())
    assert [q["id"] for q in facts["questions"]] == ["water", "odd", "cars", "words"]
    for question in facts["questions"]:
        own = {name: array(where) for name, where in question["arrays"].items()}
        for tile in range(ROWS * COLS):
            row = rows[question["id"], *divmod(tile, COLS)]
            assert STATUSES[own["status"][tile]] == row["status"]
            assert strings[own["words"][tile]] == (row["text"] or "") if "words" in own else row["text"] is None
            if not question["options"]:
                continue
            value = own["value"][tile]
            assert (question["options"][value] if value < 255 else None) == row["value"]
            sure = own["confidence"][tile]
            assert (sure == NO_CONFIDENCE) == (row["confidence"] is None)
            if row["confidence"] is not None:
                assert sure / CONFIDENCE_STEPS == pytest.approx(row["confidence"], abs=1 / CONFIDENCE_STEPS)
            check_probabilities(question, own, tile, row)


def check_probabilities(question, own, tile, row):
    kept = min(4, len(question["options"]))
    shares = own["probabilities"].reshape(-1, kept)[tile]
    if row["probabilities"] is None:
        assert (shares == NO_PROBABILITY).all()
        return
    best = sorted((p for _, p in row["probabilities"]), reverse=True)[:kept]
    np.testing.assert_allclose(shares / PROBABILITY_STEPS, best, atol=0.5 / PROBABILITY_STEPS + 1e-6)
    told = dict(row["probabilities"])
    names = [question["options"][code] for code in own["top_options"].reshape(-1, kept)[tile]]
    np.testing.assert_allclose([told[name] for name in names], best)


def test_there_is_a_tile_of_every_sort(rows):
    assert {row["status"] for row in rows.values()} == {"ok", "nodata"}


def test_the_slider_cuts_where_the_table_does():
    shares = np.float32([0.8, 0.7999, 0.29, 0.28999, 1.0, 0.0, 0.005])
    steps = confidence_steps(shares)
    for hundredth in range(101):
        assert ((steps >= hundredth / 100 * CONFIDENCE_STEPS) == (shares >= np.float32(hundredth / 100))).all()


def test_no_text_becomes_markup_or_code(page, report):
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 4  # facts, arrays, one picture, the page's own
    assert not {"b", "iframe", "img", "link", "object"} & set(names)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.of("title") == ["mosaic <i>.tif"]
    facts, _ = unpacked(page)
    assert "</script>" in facts["questions"][1]["text"]


def test_only_the_pages_own_script_and_style_may_run(page):
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    told = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert told["default-src"] == "'none'"
    for name, text in (("script-src", page.of("script")[-1]), ("style-src", page.of("style")[0])):
        assert told[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_names_no_other_file(page):
    assert not [a for _, a in page.tags if {"src", "href"} & a.keys()]
    assert not re.search(r"https?://|@import|url\((?!\$)", page.of("script")[-1] + page.of("style")[0])


def test_the_picture_is_the_source(page):
    facts, _ = unpacked(page)
    [source] = facts["sources"]
    picture = Image.open(io.BytesIO(base64.b64decode(page.of("script", id=source["picture"])[0])))
    assert (picture.width * source["step"], picture.height * source["step"]) == (source["width"], source["height"])
    pixels = np.asarray(picture.convert("RGBA")).astype(int)
    rows, cols = np.mgrid[: source["height"], : source["width"]]
    known = pixels[..., 3] == 255
    assert not known[TILE_PX + 4 : 2 * TILE_PX - 4, TILE_PX + 4 : 2 * TILE_PX - 4].any()
    assert abs(pixels[..., 0] - rows * 254 // source["height"])[known].mean() < 4
    assert abs(pixels[..., 1] - cols * 254 // source["width"])[known].mean() < 4


def test_a_source_that_is_gone_costs_its_picture_only(folder, tmp_path):
    raster = folder.parent / "mosaic <i>.tif"
    raster.rename(tmp_path / "elsewhere.tif")
    try:
        report = gather(folder, 10**6)
        write_report(tmp_path / "a.html", report)
    finally:
        (tmp_path / "elsewhere.tif").rename(raster)
    assert report.looks == [None]
    assert any("no picture of mosaic <i>.tif" in note for note in report.notes)


def test_long_texts_are_cut_and_equal_ones_kept_once():
    strings = Strings(5)
    assert strings.add(pa.array(["abc", None, "abc", "abcdefg", ""])).tolist() == [1, 0, 1, 2, 0]
    assert strings.all == ["", "abc", "abcd…"]
    assert strings.n_cut == 1


def test_too_many_tiles_are_refused_with_another_way(folder, monkeypatch, capsys):
    monkeypatch.setattr(answers_module, "MOST_CELLS", 100)
    assert rsqa.cli.run(["report", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "here are 264" in err
    assert "rsqa export" in err


def finished_table(folder, name: str, columns: dict, crs: str = "EPSG:32631") -> FinishedTable:
    keys = file_keys(geo_metadata(projjson(crs), ["Polygon"], None), {})
    pq.write_table(pa.table(columns).replace_schema_metadata(keys), folder / f"{name}.parquet")
    (folder / "run.json").write_text("{}")
    return open_tables(folder)[name]


def test_boxes_lie_where_they_are(tmp_path):
    turned = shapely.Polygon([(500_010, 4_999_990), (500_020, 4_999_985), (500_015, 4_999_975), (500_005, 4_999_980)])
    many = shapely.Point(500_050, 4_999_950).buffer(5)
    table = finished_table(
        tmp_path, "detections",
        {"label": ["ship", "car"], "score": pa.array([0.5, None], pa.float32()),
         "geometry": shapely.to_wkb([turned, many])},
    )  # fmt: skip
    layout = lay_out([placed(5e5)])
    boxes = gather_boxes(table, layout)
    ground = boxes.corners + np.array(layout.origin)
    np.testing.assert_allclose(ground[0], shapely.get_coordinates(turned)[:4], atol=0.01)
    assert shapely.Polygon(ground[1]).covers(many.buffer(-0.1))
    assert [boxes.labels[number] for number in boxes.label] == ["ship", "car"]
    assert boxes.score[0] == 0.5
    assert np.isnan(boxes.score[1])
    assert gather_boxes(table, lay_out([placed(5e5), placed(9e5)])) is None


def test_of_too_many_boxes_the_likeliest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes_module, "MOST_BOXES", 2)
    shapes = shapely.to_wkb(shapely.box(np.arange(5), 0, np.arange(5) + 1, 1))
    scores = pa.array([0.1, 0.9, None, 0.5, 0.2], pa.float32())
    table = finished_table(tmp_path, "detections", {"label": ["a"] * 5, "score": scores, "geometry": shapes})
    boxes = gather_boxes(table, lay_out([placed(5e5)]))
    assert sorted(boxes.score.tolist()) == pytest.approx([0.5, 0.9])
    assert boxes.n_left_out == 3


def test_labels_are_answers_to_one_question(tmp_path):
    table = finished_table(
        tmp_path, "classes",
        {"source": ["a", "b", "b"], "tile_row": [0, 0, 1], "tile_col": [0, 0, 0], "label": ["sea", None, "city"],
         "confidence": pa.array([0.75, 0.25, 0.5], pa.float32()), "status": ["ok", "abstained", "ok"],
         "error": pa.nulls(3, pa.string()), "reasoning": pa.nulls(3, pa.string()),
         "probabilities": pa.array([[("sea", 0.75), ("city", 0.25)], None, [("city", 0.5)]],
                                   pa.map_(pa.string(), pa.float32())), "geometry": pa.nulls(3, pa.binary())},
    )  # fmt: skip
    grids = [SimpleNamespace(name="a", n_rows=1, n_cols=1), SimpleNamespace(name="b", n_rows=2, n_cols=1)]
    [answers], _ = gather_answers(table, grids, [class_question(table)])
    assert answers.question.options == ("city", "sea")
    assert answers.value.tolist() == [1, 255, 0]
    assert [TABLE_STATUSES[status] for status in answers.status] == ["ok", "abstained", "ok"]
    assert answers.options.tolist() == [[1, 0], [255, 255], [0, 255]]
    assert answers.probabilities.tolist() == [[150, 50], [255, 255], [100, 255]]


PLACED = dict(width=100, height=50, gsd_m=2.0)


def placed(x: float, crs: str = "EPSG:32631", side: float = 2.0, **more):
    from pyproj import CRS

    transform = (side, 0, x, 0, -side, 5e6 if side > 0.1 else 60)
    return SimpleNamespace(crs_wkt=CRS(crs).to_wkt(), transform=transform, **{**PLACED, **more})


def test_sources_of_one_crs_lie_on_their_ground():
    layout = lay_out([placed(5e5), placed(5e5 + 200)])
    assert layout.crs == "EPSG:32631"
    for number, x in enumerate((5e5, 5e5 + 200)):
        there = np.array(layout.transforms[number] @ (10, 20)) + layout.origin
        np.testing.assert_allclose(there, (x + 20, 5e6 - 40))
    assert layout.metres == pytest.approx(1)


def test_degrees_are_drawn_as_wide_as_they_are():
    layout = lay_out([placed(10, "EPSG:4326", side=1e-5)])
    a, _, _, _, e, _ = tuple(layout.transforms[0])[:6]
    assert a / -e == pytest.approx(0.5, abs=1e-3)  # at 60 degrees north


@pytest.mark.parametrize("sources", [[placed(5e5), placed(9e5)], [placed(5e5), placed(5e5 + 200, "EPSG:32632")]])
def test_sources_far_apart_stand_side_by_side(sources):
    layout = lay_out(sources)
    assert layout.crs is None
    first, second = (t @ (100, 25) for t in layout.transforms)
    assert second[0] - first[0] > 1
    assert first[1] == second[1]


def test_a_map_of_one_question(folder, report, tmp_path):
    draw_map(tmp_path / "a.png", report, "odd")
    picture = Image.open(tmp_path / "a.png")
    assert picture.width > 1000
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000
    draw_map(tmp_path / "b.png", report, None)
    with pytest.raises(UsageError, match="no question 'snow' in this output; choose of water, odd, cars, words"):
        draw_map(tmp_path / "c.png", report, "snow")


def test_the_command_says_where_the_page_is(folder, tmp_path, capsys):
    assert rsqa.cli.run(["report", str(folder), "--out", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.html'}\n"
    assert rsqa.cli.run(["report", str(folder), "--png", str(tmp_path / "a.png"), "-q", "odd"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}\n"
    for arguments, code in (([str(tmp_path)], 4), ([str(folder), "-q", "odd"], 2)):
        assert rsqa.cli.run(["report", *arguments]) == code
        assert capsys.readouterr().err.count("\n") == 1
