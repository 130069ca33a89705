"""WATCH.toml: what is written is what is meant, and everything else is told with its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from painted_scenes import LEFT, PIXEL, TOP, watch_text, write_scene

from rsqa.errors import UsageError
from rsqa.monitor.scenes import Found, _from_name
from rsqa.monitor.template import init_watch
from rsqa.monitor.watch import name_pattern, read_watch


def watch(folder: Path, text: str | None = None, **sections):
    path = folder / "WATCH.toml"
    path.write_text(watch_text(**sections) if text is None else text)
    return read_watch(path)


def test_what_is_written_is_what_is_meant(tmp_path):
    read = watch(tmp_path, limits="max_minutes = 50", change="confirmations = 4", tell='log = "m.log"')
    assert read.out == tmp_path / "port.monitor"
    assert (read.grid.origin, read.grid.pixel, read.grid.tile_px) == ((LEFT, TOP), PIXEL, 56)
    assert (read.limits.max_minutes, read.change.confirmations, read.change.min_delta) == (50.0, 4, 0.3)
    assert read.path(read.tell.log) == tmp_path / "m.log"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"change": "min_dleta = 0.2"}, r"\[change\]: unknown key 'min_dleta'; did you mean 'min_delta'"),
        ({"change": "min_delta = 1.2"}, r"\[change\]: min_delta is 1.2"),
        ({"change": "confirmations = 1.5"}, "confirmations is 1.5; it must be a whole number"),
        ({"limits": "tries = true"}, "tries is True"),
        ({"grid": 'resampling = "lanczos"'}, "choose one of nearest"),
        ({"grid": "low = [3.0]\nhigh = [2.0]"}, "each low below its high"),
        ({"grid": "area = [1.0, 2.0, 0.0, 3.0]"}, "area is xmin, ymin"),
        ({"scenes": 'acquired = "*_%Y%m*"'}, "how the file's name tells the date"),
        ({"tell": 'on_change = "page"'}, r"on_change is 'page'; write a list"),
        ({"tell": "timeout_s = nan"}, "timeout_s is nan"),
        ({"tell": "[extra]"}, "unknown key 'extra'"),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(tmp_path, sections, said):
    with pytest.raises(UsageError, match=said):
        watch(tmp_path, **sections)


@pytest.mark.parametrize("missing", ["out", "paths", "origin", "questions"])
def test_what_is_missing_is_named(tmp_path, missing):
    with pytest.raises(UsageError, match="nothing is asked" if missing == "questions" else f"{missing} is missing"):
        watch(tmp_path, "\n".join(line for line in watch_text().splitlines() if not line.startswith(missing)))


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="rsqa monitor init"):
        read_watch(tmp_path / "WATCH.toml")


def test_only_what_changes_answers_changes_their_settings(tmp_path):
    before = watch(tmp_path).settings_id
    assert watch(tmp_path, change="min_delta = 0.1", tell="timeout_s = 1", limits="tries = 2").settings_id == before
    assert watch(tmp_path, grid='resampling = "nearest"').settings_id != before
    assert watch(tmp_path, ask="min_valid = 0.7").settings_id != before


@pytest.mark.parametrize(
    ("pattern", "name", "told"),
    [
        ("*_%Y%m%dT%H%M%S*", "S2_31UDQ_20260501T101112.tif", (2026, 5, 1, 10, 11, 12)),
        ("%Y-%m-%d.tif", "2026-02-28.tif", (2026, 2, 28)),
        ("scene%Y%j*", "scene2026060.tif", (2026, 3, 1)),
        ("%Y-%m-%d.tif", "2026-02-30.tif", None),
        ("%Y-%m-%d.tif", "x2026-02-28.tif", None),
    ],
)
def test_the_time_in_a_name(pattern, name, told):
    assert name_pattern("tag") is None
    found = _from_name(Found(f"incoming/{name}", f"/x/{name}", 1, 1), pattern)
    assert found == (None if told is None else datetime(*told, tzinfo=UTC))


def test_init_writes_what_can_be_read(tmp_path):
    init_watch(tmp_path / "plain.toml", None)
    assert read_watch(tmp_path / "plain.toml").out == tmp_path / "plain.monitor"
    with pytest.raises(UsageError, match="is there already"):
        init_watch(tmp_path / "plain.toml", None)


def test_init_takes_grid_and_stretch_from_a_scene(tmp_path):
    init_watch(tmp_path / "a.toml", write_scene(tmp_path / "a.tif", shift_px=(3, -9)))
    grid = read_watch(tmp_path / "a.toml").grid
    assert (grid.crs, grid.origin, grid.pixel, grid.low) == (
        "EPSG:32631", (LEFT - 9 * PIXEL, TOP - 3 * PIXEL), PIXEL, ()
    )  # fmt: skip
    deep = tmp_path / "deep.tif"
    values = np.linspace(100, 4000, 64 * 64).reshape(1, 64, 64).astype(np.uint16)
    with rasterio.open(deep, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint16", crs="EPSG:32631",
                       transform=Affine(1, 0, LEFT, 0, -1, TOP)) as file:  # fmt: skip
        file.write(values)
    init_watch(tmp_path / "b.toml", deep)
    grid = read_watch(tmp_path / "b.toml").grid
    assert grid.low == pytest.approx((178,), abs=5)
    assert grid.high == pytest.approx((3922,), abs=5)
