"""The page of a folder of chips in a real browser: each chip a tile of its own, side by side."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Browser
from PIL import Image

import rsqa.cli
from rsqa.report.build import gather, write_report
from rsqa.report.layout import GAP
from rsqa.sinks.colours import option_colours

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

N, PER_ROW = 8, 3
EMPTY = 4
"""Of the chips the one that has no valid pixel."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chips")
    (folder / "in").mkdir()
    for number in range(N):
        pixels = np.full((40, 40, 4), (20 * number, 90, 200, 0 if number == EMPTY else 255), np.uint8)
        Image.fromarray(pixels, "RGBA").save(folder / "in" / f"<b>{number}.png")
    words = ["classify", folder / "in", "--labels", "harbor,forest,river", "--out", folder / "out", "--quiet",
             "--device", "cpu", "--model", "rsqa.testing:EchoEngine", "--no-progress"]  # fmt: skip
    assert rsqa.cli.run([str(word) for word in words]) == 0
    report = gather(folder / "out", 10**6)
    write_report(folder / "report.html", report)
    return report, folder


@pytest.fixture(scope="module")
def page(report):
    browser = Browser(report[1] / "profile")
    browser.open(report[1] / "report.html")
    yield browser
    assert not browser.errors
    browser.close()


def middle(page: Browser, number: int) -> tuple[float, float]:
    """Of a chip on the screen, while all are shown: rows of three, the upper left corner of the first at 0, 0."""
    left, top, wide, high = page.run("(({x, y, width, height}) => [x, y, width, height])"
                                     "(document.getElementById('map').getBoundingClientRect())")  # fmt: skip
    side = 2 * GAP + 1
    scale = 0.94 * min(wide, high) / side
    row, col = divmod(number, PER_ROW)
    return left + wide / 2 + (col * GAP + 0.5 - side / 2) * scale, top + high / 2 + (row * GAP + 0.5 - side / 2) * scale


def colour(page: Browser, x: float, y: float) -> list[int]:
    page.settle()
    page.settle()
    return page.run(f"""(() => {{
      const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect();
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      return [...copy.getImageData(Math.round({x} - box.x), Math.round({y} - box.y), 1, 1).data];
    }})()""")


def test_each_chip_has_the_colour_of_its_label_and_none_where_there_is_none(page, report):
    page.run("(box => { box.value = 100; box.dispatchEvent(new Event('input')); })(byId('opacity'))")
    rows = {row["source"]: row for row in pq.read_table(report[1] / "out/classes.parquet").to_pylist()}
    question = report[0].answers[0].question
    shades = dict(zip(question.options, option_colours(question), strict=True))
    assert len({row["label"] for row in rows.values()}) > 2
    for number in range(N):
        label = rows[f"<b>{number}.png"]["label"]
        seen = colour(page, *middle(page, number))
        assert (label is None) == (number == EMPTY)
        assert label is None or tuple(seen) == (*shades[label], 255)
        assert label is not None or tuple(seen[:3]) not in shades.values()


def test_a_chip_is_called_by_its_file_and_keys_go_on_to_its_neighbours(page):
    page.click(*middle(page, 0))
    told = page.run("byId('tile-body').innerText")
    assert "<b>0.png" in told
    assert "row 0" not in told
    for key, number in {"ArrowRight": 1, "ArrowDown": 4, "ArrowLeft": 3, "ArrowUp": 0}.items():
        page.run("byId('map').focus()")
        page.key(key)
        assert f"<b>{number}.png" in page.run("byId('tile-body').innerText")
    page.key("ArrowLeft")  # nothing is there
    assert "<b>0.png" in page.run("byId('tile-body').innerText")


def test_the_page_says_why_chips_stand_side_by_side(page):
    assert "have no place on the ground: they are shown side by side" in page.run("byId('notes').textContent")


def test_a_chip_that_is_pointed_at_tells_its_name(page):
    page.key("Escape")
    page.key("0")
    page.settle()
    x, y = middle(page, 7)
    page.point(x, y)
    assert page.run("byId('hover').textContent").startswith("<b>7.png  ")
