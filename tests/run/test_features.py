"""What the model saw, kept on disk: the same answers, without pixels and without looking."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from itertools import cycle, repeat
from threading import Lock
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rsqa.engines.registry import load_engine
from rsqa.errors import ExitCode, InputError, OutputError, UsageError
from rsqa.raster.grid import Block
from rsqa.run import features as store
from rsqa.run import work
from rsqa.run.features import Looked, Shelf, write_features
from rsqa.run.folder import part_path
from rsqa.run.pipeline import ask, plan
from rsqa.run.request import Request
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import CrampedEngine, EchoEngine

WATER = Question("water", "Is there water?", "yesno", YES_NO)
ROAD = Question("road", "Is there a road?", "yesno", YES_NO)
ECHO = "rsqa.testing:EchoEngine"
VOLATILE = {"run.json", "performance.parquet", ".rsqa.lock"}


def raster(path, height=440, width=600, block=112, nodata=0):
    """8 x 11 tiles of 56 px, the last row and column cut; tile (0, 0) is nodata, two thirds of tile (0, 1) are."""
    pixels = np.random.default_rng(height).integers(1, 256, (3, height, width), dtype=np.uint8)
    pixels[:, :56, :100] = 0
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs="EPSG:32631",
        transform=from_origin(5e5, 5e6, 0.5, 0.5), tiled=True, blockxsize=block, blockysize=block, compress="deflate",
        nodata=nodata,
    ) as file:  # fmt: skip
        file.write(pixels)
    return str(path)


@pytest.fixture
def mosaic(tmp_path):
    return raster(tmp_path / "noise.tif")


def request(tmp_path, *sources, out, **options):
    settings = {
        "questions": (WATER,), "out": tmp_path / out, "tile_px": 56, "model": ECHO, "device": "cpu",
        "part_tiles": 16, "batch_size": 5, "cache_features": tmp_path / "cache",
    }  # fmt: skip
    return Request(sources=sources, **settings | options)


def files(out):
    """Every file that does not change from run to run."""
    paths = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in VOLATILE)
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def kept(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.features"))


@pytest.fixture
def blind(monkeypatch):
    """Call it: from then on pixels can't be read; -> the looks of the engine since."""

    def read_block(*_):
        raise AssertionError("a pixel was wanted")

    def close_eyes():
        monkeypatch.setattr(work, "read_block", read_block)
        looks = load_engine(ECHO, "cpu").looks
        looks.clear()
        return looks

    return close_eyes


def test_the_answers_are_those_of_a_run_without_it(tmp_path, mosaic):
    without = ask(request(tmp_path, mosaic, out="without", cache_features=None))
    cold = ask(request(tmp_path, mosaic, out="cold"))
    warm = ask(request(tmp_path, mosaic, out="warm"))
    assert files(cold.out) == files(without.out) == files(warm.out)
    assert (without.tiles_from_cache, cold.tiles_from_cache, warm.tiles_from_cache) == (0, 0, 88)
    assert warm.engine_calls == without.engine_calls


def test_so_are_those_of_a_real_model(tmp_path, mosaic):
    runs = [
        ask(request(tmp_path, mosaic, out=out, model=None, questions=(WATER, ROAD), tile_px=112, **how))
        for out, how in (("without", {"cache_features": None}), ("cold", {}), ("warm", {}))
    ]
    assert len({run.plan_id for run in runs}) == 1
    assert files(runs[0].out) == files(runs[1].out) == files(runs[2].out)
    assert runs[2].tiles_from_cache == runs[2].n_tiles == 24


@pytest.mark.parametrize("part_tiles", [16, 7, 4096])
def test_a_new_question_reads_no_pixel_and_looks_at_nothing(tmp_path, mosaic, blind, part_tiles):
    new = {"questions": (ROAD,), "part_tiles": part_tiles, "batch_size": 7}
    right = ask(request(tmp_path, mosaic, out="right", cache_features=None, **new))
    ask(request(tmp_path, mosaic, out="old"))
    looks = blind()
    report = ask(request(tmp_path, mosaic, out="new", **new))
    assert looks == []
    assert report.tiles_from_cache == 88
    assert files(report.out) == files(right.out)
    assert report.tiles_by_status == {"ok": 86, "nodata": 2, "error": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "rsqa.testing:CrampedEngine"},
        {"min_valid": 0.1},
        {"scale": "0,100"},
        {"tile_px": 64},
        {"bands": "1,1,2"},
    ],
    ids=str,
)
def test_what_fixes_the_features_has_a_place_of_its_own(tmp_path, mosaic, change):
    ask(request(tmp_path, mosaic, out="old"))
    assert ask(request(tmp_path, mosaic, out="new", **change)).tiles_from_cache == 0


def test_several_sources_and_their_copies(tmp_path, mosaic, blind):
    other = raster(tmp_path / "other.tif", 200, 130)
    ask(request(tmp_path, mosaic, other, out="old", part_tiles=100))
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(other, tmp_path / "moved" / "renamed.tif")
    looks = blind()
    report = ask(request(tmp_path, str(moved), mosaic, out="new", questions=(ROAD,)))
    assert (report.tiles_from_cache, looks) == (88 + 4 * 3, [])


def test_a_source_that_changed_is_read(tmp_path, mosaic):
    ask(request(tmp_path, mosaic, out="old"))
    with rasterio.open(mosaic, "r+") as file:
        file.write(np.full((3, 56, 56), 7, np.uint8), window=((56, 112), (56, 112)))
    assert ask(request(tmp_path, mosaic, out="new")).tiles_from_cache == 0


def test_nothing_is_kept_of_a_source_that_changes_while_it_is_read(tmp_path, mosaic, monkeypatch):
    def read_and_change(source, *rest):
        with alone:  # GDAL does not write a file from two threads
            sheet = read_block(source, *rest)
            with rasterio.open(mosaic, "r+") as file:
                file.write(np.full((3, 56, 56), 7, np.uint8), window=((56, 112), (56, 112)))
        return sheet

    read_block, alone = work.read_block, Lock()
    monkeypatch.setattr(work, "read_block", read_and_change)
    with pytest.raises(InputError, match=r"not the file|written to while it was read"):  # by the slot that finds it
        ask(request(tmp_path, mosaic, out="out"))
    assert kept(tmp_path) == []


def harm(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[-1]
    elif how == "empty":
        content.clear()
    else:
        content[how] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", 0, 70, 150, -1])
def test_a_damaged_file_is_not_there(tmp_path, mosaic, how):
    right = ask(request(tmp_path, mosaic, out="right", questions=(ROAD,), cache_features=None))
    ask(request(tmp_path, mosaic, out="old"))
    harm(kept(tmp_path)[2], how)
    notes = []
    report = ask(request(tmp_path, mosaic, out="new", questions=(ROAD,)), on_note=notes.append)
    assert files(report.out) == files(right.out)
    assert report.tiles_from_cache == 66  # a part has 22 tiles
    assert any("damaged files in --cache-features: 1" in note for note in notes)
    assert ask(request(tmp_path, mosaic, out="mended", questions=(ROAD,))).tiles_from_cache == 88


def test_a_run_that_was_cut_short_goes_on_with_the_same_bytes(tmp_path, mosaic):
    """Part of a part may be kept: its batches must not be others than those of an uninterrupted run."""
    how = {"model": None, "tile_px": 112, "part_tiles": 12}
    whole = ask(request(tmp_path, mosaic, out="whole", cache_features=None, **how))
    done = ask(request(tmp_path, mosaic, out="out", **how))
    part_path(done.out, 0).unlink()
    kept(tmp_path)[0].unlink()
    again = ask(request(tmp_path, mosaic, out="out", **how))
    assert files(again.out) == files(whole.out)


def test_tiles_that_could_not_be_read_are_read_again(tmp_path, mosaic):
    with rasterio.open(mosaic) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray((tmp_path / "noise.tif").read_bytes())
    content[offset : offset + 40] = bytes(40)
    (tmp_path / "noise.tif").write_bytes(content)
    right = ask(request(tmp_path, mosaic, out="right", cache_features=None))
    first = ask(request(tmp_path, mosaic, out="first"))
    again = ask(request(tmp_path, mosaic, out="again"))
    assert files(right.out) == files(first.out) == files(again.out)
    assert again.exit_code == ExitCode.TILES_FAILED
    assert 0 < again.tiles_from_cache < 88


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path, mosaic, monkeypatch):
    calls = []

    def full(path, write):
        calls.append(path)
        raise OutputError(f"can't write {path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(store, "write_whole", full)
    notes = []
    report = ask(request(tmp_path, mosaic, out="out"), on_note=notes.append)
    assert report.exit_code == ExitCode.DONE
    assert any("could not keep everything" in note and "No space left" in note for note in notes)
    assert any("could not keep everything" in warning for warning in report.warnings)
    assert 1 <= len(calls) <= 3  # not once more for every block
    right = ask(request(tmp_path, mosaic, out="right", cache_features=None))
    assert files(report.out) == files(right.out)


def test_what_it_costs_is_said_before(tmp_path, mosaic, monkeypatch):
    told = plan(request(tmp_path, mosaic, out="out"))
    assert told.cache_bytes == 88 * 64 < told.cache_free_bytes
    assert not (tmp_path / "cache").exists()
    notes = []
    ask(request(tmp_path, mosaic, out="out"), on_note=notes.append)
    assert sum("at most 6 kB for 88 tiles" in note for note in notes) == 1
    assert plan(request(tmp_path, mosaic, out="out", questions=(ROAD,))).cache_bytes == 0
    assert plan(request(tmp_path, mosaic, out="out", cache_features=None)).cache_bytes is None


def test_a_disk_without_room_is_refused_and_nothing_is_stored(tmp_path, mosaic, monkeypatch):
    usage = namedtuple("usage", "total used free")(10_000, 5_000, 88 * 64 - 1)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    for verb in (plan, ask):
        with pytest.raises(OutputError, match=r"--cache-features would take .* free"):
            verb(request(tmp_path, mosaic, out="out"))
    assert not (tmp_path / "out" / "plan.json").exists()
    done = ask(request(tmp_path, mosaic, out="out", cache_features=None))
    assert ask(request(tmp_path, mosaic, out="out")).parts_resumed == done.n_parts  # nothing to keep, nothing to say


def test_a_folder_that_can_t_be_made_is_an_output_error(tmp_path, mosaic):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--cache-features"):
        ask(request(tmp_path, mosaic, out="out", cache_features=tmp_path / "file" / "cache"))


class GlancingEngine(EchoEngine):
    """Answers, and can't look without being asked."""

    def prepare(self, questions, tile_shape, batch):
        return SimpleNamespace(answer=super().prepare(questions, tile_shape, batch).answer)


def test_an_engine_that_can_t_is_a_usage_error(tmp_path, mosaic):
    for verb in (plan, ask):
        with pytest.raises(UsageError, match="--cache-features"):
            verb(request(tmp_path, mosaic, out="out", model="test_features:GlancingEngine"))
    assert ask(request(tmp_path, mosaic, out="out", model="test_features:GlancingEngine", cache_features=None))


def test_a_batch_that_did_not_fit_is_kept_once(tmp_path, mosaic, monkeypatch):
    model = "rsqa.testing:CrampedEngine"
    right = ask(request(tmp_path, mosaic, out="right", model=model, questions=(ROAD,), cache_features=None))
    old = ask(request(tmp_path, mosaic, out="old", model=model, cache_features=None))
    for number in range(1, old.n_parts):
        part_path(old.out, number).unlink()
    monkeypatch.setattr(CrampedEngine, "room", cycle([9, 9, 2]))
    assert ask(request(tmp_path, mosaic, out="old", model=model)).parts_halved > 1
    part_path(old.out, 0).unlink()
    ask(request(tmp_path, mosaic, out="old", model=model))
    monkeypatch.setattr(CrampedEngine, "room", repeat(9))
    report = ask(request(tmp_path, mosaic, out="new", model=model, questions=(ROAD,)))
    assert report.tiles_from_cache == 88
    columns = ["tile_id", "confidence", "value", "status"]
    rows = [geopandas.read_parquet(r.out / "answers.parquet")[columns] for r in (right, report)]
    assert rows[0].equals(rows[1])


def test_from_processes(tmp_path, mosaic):
    right = ask(request(tmp_path, mosaic, out="right", questions=(ROAD,), cache_features=None))
    ask(request(tmp_path, mosaic, out="old", workers=2))
    report = ask(request(tmp_path, mosaic, out="new", questions=(ROAD,), workers=2))
    assert report.tiles_from_cache == 88
    assert files(report.out) == files(right.out)


def test_what_a_killed_run_left_is_swept(tmp_path, mosaic):
    ask(request(tmp_path, mosaic, out="old"))
    dead = kept(tmp_path)[0].with_name(f".0-1_0-1.features.{os.uname().nodename}.{2**22 + 1}.0123abcd")
    dead.write_bytes(b"half")
    ask(request(tmp_path, mosaic, out="new", questions=(ROAD,)))
    assert not dead.exists()


@st.composite
def rectangles(draw):
    row0, col0 = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    return Block(0, row0, row0 + draw(st.integers(1, 4)), col0, col0 + draw(st.integers(1, 4)))


@given(stored=st.lists(rectangles(), max_size=6), wanted=rectangles(), seed=st.integers(0, 99))
def test_a_block_is_found_when_all_its_tiles_are_kept(tmp_path_factory, stored, wanted, seed):
    """Features hold their tile's row and column; a tile's status is the same in all files."""
    folder = tmp_path_factory.mktemp("shelf")
    statuses = (
        np.random.default_rng(seed).choice(["ok", "nodata", "error"], (10, 10), p=[0.7, 0.25, 0.05]).astype(object)
    )
    there = np.zeros((10, 10), bool)
    for block in stored:
        tiles = list(block.tiles())
        status = np.array([statuses[tile] for tile in tiles], object)
        share = np.array([np.nan if statuses[t] == "error" else t[0] / 10 for t in tiles], np.float32)
        of_ok = np.array([t for t in tiles if statuses[t] == "ok"], np.float32).reshape(-1, 1, 2)
        write_features(folder, block, Looked(status, share), [of_ok[:1], of_ok[1:]])
        there[block.row0 : block.row1, block.col0 : block.col1] = True
    shelf = Shelf(folder)
    found = shelf.find(wanted)
    tiles = list(wanted.tiles())
    assert (found is not None) == all(there[tile] and statuses[tile] != "error" for tile in tiles)
    assert not shelf.damaged
    if found is not None:
        assert found.looked.status.tolist() == [statuses[tile] for tile in tiles]
        np.testing.assert_array_equal(found.looked.valid_frac, np.float32([row / 10 for row, _ in tiles]))
        ok = [tile for tile in tiles if statuses[tile] == "ok"]
        assert found.n_ok == len(ok)
        pieces = [found.features(first, first + 3) for first in range(0, len(ok), 3)]
        assert [tuple(tile) for piece in pieces for tile in piece[:, 0].astype(int).tolist()] == ok
