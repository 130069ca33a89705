"""Rasters that a catalogue names, from the request to the answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import stac_server
from rasterio.transform import from_origin

from rsqa.errors import ExitCode, SourceMissing, UsageError
from rsqa.run.folder import read_plan
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)
SIDE = 1 / 64
"""Of a scene, degrees."""


@pytest.fixture
def api(tmp_path):
    """A server with three scenes side by side."""
    (tmp_path / "v1").mkdir()
    with stac_server.serving(tmp_path) as api:
        api.items = [scene(tmp_path / "v1", number) for number in range(3)]
        yield api


def scene(folder: Path, number: int) -> dict:
    west = 11 + number * SIDE
    with rasterio.open(
        folder / f"{number}.tif", "w", driver="GTiff", height=64, width=64, count=3, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(west, 48, SIDE / 64, SIDE / 64), tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(number).integers(1, 255, (3, 64, 64), dtype=np.uint8))
    return stac_server.item(f"s{number}", {"visual": f"{number}.tif"}, (west, 48 - SIDE, west + SIDE, 48))


def request(tmp_path: Path, *sources: str, **options) -> Request:
    settings = {"questions": (WATER,), "out": tmp_path / "out", "tile_px": 32, "device": "cpu", "part_tiles": 4,
                "batch_size": 4, "model": "rsqa.testing:EchoEngine"}  # fmt: skip
    return Request(sources=sources, **settings | options)


def test_what_a_search_finds_is_asked_and_searched_once(api, tmp_path):
    search = f"{api.address}/v1/search?collections=c&key=secret"
    first = ask(request(tmp_path, search))
    assert (first.exit_code, first.n_tiles) == (ExitCode.DONE, 12)
    table = geopandas.read_parquet(first.out / "answers.parquet")
    assert set(table.source) == {"0.tif", "1.tif", "2.tif"}
    assert set(table.acquired) == {datetime(2024, 5, 6, 10, tzinfo=UTC)}
    asked = len(api.asked)
    api.items = [scene(tmp_path / "v1", 7)]
    notes = []
    again = ask(request(tmp_path, search), on_note=notes.append)
    assert (again.exit_code, again.engine_calls, len(api.asked)) == (ExitCode.DONE, 0, asked)
    assert any("is not searched again" in note and "secret" not in note for note in notes)
    anew = ask(request(tmp_path, search, overwrite=True))
    assert (anew.n_tiles, len(api.asked)) == (4, asked + 1)
    with pytest.raises(UsageError, match="holds another plan"):
        ask(request(tmp_path, str(tmp_path / "v1/0.tif")))
    for more in ({}, {"mosaic": True}):
        assert request(tmp_path, search, out=None, **more).place.shown == Path("c.rsqa")


def test_a_run_that_was_stopped_goes_on_with_what_the_search_found(api, tmp_path):
    search = f"{api.address}/v1/search?collections=c"
    whole = ask(request(tmp_path, search, out=tmp_path / "whole"))
    stopped = ask(request(tmp_path, search, max_duration_s=0.0))
    assert stopped.exit_code == ExitCode.OUT_OF_TIME
    api.items = api.items[::-1][:2]
    ask(request(tmp_path, search))
    for path in (whole.out / "parts").iterdir():
        assert (tmp_path / "out/parts" / path.name).read_bytes() == path.read_bytes()


def test_scenes_of_a_search_are_one_mosaic_of_an_area(api, tmp_path):
    area = geopandas.GeoSeries([shapely.box(11 + 0.6 * SIDE, 48 - 0.4 * SIDE, 11 + 1.2 * SIDE, 48)], crs=4326)
    area.to_crs(32632).to_file(tmp_path / "area.gpkg")
    asked = request(tmp_path, f"{api.address}/v1/search?collections=c", aoi=tmp_path / "area.gpkg", mosaic=True)
    report = ask(asked)
    west, south, east, north = np.array(api.asked[0]["bbox"].split(","), float) - area.total_bounds
    assert -3e-4 < west < 0 < east < 3e-4  # the box of the area's box: a little larger
    assert -3e-4 < south < 0 < north < 3e-4
    [source] = read_plan(report.out).sources
    assert (source.source.name, len(source.source.members)) == ("c", 2)
    table = geopandas.read_parquet(report.out / "answers.parquet")
    assert set(zip(table.tile_row, table.tile_col, strict=True)) == {(0, 1), (0, 2)}


def test_one_item_without_the_asset_is_a_source_that_failed(api, tmp_path):
    api.items[1]["assets"] = {"thermal": api.items[1]["assets"]["visual"]}
    search = f"{api.address}/v1/search?collections=c"
    for _ in range(2):  # as much when it is gone on with
        report = ask(request(tmp_path, search, asset="visual"))
        assert (report.exit_code, report.n_tiles) == (ExitCode.TILES_FAILED, 8)
        assert [name for name, _ in read_plan(report.out).failed] == ["s1"]
    with pytest.raises(SourceMissing, match="item 's1' has no asset 'visual'"):
        ask(request(tmp_path, search, asset="visual", mosaic=True, out=tmp_path / "mosaic"))


def test_an_item_on_disk_may_lead_to_a_server(api, tmp_path):
    named = stac_server.item("far", {"visual": f"{api.address}/v1/1.tif"})
    (tmp_path / "item.json").write_text(json.dumps(named))
    report = ask(request(tmp_path, str(tmp_path / "item.json")))
    direct = ask(request(tmp_path, f"{api.address}/v1/1.tif", out=tmp_path / "direct"))
    columns = ["tile_row", "tile_col", "source", "value", "confidence"]
    tables = [geopandas.read_parquet(each.out / "answers.parquet") for each in (report, direct)]
    assert tables[0][columns].equals(tables[1][columns])


def test_an_asset_without_a_catalogue_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="--asset 'visual' asked"):
        ask(request(tmp_path, "a.tif", asset="visual"))
