"""Scenes that STAC names: by a search that looks some days back, and in files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import stac_server
from painted_scenes import LEFT, PIXEL, SIDE, TILE_PX, TOP, when, write_scene
from rasterio.warp import transform_bounds
from watched import Watched

from rsqa.errors import ExitCode, SourceMissing, UsageError
from rsqa.monitor.scenes import discover
from rsqa.monitor.state import read_state
from rsqa.raster import stac_search

pytest.importorskip("pystac_client")

NOW = when(20)
AREA = (LEFT, TOP - SIDE * TILE_PX * PIXEL, LEFT + SIDE * TILE_PX * PIXEL, TOP)


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.setattr(stac_search, "PAUSE_S", 0.0)
    (tmp_path / "v1").mkdir()
    with stac_server.serving(tmp_path) as made:
        yield made


def publish(api, night, marked, taken=None):
    """A scene without a time of its own."""
    write_scene(api.folder / f"v1/{night}.tif", marked, tag=False)
    taken = taken or when(night)
    api.items.append(stac_server.item(f"s{night}", {"visual": f"{night}.tif"}, datetime=taken.isoformat()))


def watching(folder, *paths, **sections):
    watched = Watched(folder, change="confirmations = 1", **sections)
    file = folder / "WATCH.toml"
    file.write_text(file.read_text().replace('paths = ["incoming"]', f"paths = {json.dumps(paths)}"))
    return watched


def test_a_search_is_a_folder_that_grows(api, tmp_path):
    area = f"area = {list(AREA)}"
    search = f"{api.address}/v1/search?collections=c&key=s3cret"
    watched = watching(tmp_path / "w", search, scenes="days = 15", grid=area)
    clock = {"clock": NOW.timestamp}
    assert watched.run(**clock).exit_code == ExitCode.DONE  # nothing there yet
    publish(api, 10, [(0, 0)])
    assert watched.run(**clock).observed == 1
    publish(api, 12, [(1, 1)])
    publish(api, 3, [(2, 2)])  # older than the window, if a server should not care
    report = watched.run(change_code=True, **clock)
    assert (report.exit_code, report.observed, report.changes) == (ExitCode.CHANGED, 1, 2)
    assert {confirmed for *_, confirmed in watched.changes()} == {when(12)}
    assert [row[0] for row in watched.rows("0/0")] == [when(10), when(12)]
    assert watched.run(**clock).observed == 0
    asked = api.asked[0]
    begin, end = asked["datetime"].split("/")
    assert (datetime.fromisoformat(begin), end) == (NOW - timedelta(days=15), "..")
    lonlat = transform_bounds("EPSG:32631", "OGC:CRS84", *AREA)
    assert [float(side) for side in asked["bbox"].split(",")] == pytest.approx(lonlat, abs=1e-9)
    files = [path for path in watched.watch.out.rglob("*") if path.is_file()]
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_a_server_that_does_not_answer_is_told(api, tmp_path):
    watched = watching(tmp_path / "w", f"{api.address}/v1/search?collections=c")
    api.busy = 100
    with pytest.raises(SourceMissing, match="can't be searched"):
        watched.run()
    assert read_state(watched.watch.out).runs[-1].exit_code == ExitCode.INPUT


def test_a_list_on_disk(tmp_path):
    watched = watching(tmp_path / "w", "catalogue/items.json", scenes="days = 15")
    folder = tmp_path / "w/catalogue"
    for night in (2, 10, 11):
        write_scene(folder / f"{night}.tif", tag=False)
    items = [stac_server.item(f"s{n}", {"visual": f"./{n}.tif"}, datetime=when(n).isoformat()) for n in (2, 10, 11)]
    items.append(stac_server.item("odd", {"visual": "/vsizip/x.tif"}))
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    report = watched.run(clock=NOW.timestamp)
    assert (report.observed, report.failed) == (2, 1)
    assert "items.json: odd: " in watched.said[0].text
    assert [row[0] for row in watched.rows("0/0")] == [when(10), when(11)]
    names = [found.name for found in discover(watched.watch, NOW.timestamp())]
    assert names == ["catalogue/10.tif", "catalogue/11.tif", "items.json: odd"]
    assert {found.acquired.tzinfo for found in discover(watched.watch, NOW.timestamp())[:2]} == {UTC}


def test_days_are_not_negative(tmp_path):
    with pytest.raises(UsageError, match="days -1"):
        _ = watching(tmp_path / "w", "x.json", scenes="days = -1").watch
