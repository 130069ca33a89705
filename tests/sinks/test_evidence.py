from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray
from affine import Affine
from answer_key import PLAN_ID, QUESTIONS, WATER, all_tiles, rows, source, tile_status
from hypothesis import given
from hypothesis import strategies as st

from rsqa.raster.grid import TileGrid
from rsqa.sinks.evidence import on_cores, shares_of
from rsqa.sinks.geoparquet import finish_answers
from rsqa.sinks.part import write_part
from rsqa.sinks.table import EVIDENCE_SCHEMA
from rsqa.sinks.zarr import finish_cube

SOURCE = source()
SIDE = 2


def share(row: int, col: int, block: int) -> float:
    """NaN in every fifth block: no ground."""
    number = 7 * row + 3 * col + block
    return np.nan if number % 5 == 0 else float(np.float32(number % 13 / 13))


def write_parts(folder):
    paths = []
    for number, tiles in enumerate(np.array_split(all_tiles(SOURCE), 4)):
        shares = np.array([[share(*tile, block) for block in range(SIDE**2)] for tile in tiles.tolist()], np.float32)
        made = rows(SOURCE, tiles.tolist())
        made = replace(made, questions=tuple(replace(columns, evidence=shares) for columns in made.questions))
        paths.append(folder / f"{number:08d}.parquet")
        write_part(paths[-1], [made], plan_id=PLAN_ID, number=number)
    return paths


def test_the_table_tells_the_weights_of_each_tile_that_was_asked(tmp_path):
    path = tmp_path / "answers.parquet"
    finish_answers(path, write_parts(tmp_path), QUESTIONS, [SOURCE.crs_wkt], PLAN_ID, EVIDENCE_SCHEMA)
    found = pq.read_table(path)
    assert found.column_names == EVIDENCE_SCHEMA.names
    for row in found.to_pylist():
        tile = row["tile_row"], row["tile_col"]
        if tile_status(*tile) != "ok":
            assert row["evidence"] is None
            continue
        expected = [share(*tile, block) for block in range(SIDE**2)]
        assert row["evidence"] == [None if np.isnan(weight) else weight for weight in expected]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_cube_has_them_on_a_finer_grid_of_their_own(tmp_path, zarr_format):
    parts, path = write_parts(tmp_path), tmp_path / "tiles.zarr"
    assert finish_cube(path, parts, [SOURCE], QUESTIONS, PLAN_ID, zarr_format, evidence=SIDE)
    group = f"dir%2Fa%20b.tif/{WATER.id}/evidence"
    with xarray.open_zarr(path, group=group, decode_coords="all", chunks=None) as found:
        assert found.rio.crs == "EPSG:32633"
        assert found.rio.transform() == Affine(*SOURCE.transform) @ Affine.scale(56 / SIDE)
        assert found["weight"].rio.transform(recalc=True) == found.rio.transform()
        weight = found["weight"].to_numpy()
        assert "no proof" in found.attrs["comment"]
    assert weight.shape == (SOURCE.n_rows * SIDE, SOURCE.n_cols * SIDE)
    for row, col in all_tiles(SOURCE):
        cells = weight[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
        expected = [share(row, col, block) for block in range(4)] if tile_status(row, col) == "ok" else [np.nan] * 4
        if row < SOURCE.n_rows - 1 and col < SOURCE.n_cols - 1:  # at the edge windows are shifted
            np.testing.assert_array_equal(cells.ravel(), np.float32(expected))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 4))
def test_each_cell_has_the_weight_of_the_block_in_its_middle(height, width, tile_px, side):
    grid = TileGrid(height, width, tile_px)
    tiles = np.array([(tile.row, tile.col) for tile in grid])
    shares = np.arange(len(tiles) * side**2, dtype=np.float32).reshape(len(tiles), -1)
    src = replace(SOURCE, height=height, width=width, tile_px=tile_px)
    cells = on_cores(shares, src, tiles[:, 0], tiles[:, 1])
    for number, tile in enumerate(grid):
        for i in range(side):
            for j in range(side):
                low = [(tile.core.row * side + i * tile_px) / side, (tile.core.col * side + j * tile_px) / side]
                if low[0] >= height or low[1] >= width:
                    assert np.isnan(cells[number, i, j])
                    continue
                high = [min(a + tile_px / side, end) for a, end in zip(low, (height, width), strict=True)]
                middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
                corner = tile.window.row, tile.window.col
                block = [int((m - c) / tile_px * side + 1e-9) for m, c in zip(middle, corner, strict=True)]
                assert cells[number, i, j] == number * side**2 + block[0] * side + block[1]


def test_shares_come_back_from_the_column():
    column = pa.chunked_array([pa.array([[0.25, None, 0.75, 0.0], None], pa.list_(pa.float32()))])
    np.testing.assert_array_equal(shares_of(column, 2), np.float32([[0.25, np.nan, 0.75, 0], [np.nan] * 4]))
