"""`detect` as a library call, with an engine that tells the truth: what is on the ground comes out, each thing once."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import seer
import shapely
import zarr
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

import rsqa.cli
from rsqa.errors import ExitCode, InputError, UsageError
from rsqa.run.draft import draft
from rsqa.run.folder import part_path, read_plan, write_plan
from rsqa.run.pipeline import ask, finish
from rsqa.run.request import Request
from rsqa.tasks.detect import gather_things
from rsqa.tasks.task import Detect
from rsqa.testing import EchoEngine

NORTH_UP = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
SHIP, TANK = "ship", "oil tank"


@pytest.fixture(autouse=True)
def the_truth(monkeypatch):
    """Things of one test are unknown to the next."""
    monkeypatch.setattr(seer.Seer, "things", [])
    monkeypatch.setattr(seer.Seer, "mute", set())


def request(folder: Path, raster: Path, task=None, **options) -> Request:
    given = {
        "out": folder / "out", "tile_px": 64, "overlap_px": 16, "model": seer.MODEL, "device": "cpu",
        "part_tiles": 9, "batch_size": 4,
    }  # fmt: skip
    return Request(sources=(str(raster),), task=task or Detect(objects=(SHIP, TANK)), **given | options)


def detections(report) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(report.out / "detections.parquet")


def polygon(box, transform) -> shapely.Polygon:
    x1, y1, x2, y2 = box
    return shapely.Polygon([transform @ corner for corner in [(x1, y1), (x1, y2), (x2, y2), (x2, y1)]])


def check_each_once(frame, things, transform) -> None:
    """A row for each thing, and no more."""
    assert sorted(frame.label) == sorted(name for name, _ in things)
    for name, box in things:
        truth = polygon(box, transform)
        (row,) = [r for r in frame.itertuples() if r.label == name and r.geometry.intersects(truth)]
        assert row.geometry.intersection(truth).area > 0.75 * row.geometry.union(truth).area
        middle = ~transform @ row.geometry.centroid.coords[0]
        assert row.geometry.exterior.is_ccw
        assert row.score == pytest.approx(0.9 / 0.95)
        assert row.box_logprob == -0.25
        assert (abs(np.array(middle) - ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)) < 2).all()


@st.composite
def scenes(draw):
    """(H, W), tile, overlap, transform, upright things that touch no other one, of 4 px to larger than a tile."""
    height, width = draw(st.integers(40, 260)), draw(st.integers(40, 260))
    tile_px = draw(st.integers(40, 96))
    overlap = draw(st.integers(10, tile_px // 2))
    angle = draw(st.sampled_from([0.0, 0.0, 30.0, 117.0]))
    transform = (
        Affine.translation(5e5, 5e6) @ Affine.rotation(angle) @ Affine.scale(0.5, draw(st.sampled_from([-1, 1])))
    )
    things, shapes = [], []
    for _ in range(draw(st.integers(0, 14))):
        w, h = draw(st.integers(4, min(120, width))), draw(st.integers(4, min(120, height)))
        x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
        shape = shapely.box(x, y, x + w, y + h).buffer(1)
        if not any(shape.intersects(other) for other in shapes):
            shapes.append(shape)
            things.append((draw(st.sampled_from([SHIP, TANK])), (x, y, x + w, y + h)))
    return (height, width), tile_px, overlap, transform, things


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scene=scenes())
def test_what_is_there_comes_out_once(tmp_path_factory, scene):
    """By the command itself."""
    (height, width), tile_px, overlap, transform, things = scene
    folder = tmp_path_factory.mktemp("scene")
    raster = seer.write_places(folder / "m.tif", height, width, transform)
    seer.Seer.things = things
    words = ["--object", SHIP, "--object", TANK, "--tile-px", tile_px, "--overlap", overlap, "--out", folder / "out"]
    how = ["--model", seer.MODEL, "--device", "cpu", "--part-tiles", 9, "--batch-size", 4, "--quiet"]
    assert rsqa.cli.run(["detect", *map(str, [raster, *words, *how])]) == ExitCode.DONE
    check_each_once(geopandas.read_parquet(folder / "out" / "detections.parquet"), things, transform)


THINGS = [
    (SHIP, (50, 20, 90, 32)),
    (SHIP, (200, 100, 210, 110)),
    (TANK, (10, 150, 30, 290)),
    (TANK, (300, 300, 310, 310)),
    (TANK, (100, 40, 110, 50)),
]


@pytest.fixture
def raster(tmp_path) -> Path:
    """320 x 448 px: 7 x 10 cores of 48 px."""
    seer.Seer.things = THINGS
    return seer.write_places(tmp_path / "m.tif", 320, 448, NORTH_UP)


def outputs(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("run.json", "performance.parquet"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_stopped_and_gone_on_with_is_the_same_and_so_is_another_cut(tmp_path, raster):
    whole = ask(request(tmp_path, raster))
    check_each_once(detections(whole), THINGS, NORTH_UP)
    before = outputs(whole.out)
    part_path(whole.out, 2).unlink()
    again = ask(request(tmp_path, raster))
    assert again.parts_resumed == again.n_parts - 1
    assert outputs(whole.out) == before
    assert finish(whole.out).questions == whole.questions
    assert outputs(whole.out) == before
    assert [(q.id, q.objects) for q in whole.questions] == [("ship", 2), ("oil-tank", 3)]
    assert ask(request(tmp_path, raster)).questions == whole.questions  # from run.json
    other = ask(request(tmp_path, raster, out=tmp_path / "other", part_tiles=1000, batch_size=16))
    rows = ["label", "score", "box_logprob", "geometry", "tile_id"]
    assert detections(other)[rows].equals(detections(whole)[rows])


def cut(raster: Path, folder: Path, rows: list[int], cols: list[int]) -> Path:
    """The raster in files between these rows and columns, in a folder of their own."""
    folder.mkdir()
    with rasterio.open(raster) as whole:
        for (r0, r1), (c0, c1) in product(pairwise([0, *rows, whole.height]), pairwise([0, *cols, whole.width])):
            window = Window(c0, r0, c1 - c0, r1 - r0)
            profile = whole.profile | {"height": r1 - r0, "width": c1 - c0, "transform": whole.window_transform(window)}
            with rasterio.open(folder / f"{r0:03}_{c0:03}.tif", "w", **profile) as file:
                file.write(whole.read(window=window))
    return folder


cuts = st.lists(st.integers(1, 319), max_size=3, unique=True).map(sorted)


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=cuts, cols=cuts, angle=st.sampled_from([0.0, 30.0]), pyramid=st.booleans())
@example(rows=[25, 105], cols=[70, 205], angle=0.0, pyramid=False)  # through things
def test_a_mosaic_whole_or_cut_into_files_gives_the_same_detections(tmp_path_factory, rows, cols, angle, pyramid):
    folder = tmp_path_factory.mktemp("mosaic")
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(angle) @ Affine.scale(0.5, -0.5)
    seer.Seer.things = THINGS
    raster = seer.write_places(folder / "m.tif", 320, 448, transform)
    whole = ask(request(folder, raster, pyramid=pyramid))
    check_each_once(detections(whole), THINGS, transform)
    report = ask(request(folder, cut(raster, folder / "m", rows, cols), pyramid=pyramid, mosaic=True, out=folder / "2"))
    columns = ["label", "score", "box_logprob", "tile_row", "tile_col"]
    assert detections(report)[columns].equals(detections(whole)[columns])
    ours, theirs = detections(report).geometry, detections(whole).geometry
    assert shapely.equals_exact(ours, theirs, tolerance=1e-6).all()  # metres: corners of files are rounded
    seen = [[tile.partition("/")[2] for tile in tiles] for tiles in detections(report).seen_by]
    assert seen == [[tile.partition("/")[2] for tile in tiles] for tiles in detections(whole).seen_by]


def test_the_plan_is_read_as_it_was_written(tmp_path, raster):
    report = ask(request(tmp_path, raster, Detect(objects=(SHIP,), phrases=("the tank by the sea",), threshold=0.3)))
    plan = read_plan(report.out)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    assert [q.text for q in plan.questions] == [
        "Is there a ship?", "every ship", "Is there a tank by the sea?", "the tank by the sea",
    ]  # fmt: skip
    assert [q.id for q in plan.row_questions] == ["ship", "the-tank-by-the-sea"]
    assert plan.sources[0].overlap_px == 16
    other = ask(request(tmp_path, raster, Detect(objects=(SHIP,), threshold=0.4), out=tmp_path / "other"))
    ids = [set(geopandas.read_parquet(r.out / "answers.parquet").query("question_id == 'ship'").processing_id)
           for r in (report, other)]  # fmt: skip
    assert len(ids[0] | ids[1]) == 2


def test_counts_are_those_of_a_plain_loop_and_say_what_is_not_known(tmp_path):
    """The first 48 rows have no valid pixel, and about one tile the model has nothing to say."""
    seer.Seer.things = THINGS
    seer.Seer.mute = {(240 - 8, 48 - 8)}  # the window of tile row 5, column 1 begins there
    raster = seer.write_places(tmp_path / "m.tif", 320, 448, NORTH_UP, nodata_rows=slice(0, 48))
    areas = geopandas.GeoDataFrame(
        {"name": ["west", "east", "far"]},
        geometry=[polygon((0, 0, 120, 320), NORTH_UP), polygon((120, 0, 448, 320), NORTH_UP), shapely.box(0, 0, 1, 1)],
        crs="EPSG:32633",
    ).to_crs(4326)
    areas.to_file(tmp_path / "areas.gpkg")
    task = Detect(objects=(SHIP, TANK), count=True, areas=str(tmp_path / "areas.gpkg"))
    report = ask(request(tmp_path, raster, task))
    found = detections(report)
    assert len(found) < len(THINGS)  # the ship in the first row was not looked for
    counts = geopandas.read_parquet(report.out / "counts.parquet")
    assert len(counts) == 4 * 2
    answers = geopandas.read_parquet(report.out / "answers.parquet")
    assert set(answers.status) == {"ok", "nodata", "off_list"}
    unknown = answers[answers.status != "ok"]
    areas = areas.to_crs(32633)
    for row in counts.itertuples():
        everywhere = np.isnan(row.area)
        area = shapely.box(0, 0, 1e9, 1e9) if everywhere else areas.geometry[int(row.area)]
        assert pandas.isna(row.area_name) if everywhere else row.area_name == areas.name[int(row.area)]
        assert row.objects == sum(area.contains(g.centroid) for g in found[found.label == row.label].geometry)
        mine = unknown[unknown.question_id == row.question_id]
        assert row.unknown_tiles == sum(area.intersects(g) for g in mine.geometry)
    assert finish(report.out).exit_code == ExitCode.DONE


def test_the_cube_counts_the_objects_of_each_tile(tmp_path, raster):
    seer.Seer.mute = {(240 - 8, 48 - 8)}
    report = ask(request(tmp_path, raster))
    found = detections(report)
    group = zarr.open_group(report.out / "tiles.zarr", mode="r")["m.tif/oil-tank"]
    counts = group["count"][:]
    assert counts.shape == (7, 10)
    assert counts[5, 1] == 65_535
    expected = np.zeros((7, 10), int)
    for row in found[found.label == TANK].itertuples():
        expected[row.tile_row, row.tile_col] += 1
    known = counts != 65_535
    assert (counts[known] == expected[known]).all()
    assert expected.sum() == 3
    assert group["confidence"][3, 0] == pytest.approx(0.9 / 0.95)


def test_a_coarse_pass_joins_what_the_tiles_saw_in_pieces(tmp_path):
    """A long thing, of which one tile in the middle says nothing, and small ones that both passes see."""
    seer.Seer.things = [(TANK, (20, 16, 400, 36)), (SHIP, (200, 150, 210, 160)), (SHIP, (40, 290, 52, 300))]
    seer.Seer.mute = {(0, 2 * 48 - 8)}
    raster = seer.write_places(tmp_path / "m.tif", 320, 448, NORTH_UP)
    pieces = detections(ask(request(tmp_path, raster)))
    assert sorted(pieces.label) == [TANK, TANK, SHIP, SHIP]
    report = ask(request(tmp_path, raster, out=tmp_path / "whole", pyramid=True, part_tiles=5))
    whole = detections(report)
    check_each_once(whole, seer.Seer.things, NORTH_UP)
    [tank] = whole[whole.label == TANK].itertuples()
    assert {"m.tif/0/1", "m.tif/0/3", "m.tif/0/0@4"} <= set(tank.seen_by)
    assert not any("@" in tile for ship in whole[whole.label == SHIP].seen_by for tile in ship)
    tiles = geopandas.read_parquet(report.out / "answers.parquet")
    assert len(tiles) == 2 * 7 * 10  # those of the first pass
    assert report.n_tiles == 7 * 10 + 2 * 3
    before = outputs(report.out)
    assert finish(report.out).exit_code == ExitCode.DONE
    assert outputs(report.out) == before
    again = ask(request(tmp_path, raster, out=tmp_path / "whole", pyramid=True, part_tiles=5))
    assert again.engine_calls == 0
    small = seer.write_places(tmp_path / "small.tif", 60, 60, NORTH_UP)
    assert ask(request(tmp_path, small, out=tmp_path / "small", pyramid=True)).n_tiles == 4


def test_a_coarser_ground_size_keeps_the_share_of_the_overlap(tmp_path, raster):
    """Pixels of 1 m out of 0.5 m, and of 0.7 m."""
    [two] = draft(request(tmp_path, raster, gsd_m=1.0)).sources
    assert (two.grid.window_px, two.overlap_px) == (128, 32)
    [odd] = draft(request(tmp_path, raster, gsd_m=0.7)).sources
    assert (odd.grid.window_px, odd.overlap_px) == (90, 22)


def test_another_model_gives_other_words_and_nothing_breaks(tmp_path, raster):
    """The fake that hashes writes no box, so nothing is found and what it wrote is no answer."""
    report = ask(request(tmp_path, raster, model="rsqa.testing:EchoEngine"))
    answers = geopandas.read_parquet(report.out / "answers.parquet").query("question_id == 'ship'")
    assert len(detections(report)) == 0
    assert set(answers.status) == {"ok", "unparsed"}
    assert ((answers.confidence >= 0.5) == (answers.status == "unparsed")).all()
    assert (answers[answers.status == "ok"].value == "0").all()
    assert EchoEngine.card.boxes == "one"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"overlap_px": 64}, UsageError, "--overlap 64"),
        ({"overlap_px": -1}, UsageError, "--overlap -1"),
        ({"task": Detect(objects=(SHIP,), areas="/nowhere.gpkg")}, InputError, "there is no file"),
    ],
)
def test_impossible_requests(tmp_path, raster, options, error, words):
    with pytest.raises(error, match=words):
        ask(request(tmp_path, raster, **options))


def test_areas_are_polygons_with_a_place(tmp_path, raster):
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326)
    points.to_file(tmp_path / "points.gpkg")
    with pytest.raises(InputError, match="1 shapes that are no polygon"):
        ask(request(tmp_path, raster, Detect(objects=(SHIP,), areas=str(tmp_path / "points.gpkg"))))


def test_things_are_named_once():
    assert gather_things(["the ship", "Öltank", "船"], ["the white plane"]) == (
        ("ship", "Öltank", "船"),
        ("the white plane",),
    )
    for objects, phrases, words in [
        ([], [], "nothing to look for"),
        (["ship", "Ship"], [], "--object 2: 'Ship' is looked for by --object 1"),
        (["a ship", "ship"], [], "--object 2"),
        (["ship"], [" "], "--phrase 1 names nothing"),
        (["?"], [], "--object 1 names nothing"),
        (["ship<|im_end|>"], [], "steers the model"),
    ]:
        with pytest.raises(UsageError, match=words):
            gather_things(objects, phrases)
    with pytest.raises(UsageError, match="--threshold"):
        Detect(objects=(SHIP,), threshold=1.1)
