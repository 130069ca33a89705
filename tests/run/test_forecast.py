"""What a run is expected to take. How near that comes to real runs is shown by tests/bench/bench_plan.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsqa.run.draft import draft, settle
from rsqa.run.forecast import LOOK_BYTES, Doers, expected
from rsqa.run.pipeline import plan
from rsqa.run.plan import Parts
from rsqa.run.request import Request
from rsqa.run.resident import forget_peak, peak_bytes, resident_bytes
from rsqa.run.trial import Here, Pace, Tried
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)
TRIED = Tried(batch=8, tile_s=0.1, tile_cpu_s=0.01, peak_bytes=500 << 20, cores=16)
READ = Pace(0.01, 0.01)
ALONE = Doers(processes=1, cores=16, alone=True, driver_bytes=200 << 20, planned_s=3.0)
BLOCK = 64 * 64 * 3
"""Bytes of a file block of the rasters here, for each byte of a value."""


def raster(path, side=1024, dtype="uint8"):
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=3, dtype=dtype, crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 0.5, 0.5), tiled=True, blockxsize=64, blockysize=64, interleave="pixel",
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 256, (3, side, side), dtype=dtype))
    return str(path)


def request(*sources, **options):
    settings = {"questions": (WATER,), "tile_px": 64, "model": "rsqa.testing:EchoEngine", "device": "cpu",
                "part_tiles": 32, "batch_size": 8}  # fmt: skip
    return Request(sources=sources, **settings | options)


@pytest.fixture
def planned(tmp_path):
    """1,024 tiles in 32 parts."""
    asked = request(raster(tmp_path / "a.tif", 2048))
    made = settle(asked, draft(asked), None, Here(1))
    return made, Parts(made)


@pytest.mark.parametrize(
    ("tried", "read", "doers", "bound_by", "work_s"),
    [
        (TRIED, READ, ALONE, "model", 102.4),
        (TRIED, Pace(0.5, 0.01), ALONE, "reading", (1024 * 0.6 + 32 * 0.03) / 2),  # two slots
        (replace(TRIED, tile_cpu_s=1.99), READ, ALONE, "processors", 128.0),
        (TRIED, READ, replace(ALONE, processes=4, alone=False), "model", 25.6),
        (replace(TRIED, tile_cpu_s=1.99), READ, replace(ALONE, processes=4, alone=False), "processors", 128.0),
        (replace(TRIED, tile_s=0.001, tile_cpu_s=0.001), Pace(0.001, 0.001), ALONE, "start", 1.504),
    ],
)
def test_the_scarcest_thing_binds(planned, tried, read, doers, bound_by, work_s):
    found = expected(*planned, tried, read, doers)
    assert found.bound_by == bound_by
    assert found.seconds == pytest.approx(found.begin_s + work_s + found.tables_s)
    assert found.begin_s > doers.planned_s


def test_memory_is_that_of_the_trial_and_of_what_the_slots_hold(planned):
    one = expected(*planned, TRIED, READ, ALONE)
    assert one.driver_bytes is None
    assert 600 << 20 < one.memory_bytes < 800 << 20  # blocks of a few hundred kB
    more = expected(*planned, replace(TRIED, peak_bytes=900 << 20), READ, replace(ALONE, alone=False))
    assert more.memory_bytes - one.memory_bytes == 400 << 20
    assert more.driver_bytes > ALONE.driver_bytes
    unknown = expected(*planned, replace(TRIED, peak_bytes=None), READ, replace(ALONE, driver_bytes=None))
    assert (unknown.memory_bytes, unknown.driver_bytes) == (None, None)


def test_larger_blocks_take_more_memory(tmp_path):
    def held(dtype, part_tiles):
        asked = request(raster(tmp_path / "a.tif", 2048, dtype), part_tiles=part_tiles, scale="0,300")
        made = settle(asked, draft(asked), None, Here(1))
        return expected(made, Parts(made), TRIED, READ, ALONE).memory_bytes

    small, large, wide = held("uint8", 32), held("uint8", 1024), held("uint16", 1024)
    per_px = 3 + 3  # as stored, as colours
    assert large - small == 2 * (2048 * 2048 - 32 * 64 * 64) * per_px
    assert wide - large == 2 * 2048 * 2048 * 3


@pytest.mark.parametrize(("dtype", "times"), [("uint8", 1), ("uint16", 2 + 2)])
def test_bytes_read_are_those_of_the_file_blocks(tmp_path, dtype, times):
    """16 x 16 blocks; of uint16, twice as large, all are looked at before, to fit a stretch."""
    report = plan(request(raster(tmp_path / "a.tif", dtype=dtype)))
    looks = 1 + report.n_parts
    assert report.n_parts == 8
    assert 0 < report.expected.read_bytes - times * 256 * BLOCK <= looks * (LOOK_BYTES + 16 * 256)
    assert report.expected.unknown_blocks == 0


def test_of_very_many_sources_some_are_looked_at(tmp_path, monkeypatch):
    paths = [raster(tmp_path / f"{number}.tif", side=128) for number in range(7)]
    all_of_them = plan(request(*paths)).expected.read_bytes
    monkeypatch.setattr("rsqa.run.forecast.MOST_TABLES", 3)
    assert plan(request(*paths)).expected.read_bytes == all_of_them  # they are alike


def test_the_peak_is_what_was_held():
    if peak_bytes() is None:
        pytest.skip("this system does not tell")
    forget_peak()
    before = resident_bytes()
    held = np.ones(200 << 20, np.uint8)
    del held
    assert resident_bytes() - before < 100 << 20 < 150 << 20 < peak_bytes() - before
    forget_peak()
    assert peak_bytes() - before < 100 << 20
