"""A mosaic whole, or cut into files on its grid: the same answers."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from rsqa.errors import ExitCode, SourceChanged, SourceMissing, SourceRefused, UsageError
from rsqa.run.folder import read_plan
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)
WORDS = Question("words", "Describe the scene.", "open")
TOP_LEFT = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)


def raster(path: Path, pixels: np.ndarray, row: int = 0, col: int = 0) -> str:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], tiled=True,
        dtype=pixels.dtype, crs="EPSG:32631", transform=TOP_LEFT @ Affine.translation(col, row), blockxsize=64,
        blockysize=64, compress="deflate", nodata=0,
    ) as file:  # fmt: skip
        file.write(pixels)
    return str(path)


def places(height: int, width: int, dtype: str) -> np.ndarray:
    """Each pixel tells its row and its column; a corner has no data."""
    rows, cols = np.indices((height, width)) + 1
    pixels = np.stack([rows, cols, rows * 7 + cols * 13]) * 9
    pixels[:, :90, :100] = 0
    return pixels.astype(dtype)


def cut(folder: Path, pixels: np.ndarray, rows=(0, 192, 320), cols=(0, 64, 256, 450)) -> str:
    for (r0, r1), (c0, c1) in product(pairwise(rows), pairwise(cols)):
        raster(folder / f"{r0:03}_{c0:03}.tif", pixels[:, r0:r1, c0:c1], r0, c0)
    return str(folder)


def request(tmp_path: Path, *sources: str, **options) -> Request:
    settings = {
        "questions": (WATER, WORDS), "out": tmp_path / "out", "tile_px": 56, "model": "rsqa.testing:EchoEngine",
        "device": "cpu", "part_tiles": 8, "batch_size": 4,
    }  # fmt: skip
    return Request(sources=sources, **settings | options)


def answers(report) -> geopandas.GeoDataFrame:
    table = geopandas.read_parquet(report.out / "answers.parquet")
    return table.set_index(["tile_row", "tile_col", "question_id"]).sort_index().drop(columns=["tile_id", "source"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cut_and_whole_give_the_same_answers(tmp_path, dtype):
    pixels = places(320, 450, dtype)
    whole = answers(ask(request(tmp_path, raster(tmp_path / "whole.tif", pixels), out=tmp_path / "one")))
    report = ask(request(tmp_path, cut(tmp_path / "tiles", pixels), mosaic=True))
    found = answers(report)
    assert (report.exit_code, report.tiles_by_status["nodata"]) == (ExitCode.DONE, 3)
    assert found.equals(whole)
    assert found.processing_id.tolist() == whole.processing_id.tolist()
    assert found.confidence.nunique() > 30
    assert {source.source.name for source in read_plan(report.out).sources} == {"tiles"}


def test_a_mosaic_is_known_again_where_it_is_now_and_not_when_it_changed(tmp_path):
    pixels = places(320, 450, "uint8")
    first = ask(request(tmp_path, cut(tmp_path / "tiles", pixels), mosaic=True))
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "tiles").rename(tmp_path / "elsewhere" / "tiles")
    again = ask(request(tmp_path, str(moved), mosaic=True))
    assert (again.parts_resumed, again.engine_calls) == (first.n_parts, 0)
    raster(moved / "192_064.tif", pixels[:, 192:, 64:256][:, ::-1], 192, 64)
    with pytest.raises(SourceChanged):
        ask(request(tmp_path, str(moved), mosaic=True))


def test_a_mosaic_with_a_file_that_can_not_be_read_is_refused(tmp_path):
    folder = Path(cut(tmp_path / "tiles", places(320, 450, "uint8")))
    (folder / "look.jpg").write_bytes(b"a quick-look is no part of it")
    assert request(tmp_path, str(folder), mosaic=True, out=None).place.shown == Path("tiles.rsqa")
    (folder / "000_064.tif").write_bytes(b"cut short")
    with pytest.raises(SourceRefused, match="000_064"):
        ask(request(tmp_path, str(folder), mosaic=True))
    with pytest.raises(SourceMissing, match=r"endings looked for are \.tif, \.tiff"):
        ask(request(tmp_path, str(tmp_path), mosaic=True, exclude=("*",)))


def test_a_tile_index_is_one_source_with_the_answers_of_the_mosaic(tmp_path):
    pixels = places(320, 450, "uint8")
    folder = Path(cut(tmp_path / "tiles", pixels))
    whole = answers(ask(request(tmp_path, str(folder), mosaic=True, out=tmp_path / "one")))
    boxes, names = [], []
    for path in sorted(folder.iterdir()):
        with rasterio.open(path) as dataset:
            boxes.append(shapely.box(*dataset.bounds))
        names.append(f"tiles/{path.name}")
    geopandas.GeoDataFrame({"location": names}, geometry=boxes, crs=32631).to_file(tmp_path / "m.gti.gpkg")
    report = ask(request(tmp_path, str(tmp_path / "m.gti.gpkg")))
    assert answers(report).equals(whole)
    again = ask(request(tmp_path, f"GTI:{tmp_path / 'm.gti.gpkg'}"))
    assert (again.exit_code, again.engine_calls) == (ExitCode.DONE, 0)
    raster(folder / "192_064.tif", pixels[:, 192:, 64:256][:, ::-1], 192, 64)
    with pytest.raises(SourceChanged):
        ask(request(tmp_path, str(tmp_path / "m.gti.gpkg")))
    with pytest.raises(UsageError, match="ask without"):
        ask(request(tmp_path, str(tmp_path / "m.gti.gpkg"), mosaic=True))
    (folder / "192_064.tif").unlink()
    with pytest.raises(SourceMissing, match="192_064"):
        ask(request(tmp_path, str(tmp_path / "m.gti.gpkg"), out=tmp_path / "other"))
