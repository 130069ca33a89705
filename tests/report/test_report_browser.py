"""The page in a real browser, from a file, with nothing around it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Browser
from painted import COLS, ROWS, TILE_PX

from rsqa.report.boxes import Boxes
from rsqa.report.build import gather, write_report
from rsqa.sinks.colours import NONE, option_colours

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

EVIL = "<img src=x onerror=\"document.title='hacked'\">"
BOXED = (4, 9)
STAGE = "document.getElementById('map').getBoundingClientRect()"


@pytest.fixture(scope="module")
def report(folder):
    report = gather(folder, 10**7)
    report.strings.all[1:] = [f"{EVIL} {text}" for text in report.strings.all[1:]]
    source, transform = report.plan.sources[0].source, report.layout.transforms[0]
    col, row = (BOXED[1] + 0.5) * TILE_PX, (BOXED[0] + 0.5) * TILE_PX
    ring = [transform @ (col + 10 * x, row + 10 * y) for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
    far = [transform @ (source.width * 9, 0)] * 4
    boxes = Boxes(np.float32([ring, far]), np.uint16([1, 0]), ("<i>plane", "ship"), np.float32([0.6, np.nan]), 0)
    weights = np.tile(np.uint8([200, 0, 0, 255]).reshape(1, 2, 2), (ROWS * COLS, 1, 1))  # all on the upper left block
    evidence = {answers.question.id: weights for answers in report.answers}
    return replace(report, boxes=boxes, plan=replace(report.plan, evidence=2), evidence=evidence)


@pytest.fixture(scope="module")
def rows(folder):
    return {(row["question_id"], row["tile_row"], row["tile_col"]): row
            for row in pq.read_table(folder / "answers.parquet").to_pylist()}  # fmt: skip


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    write_report(folder / "report.html", report)
    browser = Browser(folder / "profile")
    browser.open(folder / "report.html")
    yield browser
    browser.close()


def middle(page: Browser, report, row: int, col: int) -> tuple[float, float]:
    """Of a tile on the screen, while all of the mosaic is shown."""
    width, height = (report.plan.sources[0].source.width, report.plan.sources[0].source.height)
    left, top, wide, high = page.run(f"(({{x, y, width, height}}) => [x, y, width, height])({STAGE})")
    scale = 0.94 * min(wide / width, high / height)
    x, y = ((min((n + 1) * TILE_PX, side) + n * TILE_PX) / 2 for n, side in ((col, width), (row, height)))
    return left + wide / 2 + (x - width / 2) * scale, top + high / 2 + (y - height / 2) * scale


def colours(page: Browser, points) -> list[list[int]]:
    """Of the canvas, at points of the screen."""
    page.settle()
    page.settle()
    script = """(points) => {
      const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect();
      const copy = new OffscreenCanvas(canvas.width, canvas.height);  // reading from the map itself would slow it
      const seen = copy.getContext("2d", { willReadFrequently: true });
      seen.drawImage(canvas, 0, 0);
      return points.map(([x, y]) => [...seen.getImageData(Math.round(x - box.x), Math.round(y - box.y), 1, 1).data]);
    }"""
    return page.run(f"({script})({json.dumps(points)})")


def slide(page: Browser, name: str, value: float) -> None:
    page.run(f"(box => {{ box.value = {value}; box.dispatchEvent(new Event('input')); }})(byId('{name}'))")


def text(page: Browser, name: str) -> str:
    return page.run(f"byId('{name}').innerText")


@pytest.fixture(autouse=True)
def afresh(page):
    """Each test begins with the first question, nothing picked, all of the map."""
    page.run("document.querySelector('#questions input').click()")
    for name, value in (("threshold", 0), ("opacity", 60)):
        slide(page, name, value)
    page.run("byId('map').focus()")
    page.key("Escape")
    page.key("0")
    page.settle()
    yield
    assert not page.errors
    assert page.run("document.title") == "mosaic <i>.tif"


def test_where_the_prompt_looked_is_drawn_instead_of_the_answers(page, report):
    slide(page, "opacity", 100)
    x, y = middle(page, report, 2, 3)
    left, top, right, bottom = x - 3, y - 3, x + 3, y + 3
    blocks = [(left, top), (right, top), (left, bottom), (right, bottom)]
    answers = colours(page, blocks)
    page.run("byId('evidence').click()")
    looked, *others = colours(page, blocks)
    page.run("byId('evidence').click()")
    assert looked[:3] == [88, 24, 130]
    assert all(other[:3] != looked[:3] for other in others)
    assert "no proof" in text(page, "looked")
    assert colours(page, blocks) == answers


def test_every_tile_has_the_colour_of_its_answer(page, report, rows):
    slide(page, "opacity", 100)
    tiles = [(row, col) for row in range(ROWS) for col in range(COLS)]
    for answers in report.answers[:3]:
        page.run(f"document.querySelectorAll('#questions input')[{report.answers.index(answers)}].click()")
        seen = colours(page, [middle(page, report, *tile) for tile in tiles])
        palette = dict(zip(answers.question.options, option_colours(answers.question), strict=True))
        for tile, colour in zip(tiles, seen, strict=True):
            value = rows[answers.question.id, *tile]["value"]
            if value is not None and palette[value] != NONE:
                assert max(abs(a - b) for a, b in zip(colour, palette[value], strict=False)) <= 2, (tile, value)


def test_a_tile_that_is_not_known_is_hatched_and_not_coloured(page, report):
    x, y = middle(page, report, 1, 1)
    slide(page, "opacity", 100)
    seen = {tuple(colour) for colour in colours(page, [(x + d, y) for d in range(-12, 12)])}
    drawn = [colour[:3] for colour in seen if colour[3] > 200]
    assert any(max(colour) < 60 for colour in drawn)
    assert any(min(colour) > 240 for colour in drawn)
    assert (0, 0, 0, 0) in seen
    assert not seen & {(*colour, 255) for colour in option_colours(report.answers[0].question)}


def test_the_slider_turns_unsure_answers_into_unknown_ones(page, rows):
    slide(page, "threshold", 70)
    sure = sum(row["confidence"] is not None and row["confidence"] >= 0.7
               for (id_, *_), row in rows.items() if id_ == "water")  # fmt: skip
    assert text(page, "count") == f"{sure} of {ROWS * COLS} tiles answered with confidence 0.70 or more"
    assert "less sure" in text(page, "legend")


def test_the_legend_counts_answers(page, rows):
    given = [row["value"] for (id_, *_), row in rows.items() if id_ == "water"]
    told = text(page, "legend")
    for answer in ("yes", "no"):
        assert f"{answer}\n{given.count(answer)} ·" in told
    assert "no data\n1 ·" in told


@pytest.mark.parametrize("tile", [(2, 3), (ROWS - 1, COLS - 1), (1, 1)])
def test_a_click_shows_the_tile(page, report, rows, tile):
    page.click(*middle(page, report, *tile))
    told = text(page, "tile-body")
    assert f"mosaic <i>.tif · row {tile[0]}, column {tile[1]}" in told
    row = rows["water", *tile]
    if row["value"] is None:
        assert "no data" in told
    else:
        assert f"{row['value']} confidence {row['confidence']:.2f}" in told
        assert f"{EVIL} {rows['words', *tile]['text']}" in told  # as text, not as an element
    assert "</script>" in told
    assert page.run("document.querySelectorAll('#tile-body img').length") == 0


def test_its_picture_is_cut_out_of_the_mosaic(page, report):
    page.click(*middle(page, report, 3, 4))
    script = "(c => [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data])"
    red, green, blue, _ = page.run(f"{script}(document.querySelector('#tile-body canvas'))")
    source = report.plan.sources[0].source
    assert abs(red - 3.5 * TILE_PX * 254 / source.height) < 12
    assert abs(green - 4.5 * TILE_PX * 254 / source.width) < 12
    assert abs(blue - 90) < 12


def test_keys_go_from_tile_to_tile_and_question_to_question(page):
    for name in ("ArrowRight", "ArrowRight", "ArrowDown", "]", "]"):
        page.key(name)
    told = text(page, "tile-body")
    assert "row 1, column 1" in told
    assert "How many cars are there?\n" in told
    assert page.run("document.querySelectorAll('#questions input')[2].checked")
    page.key("Escape")
    assert page.run("byId('tile').hidden")


def test_an_answer_can_be_hidden(page, report, rows):
    slide(page, "opacity", 100)
    tile = next((row, col) for (id_, row, col), told in rows.items() if id_ == "water" and told["value"] == "yes")
    point = middle(page, report, *tile)
    [before] = colours(page, [point])
    page.run("document.querySelector('#legend input').click()")
    [after] = colours(page, [point])
    assert before[:3] == [0, 114, 178]
    assert abs(after[2] - 90) < 15  # the picture itself


def outlined(page, report) -> bool:
    """Whether the box's colour is where its left side is."""
    (x, y), (right, _) = middle(page, report, *BOXED), middle(page, report, BOXED[0], BOXED[1] - 1)
    left = x - 10 * (x - right) / TILE_PX
    seen = np.array(colours(page, [(left + d, y) for d in range(-2, 3)]))
    return bool((np.abs(seen[:, :3] - (240, 228, 66)).max(axis=1) < 60).any())


def test_objects_are_outlined_counted_and_cut_by_the_slider(page, report):
    told = text(page, "objects")
    assert "<i>plane\n1" in told
    assert "ship\n1" in told
    assert outlined(page, report)
    page.click(*middle(page, report, *BOXED))
    assert "Objects here\n\nship, score 0.60" in text(page, "tile-body")
    page.key("Escape")
    slide(page, "threshold", 61)
    assert "ship\n0" in text(page, "objects")
    assert "<i>plane\n1" in text(page, "objects")  # without a score it is not cut
    assert not outlined(page, report)
    slide(page, "threshold", 0)
    page.run("document.querySelectorAll('#objects input')[1].click()")
    assert not outlined(page, report)
    page.run("document.querySelectorAll('#objects input')[1].click()")


def test_nothing_is_fetched(page):
    assert page.requests
    assert all(url.startswith(("file://", "data:image/")) for url in page.requests)
