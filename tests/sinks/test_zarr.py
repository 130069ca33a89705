import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray
from affine import Affine
from answer_key import (
    PLAN_ID,
    QUESTIONS,
    SHIPS,
    WATER,
    all_tiles,
    confidence,
    ring,
    rows,
    source,
    status,
    tile_status,
    value,
    wkt,
    write_parts,
)
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import OutputError
from rsqa.sinks import zarr as cube
from rsqa.sinks.cube_layout import group_name, question_group, value_codes
from rsqa.sinks.part import write_part
from rsqa.sinks.table import STATUSES, TILE_STATUSES
from rsqa.sinks.zarr import finish_cube
from rsqa.tasks.question import Question

SOURCE = source()
SHAPE = SOURCE.n_rows, SOURCE.n_cols
GROUP = "dir%2Fa%20b.tif"
SOUTH_UP = (2.0, 0, 500_000, 0, 2.0, 4_600_000)
ROTATED = (1.5, 0.5, 500_000, 0.5, -1.5, 4_600_000)


def finish(folder: Path, sources=(SOURCE,), questions=QUESTIONS, zarr_format=2) -> Path:
    parts = write_parts(folder / "parts", sources, questions=questions)
    path = folder / "tiles.zarr"
    assert finish_cube(path, parts, sources, questions, PLAN_ID, zarr_format) == path.exists()
    return path


def opened(path: Path, group: str) -> xarray.Dataset:
    return xarray.open_zarr(path, group=group, decode_coords="all", chunks=None)


def grid(of, shape=SHAPE) -> np.ndarray:
    return np.array([[of(row, col) for col in range(shape[1])] for row in range(shape[0])])


def code(question: Question, row: int, col: int) -> int:
    answer = value(question, row, col)
    return value_codes(question)[1] if answer is None else question.options.index(answer)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("question", [WATER, SHIPS], ids=lambda q: q.id)
@pytest.mark.parametrize("transform", [SOURCE.transform, SOUTH_UP], ids=["north up", "south up"])
def test_each_question_opens_by_itself_in_xarray(tmp_path, zarr_format, question, transform):
    path = finish(tmp_path, [replace(SOURCE, transform=transform)], zarr_format=zarr_format)
    with opened(path, f"{GROUP}/{question.id}") as found:
        assert found.rio.crs == "EPSG:32633"
        assert found.rio.transform() == Affine(*transform) @ Affine.scale(56)
        assert found["value"].rio.transform(recalc=True) == found.rio.transform()
        codes = found["value"].fillna(255).to_numpy()  # unknown cells are masked
        assert (codes == grid(lambda *tile: code(question, *tile))).all()
        sure = grid(lambda *tile: confidence(question, *tile))
        assert np.array_equal(found["confidence"], sure.astype("f4"), equal_nan=True)
        assert [STATUSES[int(i)] for i in found["status"].to_numpy().ravel()] == [
            status(question, *tile) for tile in all_tiles(SOURCE)
        ]
        x, y = found["x"].to_numpy(), found["y"].to_numpy()
    for row, col in [(0, 0), (5, 7), (10, 3)]:  # cores of full size
        centre = ring(replace(SOURCE, transform=transform), row, col)[:4].mean(axis=0)
        assert (x[col], y[row]) == tuple(centre)


@pytest.mark.parametrize("transform", [SOURCE.transform, SOUTH_UP], ids=["north up", "south up"])
@pytest.mark.parametrize("epsg", [32633, 4326, 2263])
def test_gdal_reads_the_same(tmp_path, transform, epsg):
    if epsg == 4326:
        transform = (1e-6, 0, 10, 0, transform[4] / 2e6, 50)
    path = finish(tmp_path, [replace(SOURCE, transform=transform, crs_wkt=wkt(epsg))])
    with rasterio.open(f'ZARR:"{path}":/{GROUP}/ships/value') as found:
        assert found.crs == rasterio.crs.CRS.from_epsg(epsg)
        assert found.transform.almost_equals(Affine(*transform) @ Affine.scale(56), precision=1e-9)
        assert found.nodata == 255
        assert (found.read(1) == grid(lambda *tile: code(SHIPS, *tile))).all()
    with rasterio.open(f'ZARR:"{path}":/{GROUP}/ships/confidence') as found:
        sure = grid(lambda *tile: confidence(SHIPS, *tile)).astype("f4")
        assert np.array_equal(found.read(1), sure, equal_nan=True)
    with rasterio.open(f'ZARR:"{path}":/{GROUP}/status') as found:
        assert found.crs == rasterio.crs.CRS.from_epsg(epsg)
        assert (found.read(1) == grid(lambda *tile: TILE_STATUSES.index(tile_status(*tile)))).all()


def test_the_source_itself_opens_too(tmp_path):
    with opened(finish(tmp_path), GROUP) as found:
        assert found.rio.crs == "EPSG:32633"
        assert [TILE_STATUSES[int(i)] for i in found["status"].to_numpy().ravel()] == [
            tile_status(*tile) for tile in all_tiles(SOURCE)
        ]
        valid = grid(lambda *tile: {"nodata": 0, "error": np.nan}.get(tile_status(*tile), 1))
        assert np.array_equal(found["valid_frac"], valid, equal_nan=True)
        assert found.attrs["source"] == SOURCE.name
        assert "edge" in found.attrs["comment"]


def test_unknown_is_never_no(tmp_path):
    path = finish(tmp_path)
    with opened(path, f"{GROUP}/water") as found:
        flags = found["value"].attrs
    assert flags["flag_values"] == [0, 1, 255]
    assert flags["flag_meanings"] == "yes no unknown"
    raw = xarray.open_zarr(path, group=f"{GROUP}/water", mask_and_scale=False, chunks=None)
    unasked = grid(lambda *tile: tile_status(*tile) != "ok")
    assert unasked.any()
    assert (raw["value"].to_numpy()[unasked] == 255).all()


def test_open_questions_have_a_status_only(tmp_path):
    with opened(finish(tmp_path), f"{GROUP}/question.status") as found:
        assert list(found.data_vars) == ["status"]
        assert found.attrs["question_id"] == "status"


def test_a_rotated_grid_is_placed_by_its_transform(tmp_path):
    path = finish(tmp_path, [replace(SOURCE, transform=ROTATED)])
    with opened(path, f"{GROUP}/water") as found:
        expected = Affine(*ROTATED) @ Affine.scale(56)
        assert found.rio.crs == "EPSG:32633"
        assert found.rio.transform() == expected
        assert found.attrs["spatial:transform"] == list(expected)[:6]
        assert "x" not in found.coords
        assert found.sizes == {"y": 12, "x": 9}


def test_geozarr_attributes(tmp_path):
    with opened(finish(tmp_path), f"{GROUP}/water") as found:
        assert found.attrs["proj:code"] == "EPSG:32633"
        assert found.attrs["spatial:dimensions"] == ["y", "x"]
        assert found.attrs["spatial:shape"] == [12, 9]
        assert found.attrs["spatial:bbox"] == [500_000, 4_600_000 - 12 * 112, 500_000 + 9 * 112, 4_600_000]
        assert found.attrs["spatial:transform"] == [112, 0, 500_000, 0, -112, 4_600_000]


def test_options_of_any_wording_and_number(tmp_path):
    wild = Question("wild", "Which?", "choice", ("a b", "a_b", "café", "no", "a/b"))
    many = Question("many", "How many?", "count", tuple(str(n) for n in range(300)))
    path = finish(tmp_path, questions=(wild, many))
    with xarray.open_zarr(path, group=f"{GROUP}/wild", mask_and_scale=False, chunks=None) as found:
        attrs = found["value"].attrs
        assert attrs["options"] == list(wild.options)
        words = attrs["flag_meanings"].split()
        assert len(set(words)) == len(words) == len(attrs["flag_values"]) == 6
        assert found["value"].dtype == np.uint8
    with xarray.open_zarr(path, group=f"{GROUP}/many", mask_and_scale=False, chunks=None) as found:
        assert found["value"].dtype == np.uint16
        assert (found["value"].to_numpy() == grid(lambda *tile: code(many, *tile))).all()
        assert found["value"].to_numpy().max() == 65535


def test_small_sources_have_no_group(tmp_path):
    small, large = source("small.tif", shape=(7, 9)), source("large.tif", shape=(8, 8))
    path = finish(tmp_path, [small, large])
    assert sorted(entry.name for entry in path.iterdir() if entry.is_dir()) == ["large.tif"]
    assert finish_cube(path, [], [small], QUESTIONS, PLAN_ID) is False
    assert not path.exists()


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_parts_in_any_order_and_size_give_the_same_bytes(tmp_path, zarr_format, monkeypatch):
    long = source(shape=(1100, 2), tile_px=32)  # five bands, of which two are in memory
    tiles = all_tiles(long)
    orders = {"forward": range(0, 2200, 100), "back and forth": [*range(0, 2200, 200), *range(2100, 0, -200)]}
    cubes = []
    for name, starts in orders.items():
        parts = []
        for number, start in enumerate(starts):
            parts.append(tmp_path / f"{name}{number}.parquet")
            write_part(parts[-1], [rows(long, tiles[start : start + 100])], plan_id=PLAN_ID, number=number)
        path = tmp_path / f"{name}.zarr"
        finish_cube(path, parts, [long], QUESTIONS, PLAN_ID, zarr_format)
        cubes.append(digest(path))
        monkeypatch.setattr(cube, "GROUP_ROWS", 200)
    assert cubes[0] == cubes[1]
    with opened(path, f"{GROUP}/water") as found:
        codes = found["value"].fillna(255).to_numpy()
    assert (codes == grid(lambda *tile: code(WATER, *tile), (1100, 2))).all()


def test_tiles_without_a_row_are_unknown(tmp_path):
    part = tmp_path / "p.parquet"
    write_part(part, [rows(SOURCE, [(1, 1)])], plan_id=PLAN_ID, number=0)
    finish_cube(tmp_path / "tiles.zarr", [part], [SOURCE], QUESTIONS, PLAN_ID)
    with opened(tmp_path / "tiles.zarr", f"{GROUP}/water") as found:
        assert int(found["status"].notnull().sum()) == 1
        assert found["value"][1, 1] == code(WATER, 1, 1)


def test_all_metadata_is_in_one_place(tmp_path):
    path = finish(tmp_path)
    consolidated = json.loads((path / ".zmetadata").read_text())["metadata"]
    arrays = [str(file.parent.relative_to(path)) for file in path.rglob(".zarray")]
    assert len(arrays) == 5 + 6 + 6 + 4
    assert {f"{array}/.zarray" for array in arrays} <= consolidated.keys()
    assert json.loads((path / ".zattrs").read_text()) == {"rsqa": {"format": 1, "plan_id": PLAN_ID}}


def test_a_failure_leaves_the_old_cube(tmp_path):
    path = finish(tmp_path)
    before = digest(path)
    with pytest.raises(OutputError, match="damaged or missing"):
        finish_cube(path, [tmp_path / "absent"], [SOURCE], QUESTIONS, PLAN_ID)
    assert digest(path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiles.zarr", "parts"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120), unique=True, max_size=8))
def test_group_names_are_plain_and_do_not_collide(names):
    groups = [group_name(name) for name in names]
    assert len(set(groups)) == len(names)
    for group in groups:
        assert set(group) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-%~")
        assert not group.startswith((".", "__"))
        assert len(group) <= 200


def test_group_names_that_could_collide():
    names = ["a/b", "a%2Fb", "a_b", ".a", "%2Ea", "__a", "..", "é" * 100, "é" * 101, "a~b"]
    assert len({group_name(name) for name in names}) == len(names)
    assert question_group("status") == "question.status"
    assert question_group("water") == "water"
