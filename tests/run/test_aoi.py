"""Only the tiles of an area: no others are planned, read or written."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from rsqa.errors import ExitCode, PlanMismatch, SourceRefused
from rsqa.run.pipeline import ask, finish, plan
from rsqa.run.request import Request
from rsqa.tasks.labels import class_questions
from rsqa.tasks.question import YES_NO, Question
from rsqa.tasks.task import Classify

WATER = Question("water", "Is there water?", "yesno", YES_NO)
CORNER = 5e5, 5e6


def raster(path: Path, height: int = 640, width: int = 640, crs: str | None = "EPSG:32631") -> str:
    """Noise in 10 x 10 tiles of 64 px of 1 m, a file block each."""
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs=crs, tiled=True,
        blockxsize=64, blockysize=64, compress="deflate", transform=Affine(1, 0, CORNER[0], 0, -1, CORNER[1]),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 256, (3, height, width), dtype=np.uint8))
    return str(path)


def area(path: Path, *polygons: shapely.Polygon) -> Path:
    """Polygons in pixels, x to the right and y down -> a file in longitude and latitude."""
    ground = [shapely.transform(p.segmentize(10), lambda xy: xy * (1, -1) + CORNER) for p in polygons]
    geopandas.GeoSeries(ground, crs=32631).to_crs(4326).to_file(path)
    return path


def request(tmp_path: Path, *sources: str, **options) -> Request:
    settings = {
        "questions": (WATER,), "out": tmp_path / "out", "tile_px": 64, "model": "rsqa.testing:EchoEngine",
        "device": "cpu", "part_tiles": 8, "batch_size": 4,
    }  # fmt: skip
    return Request(sources=sources, **settings | options)


def answers(report) -> geopandas.GeoDataFrame:
    table = geopandas.read_parquet(report.out / "answers.parquet")
    return table.set_index(["tile_row", "tile_col"]).sort_index()


TRIANGLE = shapely.Polygon([(70, 70), (500, 70), (70, 500)])


def inside(row: int, col: int) -> bool:
    tile = shapely.box(64 * col + 0.1, 64 * row + 0.1, 64 * col + 63.9, 64 * row + 63.9)
    return bool(TRIANGLE.intersects(tile))


def test_an_area_gives_the_rows_of_its_tiles_and_nothing_else_is_read(tmp_path):
    path = Path(raster(tmp_path / "a.tif"))
    whole = answers(ask(request(tmp_path, str(path), out=tmp_path / "whole")))
    broken = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        for row, col in np.ndindex(10, 10):
            if not inside(row, col):
                offset = int(file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
                broken[offset : offset + 40] = bytes(40)  # decoding it would fail
    path.write_bytes(broken)
    asked = request(tmp_path, str(path), aoi=area(tmp_path / "aoi.gpkg", TRIANGLE))
    foreseen = plan(asked)
    report = ask(asked)
    found = answers(report)
    wanted = [tile for tile in np.ndindex(10, 10) if inside(*tile)]
    assert found.index.tolist() == wanted
    assert report.exit_code == ExitCode.DONE
    assert report.n_tiles == foreseen.n_tiles == foreseen.sources[0].tiles == len(wanted)
    assert report.n_parts == foreseen.n_parts >= len(wanted) / 8
    assert found.confidence.equals(whole.loc[wanted].confidence)
    again = ask(asked)
    assert (again.engine_calls, again.parts_resumed) == (0, report.n_parts)
    before = (report.out / "answers.parquet").read_bytes()
    finish(report.out)
    assert (report.out / "answers.parquet").read_bytes() == before


def test_features_of_an_area_are_those_of_the_whole(tmp_path):
    path, cache = raster(tmp_path / "a.tif"), tmp_path / "cache"
    aoi = area(tmp_path / "aoi.gpkg", TRIANGLE)
    plain = answers(ask(request(tmp_path, path, aoi=aoi)))
    for out in ("first", "second"):
        kept = ask(request(tmp_path, path, aoi=aoi, out=tmp_path / out, cache_features=cache))
        assert answers(kept).drop(columns="geometry").equals(plain.drop(columns="geometry"))
    assert sum(1 for _ in cache.rglob("*.features")) > 1


def test_another_area_is_another_plan(tmp_path):
    path = raster(tmp_path / "a.tif")
    ask(request(tmp_path, path, aoi=area(tmp_path / "a.gpkg", TRIANGLE)))
    moved = area(tmp_path / "b.gpkg", shapely.box(0, 0, 100, 100))
    with pytest.raises(PlanMismatch, match="aoi"):
        ask(request(tmp_path, path, aoi=moved))
    with pytest.raises(PlanMismatch, match="aoi"):
        ask(request(tmp_path, path))


def test_sources_beside_the_area_are_left_aside_and_none_is_an_error(tmp_path):
    (tmp_path / "chips").mkdir()
    raster(tmp_path / "chips" / "a.tif", 64, 64)
    raster(tmp_path / "chips" / "nowhere.tif", 64, 64, crs=None)
    with (
        rasterio.open(tmp_path / "chips" / "a.tif") as file,
        rasterio.open(
            tmp_path / "chips" / "b.tif", "w", **file.profile | {"transform": Affine(1, 0, 6e5, 0, -1, CORNER[1])}
        ) as far,
    ):
        far.write(file.read())
    labels = {"questions": class_questions(("forest", "city"), ()), "task": Classify(), "tile_px": None}
    here = area(tmp_path / "a.gpkg", shapely.box(0, 0, 10, 10))
    report = ask(request(tmp_path, str(tmp_path / "chips"), aoi=here, **labels))
    assert geopandas.read_parquet(report.out / "classes.parquet").source.tolist() == ["a.tif"]
    assert report.exit_code == ExitCode.TILES_FAILED  # one file has no place
    assert "outside of --aoi, so not asked: 1 of 2 sources" in report.warnings
    with pytest.raises(SourceRefused, match="touches none of 1 sources"):
        ask(request(tmp_path, str(tmp_path / "chips" / "b.tif"), aoi=here, out=tmp_path / "none"))
