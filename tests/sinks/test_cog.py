from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from answer_key import SHIPS, WATER, all_tiles, confidence, finished, source, value
from rasterio.io import MemoryFile

from rsqa.errors import UsageError
from rsqa.sinks.cog import export_cog, export_cogs
from rsqa.sinks.colours import option_colours
from rsqa.sinks.finished import open_tables
from rsqa.tasks.question import Question

ROTATED = (1.9, 0.3, 500_000, 0.3, -1.9, 4_600_000)
SOURCES = (source(shape=(7, 5)), source("b.tif", transform=ROTATED, shape=(3, 4)))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return open_tables(finished(tmp_path_factory.mktemp("out"), *SOURCES))["answers"]


@pytest.fixture(scope="module")
def rasters(answers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cogs") / "new"
    export_cogs(folder, answers, SOURCES, [WATER, SHIPS, Question("words", "Describe.", "open")])
    return folder


@pytest.mark.parametrize("question", [WATER, SHIPS])
@pytest.mark.parametrize(("src", "name"), [(SOURCES[0], "dir%2Fa%20b.tif"), (SOURCES[1], "b.tif")])
def test_cells_are_the_answers_of_their_tiles(rasters, question, src, name):
    with (
        rasterio.open(rasters / f"{name}.{question.id}.tif") as codes,
        rasterio.open(rasters / f"{name}.{question.id}.confidence.tif") as sure,
    ):
        assert codes.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert codes.transform.almost_equals(src.tile_transform)
        assert codes.crs.to_epsg() == 32633
        assert (codes.nodata, codes.shape) == (255, (src.n_rows, src.n_cols))
        found, shares, colours = codes.read(1), sure.read(1), codes.colormap(1)
        assert json.loads(codes.tags()["options"]) == list(question.options)
    for row, col in all_tiles(src):
        answer = value(question, row, col)
        assert found[row, col] == (255 if answer is None else question.options.index(answer))
        np.testing.assert_equal(shares[row, col], np.float32(confidence(question, row, col)))
    assert [colours[code][:3] for code in range(len(question.options))] == list(option_colours(question))


def test_gdal_knows_the_names_of_the_categories(rasters):
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(rasters / "b.tif.water.tif", memory.name, driver="VRT")
        names = [node.text for node in ET.fromstring(memory.read()).iter("Category")]
    assert names == ["yes", "no"]


def test_names_can_be_any_text(answers, tmp_path):
    odd = Question("water", "Is it <b> or & \x07?", "choice", ("a<b>", "c&\x07d"))
    export_cog(tmp_path / "a.tif", answers, SOURCES[1], odd)
    names = [node.text for node in ET.parse(tmp_path / "a.tif.aux.xml").iter("Category")]
    assert names == ["a<b>", "c& d"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "a.tif.aux.xml", "a.confidence.tif"}


def test_free_text_has_no_raster(answers, tmp_path):
    with pytest.raises(UsageError, match="free text, which no raster holds"):
        export_cog(tmp_path / "a.tif", answers, SOURCES[0], Question("words", "Describe.", "open"))


@pytest.mark.parametrize("n_options", [2, 8, 30, 400])
def test_every_option_has_a_colour(n_options):
    for kind in ("choice", "count"):
        options = tuple(str(n) for n in range(n_options))
        colours = option_colours(Question("q", "Which?", kind, options))
        assert len(colours) == n_options
        assert all(0 <= part <= 255 for colour in colours for part in colour)
        if kind == "choice":
            assert len(set(colours[:24])) == min(n_options, 24)
