"""What does not fit into memory: before the first part the plan's batch is halved, later that of one part."""

from __future__ import annotations

import json
import os
from itertools import chain, repeat

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import from_origin

from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode, ModelError, OutOfMemory, PlanMismatch
from rsqa.run.folder import part_path, read_plan
from rsqa.run.pipeline import ask, plan
from rsqa.run.request import Request
from rsqa.run.trial import fit_batch
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import CrampedEngine, EchoEngine

WATER = Question("water", "Is there water?", "yesno", YES_NO)
MODEL = "rsqa.testing:CrampedEngine"


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """8 x 8 tiles of 56 px, noise: 4 parts of 16 tiles, each 2 batches of 8."""
    path = tmp_path_factory.mktemp("mosaic") / "noise.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=448, width=448, count=3, dtype="uint8", crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 0.5, 0.5), tiled=True, blockxsize=112, blockysize=112,
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 256, (3, 448, 448), dtype=np.uint8))
    return str(path)


@pytest.fixture
def room(monkeypatch):
    """Sets how many tiles fit at once, call after call, and the last for ever; -> tiles of the calls that fitted."""

    def set_room(*tiles):
        calls = load_engine(MODEL, "cpu").calls
        calls.clear()
        monkeypatch.setattr(CrampedEngine, "room", chain(tiles, repeat(tiles[-1])))
        return calls

    return set_room


def request(tmp_path, mosaic, **options):
    settings = {
        "questions": (WATER,), "out": tmp_path / "out", "tile_px": 56, "model": MODEL, "device": "cpu",
        "part_tiles": 16, "batch_size": 8,
    }  # fmt: skip
    return Request(sources=(mosaic,), **settings | options)


def answers(report):
    rows = geopandas.read_parquet(report.out / "answers.parquet").drop(columns="processing_id")
    return rows.sort_values(["tile_row", "tile_col"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def right(mosaic, tmp_path_factory):
    """The answers when memory is plenty."""
    whole = request(tmp_path_factory.mktemp("right"), mosaic, model="rsqa.testing:EchoEngine")
    return answers(ask(whole)).drop(columns="probabilities")


def check(report, right):
    assert answers(report).drop(columns="probabilities").equals(right)


def batches(out):
    """Number of part -> the batch that its file tells, where it tells one."""
    facts = {int(path.stem): json.loads(pq.read_metadata(path).metadata[b"rsqa"]) for path in (out / "parts").iterdir()}
    return {number: of_part["batch"] for number, of_part in facts.items() if "batch" in of_part}


@pytest.mark.parametrize("fits", range(1, 8))
def test_before_the_first_part_the_plan_is_rewritten(tmp_path, mosaic, room, right, fits):
    calls, notes = room(fits), []
    report = ask(request(tmp_path, mosaic), on_note=notes.append)
    batch = max(step for step in (1, 2, 4) if step <= fits)
    assert report.exit_code == ExitCode.DONE
    check(report, right)
    assert read_plan(report.out).batch == batch
    assert report.plan_id == read_plan(report.out).plan_id
    assert report.engine_calls == 64 // batch
    assert set(calls) == {batch}
    assert len(calls) <= 64 // batch + 3 * 16 // batch  # and the parts that found it out, which were in flight
    assert (batches(report.out), report.parts_halved) == ({}, 0)
    assert sum(f"now has batches of {batch}" in note for note in notes) == 1


def test_a_rewritten_plan_gives_the_bytes_of_a_plan_with_that_batch(tmp_path, mosaic, room):
    room(4)
    shrunk = ask(request(tmp_path, mosaic))
    planned = ask(request(tmp_path, mosaic, batch_size=4, out=tmp_path / "planned"))
    for name in ("plan.json", "sources.parquet", "answers.parquet", "parts/00000003.parquet"):
        assert (shrunk.out / name).read_bytes() == (planned.out / name).read_bytes()


@pytest.mark.parametrize("batch_size", [8, None])
def test_a_resume_accepts_the_batch_that_fitted(tmp_path, mosaic, room, right, batch_size):
    room(2)
    done = ask(request(tmp_path, mosaic, batch_size=batch_size))
    part_path(done.out, 2).unlink()
    calls, notes = room(2), []
    again = ask(request(tmp_path, mosaic, batch_size=batch_size), on_note=notes.append)
    assert (again.plan_id, again.parts_resumed) == (done.plan_id, done.n_parts - 1)
    assert set(calls) == {2}
    check(again, right)
    assert any("--batch-size 8 asked" in note for note in notes) == (batch_size == 8)


def test_a_batch_that_the_plan_was_not_halved_from_is_another_plan(tmp_path, mosaic, room):
    room(8)
    ask(request(tmp_path, mosaic, batch_size=4))
    for other in (2, 6):
        with pytest.raises(PlanMismatch, match=f"batch: 4 there, {other} asked"):
            ask(request(tmp_path, mosaic, batch_size=other))


def test_later_only_that_part_is_halved_and_says_so(tmp_path, mosaic, room, right):
    """The calls of a part come one after the other only if it is the one that is missing."""
    room(8)
    done = ask(request(tmp_path, mosaic))
    before = part_path(done.out, 3).read_bytes()
    for number in (1, 3):
        part_path(done.out, number).unlink()
    calls, notes = room(8, 8, 4), []  # whichever part comes last
    report = ask(request(tmp_path, mosaic, max_duration_s=1e9), on_note=notes.append)
    assert report.exit_code == ExitCode.DONE
    assert report.plan_id == done.plan_id
    check(report, right)
    halved = batches(report.out)
    assert halved
    assert set(halved) <= {1, 3}
    assert set(halved.values()) == {4}
    assert report.parts_halved == len(halved)
    assert json.loads((report.out / "run.json").read_text())["parts_halved"] == len(halved)
    assert sum(calls) == 32
    assert sum("did not fit into memory" in note for note in notes) == 1
    assert any("did not fit into memory" in warning for warning in report.warnings)
    if 3 not in halved:
        assert part_path(done.out, 3).read_bytes() == before


def test_the_part_after_a_halved_one_has_the_plans_batch_again(tmp_path, mosaic, room, right):
    room(8)
    done = ask(request(tmp_path, mosaic, part_tiles=8))
    for number in range(1, 8):
        part_path(done.out, number).unlink()
    calls = room(8, 4, 4, 4, 8)  # one call a part: the second does not fit, its halves do
    report = ask(request(tmp_path, mosaic, part_tiles=8))
    assert calls == [8, 4, 4, 8, 8, 8, 8, 8]
    assert list(batches(report.out).values()) == [4]
    check(report, right)


def test_one_tile_that_does_not_fit_ends_the_run_and_keeps_what_was_done(tmp_path, mosaic, room, right):
    calls = room(8, 8, 8, 8, 0)
    with pytest.raises(ModelError, match=r"single tile does not fit .*--tile-px") as caught:
        ask(request(tmp_path, mosaic, part_tiles=8))
    assert caught.value.exit_code == ExitCode.MODEL
    committed = len(list((tmp_path / "out" / "parts").iterdir()))
    assert 1 <= committed <= len(calls) == 4
    room(8)
    again = ask(request(tmp_path, mosaic, part_tiles=8))
    assert (again.exit_code, again.parts_resumed) == (ExitCode.DONE, committed)
    check(again, right)


def test_one_tile_that_never_fits_is_told_before_anything_is_stored(tmp_path, mosaic, room):
    room(0)
    with pytest.raises(OutOfMemory, match="single tile"):
        ask(request(tmp_path, mosaic, part_tiles=None))
    assert not (tmp_path / "out" / "plan.json").exists()
    with pytest.raises(OutOfMemory, match="single tile"):
        plan(request(tmp_path, mosaic))


@pytest.mark.parametrize("fits", [1, 3, 5, 8])
def test_the_probe_halves_the_batch_before_a_plan_is_stored(tmp_path, mosaic, room, fits):
    room(fits)
    notes = []
    report = ask(request(tmp_path, mosaic, part_tiles=None), on_note=notes.append)
    batch = max(step for step in (1, 2, 4, 8) if step <= fits)
    assert read_plan(report.out).batch == batch
    assert report.parts_halved == 0
    assert any("--batch-size 8 asked" in note for note in notes) == (batch < 8)
    assert plan(request(tmp_path, mosaic, part_tiles=None)).batch == batch


def test_a_probe_without_want_keeps_the_batch():
    assert fit_batch(EchoEngine(), [WATER], (56, 56), 16, "cpu")[0] == 16


def test_workers_in_processes_rewrite_the_plan_too(tmp_path, mosaic, room, right, monkeypatch):
    room(2)  # put back what the import of the module sets in this process
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "small_memory.py").write_text(
        "from itertools import repeat\nfrom rsqa.testing import CrampedEngine\nCrampedEngine.room = repeat(2)\n"
    )
    report = ask(request(tmp_path, mosaic, model="small_memory:CrampedEngine", workers=2))
    assert report.exit_code == ExitCode.DONE
    assert read_plan(report.out).batch == 2
    check(report, right)
