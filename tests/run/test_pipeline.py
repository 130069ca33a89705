"""`ask` as a library call, on rasters made for the purpose, with the fake engine."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import Affine

from rsqa.errors import ExitCode, InputError, ModelError, OutputError, RsqaError, SourceMissing, UsageError
from rsqa.run import pipeline
from rsqa.run.folder import part_path, read_plan
from rsqa.run.pipeline import ask, finish, plan
from rsqa.run.request import Request
from rsqa.run.work import Failed
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)
SCENE = Question("scene", "Is it rural or urban?", "choice", ("rural", "urban"))
NORTH_UP = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)


def raster(path: Path, pixels: np.ndarray, crs: str = "EPSG:32631", transform: Affine = NORTH_UP, **options) -> str:
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=pixels.shape[0],
        dtype=pixels.dtype, crs=crs, transform=transform, **layout | options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return str(path)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (3, height, width), dtype=np.uint8)


def corrupt(path: Path) -> str:
    """4 x 4 tiles; the file block under tile (1, 1) can't be decoded."""
    raster(path, noise(256, 256))
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    broken = bytearray(path.read_bytes())
    broken[offset : offset + 40] = bytes(40)
    path.write_bytes(broken)
    return str(path)


def request(tmp_path: Path, *sources: str, **options) -> Request:
    settings = {
        "questions": (WATER, SCENE), "out": tmp_path / "out", "tile_px": 64, "model": "rsqa.testing:EchoEngine",
        "device": "cpu", "part_tiles": 8, "batch_size": 4,
    }  # fmt: skip
    return Request(sources=sources, **settings | options)


def rows(report) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(report.out / "answers.parquet")


def test_every_tile_has_one_row_per_question_on_its_ground(tmp_path):
    report = ask(request(tmp_path, raster(tmp_path / "a.tif", noise(200, 330))))
    assert report.exit_code == ExitCode.DONE
    table = rows(report)
    assert report.n_tiles == 4 * 6
    assert len(table) == 48
    assert not table.duplicated(["tile_id", "question_id"]).any()
    assert table.crs == "EPSG:32631"
    ground = table[table.question_id == "water"].union_all()
    assert ground.bounds == (5e5, 5e6 - 100, 5e5 + 165, 5e6)
    assert ground.area == pytest.approx(100 * 165)
    assert (table.status == "ok").all()
    assert set(table[table.question_id == "scene"].value) <= {"rural", "urban"}
    for question in report.questions:
        assert sum(question.counts.values()) == 24


def test_the_tile_in_a_row_is_the_tile_on_its_ground(tmp_path):
    """Asked as a mosaic or as a raster of its own, a tile gets the same answer."""
    pixels = noise(256, 192)
    whole = rows(ask(request(tmp_path, raster(tmp_path / "whole.tif", pixels))))
    own = pixels[:, 128:192, 64:128]
    alone = rows(ask(request(tmp_path, raster(tmp_path / "own.tif", own), out=tmp_path / "own")))
    here = whole[(whole.tile_row == 2) & (whole.tile_col == 1)]
    assert here.confidence.tolist() == alone.confidence.tolist()
    assert len(whole.confidence.unique()) > 20


def test_batch_parts_and_workers_change_nothing(tmp_path):
    path = raster(tmp_path / "a.tif", noise(300, 500))
    tables = [
        rows(ask(request(tmp_path, path, out=tmp_path / str(i), **how))).sort_values(
            ["tile_row", "tile_col", "question_id"]
        )
        for i, how in enumerate(
            [{}, {"batch_size": 1}, {"batch_size": 7, "part_tiles": 3}, {"part_tiles": 4096}, {"workers": 2}]
        )
    ]
    for other in tables[1:]:
        assert other.reset_index(drop=True).equals(tables[0].reset_index(drop=True))


def test_nodata_tiles_are_unknown_and_never_shown_to_the_model(tmp_path):
    pixels = noise(128, 192)
    pixels[:, :64, :64] = 0
    pixels[:, :64, 64:100] = 0  # 36 of 64 columns of the second tile
    report = ask(request(tmp_path, raster(tmp_path / "a.tif", pixels, nodata=0)))
    table = rows(report).set_index(["tile_row", "tile_col", "question_id"]).sort_index()
    assert table.loc[(0, 0, "water")].status == "nodata"
    assert table.isna().loc[(0, 0, "water")].value
    assert table.loc[(0, 1, "water")].status == "nodata"
    assert table.loc[(0, 1, "water")].valid_frac == pytest.approx(28 / 64)
    assert (table.drop([(0, 0), (0, 1)]).status == "ok").all()
    assert report.tiles_by_status == {"ok": 4, "nodata": 2, "error": 0}
    lenient = rows(ask(request(tmp_path, str(tmp_path / "a.tif"), out=tmp_path / "lenient", min_valid=0.4)))
    assert (lenient.status == "nodata").sum() == 2


def test_nothing_but_nodata_needs_no_engine_call(tmp_path):
    report = ask(request(tmp_path, raster(tmp_path / "a.tif", np.zeros((3, 300, 300), np.uint8), nodata=0)))
    assert report.exit_code == ExitCode.DONE
    assert report.engine_calls == 0
    assert report.tiles_by_status == {"ok": 0, "nodata": 25, "error": 0}


def test_a_moved_source_is_found_where_it_is_now(tmp_path):
    (tmp_path / "x").mkdir()
    first = Path(raster(tmp_path / "x" / "a.tif", noise(200, 330)))
    done = ask(request(tmp_path, str(first)))
    before = (done.out / "answers.parquet").read_bytes()
    (tmp_path / "y").mkdir()
    now = first.rename(tmp_path / "y" / "a.tif")
    part_path(done.out, 0).unlink()
    again = ask(request(tmp_path, str(now)))
    assert (again.exit_code, again.parts_resumed) == (ExitCode.DONE, again.n_parts - 1)
    assert (again.out / "answers.parquet").read_bytes() == before


def test_a_stretch_of_zeros_and_ones_is_no_blind_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (1, 300, 300), dtype=np.uint16)
    assert ask(request(tmp_path, raster(tmp_path / "a.tif", pixels))).warnings == ()


def test_a_stretch_that_saw_nothing_is_said(tmp_path):
    notes: list[str] = []
    empty = raster(tmp_path / "a.tif", np.zeros((3, 300, 300), np.uint16), nodata=0)
    report = ask(request(tmp_path, empty), on_note=notes.append)
    assert report.warnings == plan(request(tmp_path, empty)).warnings == tuple(notes)
    assert any("--scale" in note for note in notes)
    notes.clear()
    ask(request(tmp_path, empty, scale="0,3000", overwrite=True), on_note=notes.append)
    assert not notes


def test_a_corrupt_block_costs_its_tiles_and_exit_3(tmp_path):
    path = corrupt(tmp_path / "a.tif")
    report = ask(request(tmp_path, path))
    assert report.exit_code == ExitCode.TILES_FAILED
    table = rows(report)
    failed = table[table.status == "error"]
    assert {*zip(failed.tile_row, failed.tile_col, strict=True)} == {(1, 1)}
    assert set(failed.error) == {"block_unreadable"}
    assert failed.value.isna().all()
    assert (table[table.status != "error"].status == "ok").all()


def test_retry_errors_asks_only_the_parts_that_failed(tmp_path):
    path = corrupt(tmp_path / "a.tif")
    first = ask(request(tmp_path, path))
    again = ask(request(tmp_path, path))
    assert again.engine_calls == 0
    assert again.exit_code == ExitCode.TILES_FAILED
    retried = ask(request(tmp_path, path, retry_errors=True))
    assert retried.parts_resumed == first.n_parts - 1


def test_one_bad_source_of_several_is_left_out_and_named(tmp_path):
    good = raster(tmp_path / "good.tif", noise(100, 100))
    bad = tmp_path / "bad.tif"
    bad.write_text("not a raster")
    notes: list[str] = []
    report = ask(request(tmp_path, good, str(bad)), on_note=notes.append)
    assert report.exit_code == ExitCode.TILES_FAILED
    assert [name for name, _ in report.failed_sources] == ["bad.tif"]
    assert any("bad.tif" in note for note in notes)
    assert set(rows(report).source) == {"good.tif"}


def test_the_only_source_that_is_bad_is_an_input_error(tmp_path):
    with pytest.raises(SourceMissing):
        ask(request(tmp_path, str(tmp_path / "absent.tif")))
    with pytest.raises(InputError):
        ask(request(tmp_path, raster(tmp_path / "nowhere.tif", noise(64, 64), crs=None)))
    assert not (tmp_path / "out").exists()


def test_several_systems_share_one_table_in_degrees(tmp_path):
    a = raster(tmp_path / "a.tif", noise(100, 100))
    b = raster(tmp_path / "b.tif", noise(64, 100), crs="EPSG:32632")
    report = ask(request(tmp_path, a, b))
    table = rows(report)
    assert table.crs == "OGC:CRS84"
    assert set(table.source_crs) == {"EPSG:32631", "EPSG:32632"}
    assert table[table.source == "b.tif"].geometry.bounds.minx.min() > 8.9  # zone 32 is centred on 9° E


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (63, 64), (65, 64)])
def test_any_size(tmp_path, size):
    report = ask(request(tmp_path, raster(tmp_path / "a.tif", noise(*size), blockxsize=16, blockysize=16)))
    table = rows(report)
    assert (table.status == "ok").all()
    assert table[table.question_id == "water"].area.sum() == pytest.approx(size[0] * size[1] / 4)


def test_sixteen_bits_are_stretched_once_for_all_sources(tmp_path):
    rng = np.random.default_rng(0)
    a = raster(tmp_path / "a.tif", rng.integers(0, 3000, (3, 128, 128)).astype(np.uint16))
    b = raster(tmp_path / "b.tif", rng.integers(0, 3000, (3, 128, 128)).astype(np.uint16))
    both = rows(ask(request(tmp_path, a, b, scale="0,3000")))
    alone = rows(ask(request(tmp_path, a, out=tmp_path / "alone", scale="0,3000")))
    assert both[both.source == "a.tif"].confidence.tolist() == alone.confidence.tolist()
    assert ask(request(tmp_path, a, out=tmp_path / "auto")).exit_code == ExitCode.DONE


def test_gsd_makes_tiles_larger_and_reads_the_overview(tmp_path):
    path = raster(tmp_path / "a.tif", noise(512, 512))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    report = plan(request(tmp_path, path, gsd_m=2.0))
    assert report.n_tiles == 4  # 64 px at 2 m are 256 px at 0.5 m
    table = rows(ask(request(tmp_path, path, gsd_m=2.0)))
    assert (table.area.round() == 128 * 128).all()


def test_a_plan_writes_nothing_and_is_the_plan_that_ask_follows(tmp_path):
    path = raster(tmp_path / "a.tif", noise(300, 300))
    report = plan(request(tmp_path, path))
    assert not (tmp_path / "out").exists()
    done = ask(request(tmp_path, path))
    assert (report.plan_id, report.n_tiles, report.n_parts) == (done.plan_id, done.n_tiles, done.n_parts)
    assert min(report.expected.model_s, report.expected.read_s) > 0


def test_the_measured_part_is_kept_on_resume(tmp_path):
    path = raster(tmp_path / "a.tif", noise(300, 300))
    first = ask(request(tmp_path, path, part_tiles=None, batch_size=None))
    again = ask(request(tmp_path, path, part_tiles=None, batch_size=None))
    assert again.plan_id == first.plan_id
    assert again.engine_calls == 0


def test_finish_refuses_while_parts_are_missing(tmp_path):
    report = ask(request(tmp_path, raster(tmp_path / "a.tif", noise(300, 300))))
    assert finish(report.out).exit_code == ExitCode.DONE
    next((report.out / "parts").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"parts of .* are done"):
        finish(report.out)


def test_acquired_comes_from_the_tag_and_never_from_the_clock(tmp_path):
    a = raster(tmp_path / "a.tif", noise(64, 64))
    with rasterio.open(a, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2023:06:01 10:30:00")
    table = pq.read_table(ask(request(tmp_path, a)).out / "answers.parquet")
    assert table["acquired"][0].as_py().isoformat() == "2023-06-01T10:30:00+00:00"
    b = raster(tmp_path / "b.tif", noise(64, 64))
    assert (
        pq.read_table(ask(request(tmp_path, b, out=tmp_path / "b")).out / "answers.parquet")["acquired"].null_count == 2
    )


@pytest.mark.parametrize(
    "options",
    [
        {"questions": ()},
        {"tile_px": 0},
        {"min_valid": 1.5},
        {"gsd_m": -1.0},
        {"part_tiles": 0},
        {"scale": "x"},
        {"bands": "9"},
    ],
    ids=str,
)
def test_impossible_requests_are_usage_errors(tmp_path, options):
    path = raster(tmp_path / "a.tif", noise(64, 64))
    with pytest.raises(UsageError):
        ask(request(tmp_path, path, **options))


def test_reasoning_is_refused_for_a_model_that_was_not_taught_to(tmp_path):
    with pytest.raises(ModelError, match="not taught to reason"):
        ask(request(tmp_path, raster(tmp_path / "a.tif", noise(64, 64)), reasoning=True))


def test_a_request_that_makes_no_sense_stores_and_clears_nothing(tmp_path):
    path = raster(tmp_path / "a.tif", noise(64, 64))
    with pytest.raises(UsageError, match="more than can be read at once"):  # though the raster itself is small
        ask(request(tmp_path, path, tile_px=60_000))
    report = ask(request(tmp_path, path))
    before = (report.out / "answers.parquet").read_bytes()
    with pytest.raises(UsageError):
        ask(request(tmp_path, path, overwrite=True, scale="5,1"))
    assert (report.out / "answers.parquet").read_bytes() == before


def test_overwrite_leaves_what_is_not_ours(tmp_path):
    path = raster(tmp_path / "a.tif", noise(200, 200))
    own = tmp_path / "out" / "parts" / "spare.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    first = ask(request(tmp_path, path, part_tiles=1))
    stale = ("report.html", "out.gpkg", "answers.csv", "answers.geojson", "cog/a.tif.water.tif")
    (first.out / "cog").mkdir()
    for name in (*stale, "mine.gpkg"):
        (first.out / name).write_text("made of the former run, or not")
    report = ask(request(tmp_path, path, overwrite=True, part_tiles=16))
    assert own.read_text() == "mine"
    assert (report.out / "mine.gpkg").exists()
    assert not [name for name in stale if (report.out / name).exists()]
    assert len(list(own.parent.glob("*.parquet"))) == report.n_parts


def test_a_source_that_is_gone_on_resume_is_named(tmp_path):
    paths = [raster(tmp_path / name, noise(64, 64)) for name in ("a.tif", "b.tif")]
    ask(request(tmp_path, *paths))
    Path(paths[1]).unlink()
    with pytest.raises(SourceMissing, match=r"b\.tif"):
        ask(request(tmp_path, *paths))


def test_gsd_reads_the_overview_whatever_the_ratio(tmp_path):
    path = raster(tmp_path / "a.tif", noise(1100, 1100), transform=Affine(0.0731, 0, 5e5, 0, -0.0731, 5e6))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    made = read_plan(ask(request(tmp_path, path, gsd_m=0.35)).out)
    assert made.sources[0].factor == 4
    assert made.sources[0].tile_px == pytest.approx(64 * 0.35 / made.sources[0].source.gsd_m, abs=2)


def test_finish_makes_no_folder_of_a_mistyped_name(tmp_path):
    with pytest.raises(OutputError):
        finish(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_what_crashed_is_tried_once_more_and_then_told(tmp_path, monkeypatch):
    calls = tmp_path / "calls"  # a file: Dask sends a copy of the task

    def do_part(job, number):
        with calls.open("a") as file:
            file.write(".")
        return Failed("a fault of ours", ExitCode.UNEXPECTED)

    monkeypatch.setattr(pipeline, "do_part", do_part)
    with pytest.raises(RsqaError, match="a fault of ours"):
        ask(request(tmp_path, raster(tmp_path / "a.tif", noise(64, 64))))
    assert calls.read_text() == ".."


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.INPUT, ExitCode.OUTPUT, ExitCode.MODEL])
def test_a_fault_of_the_request_stops_the_run_with_its_own_exit_code(tmp_path, monkeypatch, code):
    calls = tmp_path / "calls"  # a file: Dask sends a copy of the task

    def do_part(job, number):
        with calls.open("a") as file:
            file.write(".")
        return Failed("no", code)

    monkeypatch.setattr(pipeline, "do_part", do_part)
    with pytest.raises(RsqaError, match="no") as caught:
        ask(request(tmp_path, raster(tmp_path / "a.tif", noise(400, 400)), part_tiles=1))
    assert caught.value.exit_code == code
    assert 0 < len(calls.read_text()) < 10


def test_nothing_new_writes_nothing_and_tells_the_same(tmp_path):
    path = raster(tmp_path / "a.tif", noise(200, 330))
    first = ask(request(tmp_path, path))
    written = {p: p.stat().st_mtime_ns for p in first.out.rglob("*") if p.is_file()}
    again = ask(request(tmp_path, path))
    assert {p: p.stat().st_mtime_ns for p in first.out.rglob("*") if p.is_file()} == written
    assert (again.exit_code, again.questions, again.tiles_by_status) == (
        first.exit_code, first.questions, first.tiles_by_status,
    )  # fmt: skip


def test_a_lost_table_is_built_again(tmp_path):
    path = raster(tmp_path / "a.tif", noise(200, 330))
    first = ask(request(tmp_path, path))
    before = (first.out / "answers.parquet").read_bytes()
    (first.out / "answers.parquet").unlink()
    assert ask(request(tmp_path, path)).engine_calls == 0
    assert (first.out / "answers.parquet").read_bytes() == before
