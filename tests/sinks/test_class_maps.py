"""Maps of labels, on a grid whose labels are known: the oracle is the union of the tiles' own polygons."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from answer_key import PLAN_ID, all_tiles, ring, rows, source, status, value, wkt, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from rsqa.sinks.class_maps import raster_names, write_polygons, write_rasters
from rsqa.sinks.colours import choice_colours
from rsqa.tasks.question import Question

LABELS = ("forest", "river & lake", "ville")
QUESTION = Question("class", "Which class?", "label", LABELS)
ROTATED = tuple(Affine.translation(5e5, 4.6e6) @ Affine.rotation(30) @ Affine.scale(2, -2))[:6]


def labelled(src) -> dict[str, list[shapely.Polygon]]:
    """Label -> the ground of its tiles."""
    tiles: dict[str, list[shapely.Polygon]] = {label: [] for label in LABELS}
    for row, col in all_tiles(src):
        if status(QUESTION, row, col) == "ok":
            tiles[value(QUESTION, row, col)].append(shapely.Polygon(ring(src, row, col)))
    return tiles


@pytest.mark.parametrize("transform", [(2.0, 0, 500_000, 0, -2.0, 4_600_000), ROTATED], ids=["north-up", "rotated"])
def test_polygons_cover_the_tiles_of_their_label_and_nothing_else(tmp_path, transform):
    src = source(transform=transform)
    parts = write_parts(tmp_path / "parts", [src], questions=(QUESTION,))
    write_polygons(tmp_path / "p.parquet", parts, [src], LABELS, 0.0, PLAN_ID)
    table = geopandas.read_parquet(tmp_path / "p.parquet")
    assert table.crs == "EPSG:32633"
    assert table.geometry.is_valid.all()
    for label, tiles in labelled(src).items():
        mine = table[table.label == label]
        assert mine.n_tiles.sum() == len(tiles)
        assert shapely.symmetric_difference(mine.union_all(), shapely.union_all(tiles)).area < 1e-3
        assert mine.area.sum() == pytest.approx(sum(tile.area for tile in tiles))
        touching = mine.sindex.query(mine.geometry, predicate="intersects")
        shared = [(i, j) for i, j in zip(*touching, strict=True) if i < j]
        assert all(mine.geometry.iloc[i].intersection(mine.geometry.iloc[j]).length < 1e-6 for i, j in shared)


def test_several_systems_are_in_degrees(tmp_path):
    sources = [source("a.tif"), source("b.tif", wkt(32634)), source("nowhere.tif", "")]
    parts = [
        path
        for i, src in enumerate(sources[:2])
        for path in write_parts(tmp_path / str(i), [src], questions=(QUESTION,))
    ]
    write_polygons(tmp_path / "p.parquet", parts, sources, LABELS, 0.0, PLAN_ID)
    table = geopandas.read_parquet(tmp_path / "p.parquet")
    assert table.crs == "OGC:CRS84"
    assert set(table.source_crs) == {"EPSG:32633", "EPSG:32634"}
    for src, code in ((sources[0], "EPSG:32633"), (sources[1], "EPSG:32634")):
        mine = table[table.source == src.name].to_crs(code)
        assert mine.area.sum() == pytest.approx(
            sum(t.area for tiles in labelled(src).values() for t in tiles), rel=1e-5
        )


def test_without_a_place_there_are_no_polygons(tmp_path):
    src = replace(source(), crs_wkt="")
    parts = write_parts(tmp_path / "parts", [src], questions=(QUESTION,))
    write_polygons(tmp_path / "p.parquet", parts, [src], LABELS, 0.0, PLAN_ID)
    table = geopandas.read_parquet(tmp_path / "p.parquet")
    assert table.empty
    assert table.crs is None


@pytest.mark.parametrize("n_labels", [3, 300])
def test_a_raster_has_the_code_of_each_tile_a_colour_table_and_the_labels(tmp_path, n_labels):
    labels = LABELS if n_labels == 3 else tuple(f"class {i}" for i in range(n_labels))
    question = Question("class", "Which class?", "label", labels)
    src = source()
    parts = write_parts(tmp_path / "parts", [src], questions=(question,))
    write_rasters(tmp_path / "maps", parts, [src, source("chip.tif", shape=(1, 1))], labels, 0.0)
    [path] = (tmp_path / "maps").glob("*.tif")
    assert path.name == "dir%2Fa%20b.tif"
    with rasterio.open(path) as file:
        codes = file.read(1)
        assert file.crs == "EPSG:32633"
        assert file.transform == src.tile_transform
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert json.loads(file.tags()["options"]) == list(labels)
        colours, none = file.colormap(1), file.nodata
    for row, col in all_tiles(src):
        ok = status(question, row, col) == "ok"
        assert codes[row, col] == (labels.index(value(question, row, col)) if ok else none)
    assert [colours[code][:3] for code in range(n_labels)] == list(choice_colours(n_labels))
    text = path.with_name(path.name + ".aux.xml").read_text(encoding="utf-8")
    assert text.count("<Category>") == n_labels


def test_rasters_are_called_as_their_sources_and_none_as_two():
    assert raster_names(["a.tif", "in/b.TIFF", "v1.2", "d.e.jp2"]) == {
        "a.tif": "a.tif", "in/b.TIFF": "in%2Fb.tif", "v1.2": "v1.2.tif", "d.e.jp2": "d.e.tif",
    }  # fmt: skip
    for twins in (["a.tif", "a.jp2"], ["a.tif", "A.tif"], ["a", "a.tif", "a.tif.tif"]):
        assert len(set(raster_names(twins).values())) == len(twins)
    assert raster_names(["a.tif", "a.jp2"]) == {"a.tif": "a.tif.tif", "a.jp2": "a.jp2.tif"}


def test_what_is_not_sure_enough_is_on_no_map(tmp_path):
    src = source()
    parts = write_parts(tmp_path / "parts", [src], questions=(QUESTION,))
    made = rows(src, all_tiles(src), (QUESTION,))
    sure = np.sum((made.tile_status == "ok") & (made.questions[0].confidence >= np.float32(0.5)))
    write_polygons(tmp_path / "p.parquet", parts, [src], LABELS, 0.5, PLAN_ID)
    assert geopandas.read_parquet(tmp_path / "p.parquet").n_tiles.sum() == sure > 0


@settings(max_examples=25)
@given(n=st.integers(2, 400))
def test_colours_differ(n):
    assert len(set(choice_colours(n))) > 0.9 * n
