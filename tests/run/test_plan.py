from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime
from hashlib import sha256

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rsqa.engines.cards import CARDS
from rsqa.engines.registry import ModelRef
from rsqa.errors import OutputError, PlanMismatch, SourceChanged
from rsqa.raster.grid import Layout
from rsqa.raster.source import BlockFacts, Level, RasterSource
from rsqa.raster.stretch import Stretch
from rsqa.run import trial
from rsqa.run.folder import read_plan, write_plan
from rsqa.run.plan import Parts, Plan, PlannedSource, check_same
from rsqa.run.sources import SCHEMA
from rsqa.tasks.question import YES_NO, Question

UTM = [CRS.from_epsg(epsg).to_wkt() for epsg in (32631, 32632)]
WATER = Question("water", "Is there water?", "yesno", YES_NO)


def source(name: str, height: int, width: int, crs: str = UTM[0], block: int = 256) -> RasterSource:
    return RasterSource(
        name=name, path=f"/data/{name}", driver="GTiff", width=width, height=height, dtype="uint8", bands=(1, 2, 3),
        band_names=("red", "green", "blue"), mask="none", alpha_band=None, nodata=None, palette=False, crs_wkt=crs,
        transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0), gsd_m=1.0,
        levels=(Level(1, None, height, width, Layout(block, block, True, False)),),
        acquired=None, fingerprint=name, sidecars=False, blocks=None,
    )  # fmt: skip


def plan(*sources: RasterSource, tile_px: int = 448, part_tiles: int = 64) -> Plan:
    return Plan(
        sources=tuple(PlannedSource(s, tile_px, 1) for s in sources), questions=(WATER,), stretch=Stretch(),
        scale="auto", gsd_m=None, min_valid=0.5, model=ModelRef("tinyrs", "", CARDS["tinyrs"], "ab"), dtype="float32",
        device_type="cpu", batch=8, part_tiles=part_tiles,
    )  # fmt: skip


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 1)), min_size=1, max_size=8),
    tile_px=st.sampled_from([100, 224, 448, 1000]),
    part_tiles=st.integers(1, 200),
)
def test_every_tile_is_in_exactly_one_part(sizes, tile_px, part_tiles):
    made = plan(
        *(source(f"{i}.tif", h, w, UTM[c]) for i, (h, w, c) in enumerate(sizes)), tile_px=tile_px, part_tiles=part_tiles
    )
    parts, seen = Parts(made), Counter()
    for number in range(len(parts)):
        tiles = [(s, t) for s, blocks in parts[number].blocks for b in blocks for t in parts.block(s, b).tiles()]
        assert len(tiles) == parts.n_tiles(number) > 0
        assert len({made.sources[s].source.crs_wkt for s, _ in tiles}) == 1
        seen.update(tiles)
    expected = {(i, (t.row, t.col)) for i, p in enumerate(made.sources) for t in p.grid}
    assert seen.keys() == expected
    assert set(seen.values()) == {1}
    with pytest.raises(IndexError):
        parts[len(parts)]


@given(
    chosen=st.lists(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1), min_size=1, max_size=4),
    part_tiles=st.integers(1, 20),
)
def test_every_chosen_tile_is_in_exactly_one_part(chosen, part_tiles):
    made = plan(*(source(f"{i}.tif", 700, 600) for i in range(len(chosen))), tile_px=100, part_tiles=part_tiles)
    runs = [tuple((row, col, col + 1) for row, col in sorted(tiles)) for tiles in chosen]
    made = replace(made, sources=tuple(replace(p, chosen=r) for p, r in zip(made.sources, runs, strict=True)))
    parts, seen = Parts(made), Counter()
    for number in range(len(parts)):
        assert 0 < parts.n_tiles(number) <= part_tiles
        seen.update((s, t) for s, blocks in parts[number].blocks for b in blocks for t in parts.block(s, b).tiles())
    assert seen == Counter((s, tile) for s, tiles in enumerate(chosen) for tile in tiles)


def test_small_sources_share_a_part_and_large_ones_are_cut():
    small = [source(f"{i}.tif", 400, 400) for i in range(10)]
    assert len(Parts(plan(*small, part_tiles=4))) == 3
    large = Parts(plan(source("big.tif", 44_800, 44_800), part_tiles=500))
    assert len(large) >= 20
    assert max(large.n_tiles(n) for n in range(len(large))) <= 1000


def test_ten_million_tiles_cost_nothing():
    parts = Parts(plan(source("vast.tif", 448 * 3200, 448 * 3200), part_tiles=4096))
    assert parts.n_tiles(len(parts) - 1) > 0
    assert sum(parts.n_tiles(n) for n in range(0, len(parts), 100)) > 0


def full(name: str) -> RasterSource:
    """Every field that may be empty is filled."""
    return replace(
        source(name, 5000, 7000), bands=(4, 3, 1), band_names=("red", "grün", "b1"), mask="alpha", alpha_band=5,
        mask_band=7, mask_values=(3, 8, 9),
        nodata=-9999.5, acquired=datetime(2024, 5, 6, 7, 8, 9, 120, tzinfo=UTC), sidecars=True,
        blocks=BlockFacts(1 << 40, 1, 2, 3), notes=("one", "two"), gsd_m=1 / 3,
        transform=(1 / 3, 1e-9, 5e5, 0.0, -0.1, 5e6),
        levels=(*source(name, 5000, 7000).levels, Level(4, 0, 1250, 1750, Layout(16, 1750, False, True))),
    )  # fmt: skip


def test_a_stored_plan_comes_back_whole(tmp_path):
    made = plan(source("a.tif", 1000, 900), full("dir/b.tif"), source("c.tif", 50, 60, UTM[1]))
    chosen = replace(made.sources[0], chosen=((0, 1, 3), (2, 0, 1)))
    made = replace(made, sources=(chosen, *made.sources[1:]), aoi="0123456789abcdef")
    write_plan(tmp_path, made)
    again = read_plan(tmp_path)
    assert again == made
    assert again.plan_id == made.plan_id
    table = pandas.read_parquet(tmp_path / "sources.parquet")
    assert table["name"].tolist() == ["a.tif", "dir/b.tif", "c.tif"]
    assert table["width"].tolist() == [900, 7000, 60]
    assert "sources" not in json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("nodata", [float("nan"), float("-inf"), 1e-45, -3.4028234663852886e38])
def test_nodata_survives_to_the_last_bit(tmp_path, nodata):
    write_plan(tmp_path, plan(replace(source("a.tif", 10, 10), nodata=nodata)))
    assert repr(read_plan(tmp_path).sources[0].source.nodata) == repr(nodata)


def test_the_table_holds_every_field_of_a_source():
    columns = {f.name for kind in (RasterSource, PlannedSource) for f in fields(kind)} - {"source"}
    assert set(SCHEMA.names) == columns


@pytest.mark.parametrize("content", ["0", "[]", "null", '"plan"'])
def test_what_is_no_plan_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    with pytest.raises(PlanMismatch, match="format None"):
        read_plan(tmp_path)


def test_a_plan_of_another_format_is_told_apart(tmp_path):
    write_plan(tmp_path, plan(source("a.tif", 1000, 900)))
    facts = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    (tmp_path / "plan.json").write_text(json.dumps(facts | {"format": 1}), encoding="utf-8")
    (tmp_path / "sources.parquet").unlink()
    with pytest.raises(PlanMismatch, match="format 1"):
        read_plan(tmp_path)


def test_no_flipped_bit_of_the_table_gives_a_traceback_or_other_pixels(tmp_path):
    made = plan(source("a.tif", 1000, 900), full("b.tif"))
    write_plan(tmp_path, made)
    table = tmp_path / "sources.parquet"
    whole = table.read_bytes()
    refused = 0
    for at in range(4, len(whole), 37):
        table.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            again = read_plan(tmp_path)
        except OutputError:
            refused += 1
        else:
            with contextlib.suppress(PlanMismatch, SourceChanged):  # it tells itself from the plan that is asked for
                check_same(again, made)
    assert refused > 50


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:-9])])
def test_a_damaged_table_of_sources_is_an_output_error(tmp_path, damage):
    write_plan(tmp_path, plan(source("a.tif", 1000, 900)))
    damage(tmp_path / "sources.parquet")
    with pytest.raises(OutputError, match="--overwrite"):
        read_plan(tmp_path)


def test_moving_files_keeps_the_id_and_anything_else_changes_it():
    made = plan(source("a.tif", 1000, 900))
    moved = replace(
        made, sources=(replace(made.sources[0], source=replace(made.sources[0].source, path="/else/a.tif")),)
    )
    assert moved.plan_id == made.plan_id
    check_same(made, moved)
    others = [
        replace(made, min_valid=0.4),
        replace(made, questions=(replace(WATER, text="Is there a lake?"),)),
        replace(made, stretch=Stretch((0.0,), (3000.0,))),
        replace(made, model=replace(made.model, weights_id="cd")),
        replace(made, sources=(replace(made.sources[0], tile_px=224),)),
        replace(made, batch=4),
    ]
    assert len({other.plan_id for other in (made, *others)}) == 7
    for other in others:
        with pytest.raises(PlanMismatch, match=r"there, .* asked"):
            check_same(made, other)


def test_the_id_is_a_digest_of_all_facts_as_sorted_json():
    for names in (["a.tif"], ["a.tif", '"sources":[].tif', "c.tif"]):
        made = plan(*(source(name, 1000, 900) for name in names))
        text = json.dumps(made.identity(), sort_keys=True, separators=(",", ":"))
        assert made.plan_id == sha256(text.encode()).hexdigest()[:16]


def test_the_difference_is_named():
    made = plan(source("a.tif", 1000, 900))
    with pytest.raises(PlanMismatch, match=r"questions\.0\.text: 'Is there water\?' there, 'Is there a lake\?' asked"):
        check_same(made, replace(made, questions=(replace(WATER, text="Is there a lake?"),)))
    with pytest.raises(PlanMismatch, match="questions: 1 there, 2 asked"):
        check_same(made, replace(made, questions=(WATER, replace(WATER, id="again"))))


def test_another_content_under_the_same_name_is_a_changed_source():
    made = plan(source("a.tif", 1000, 900))
    changed = replace(made.sources[0], source=replace(made.sources[0].source, fingerprint="new"))
    with pytest.raises(SourceChanged, match=r"'a\.tif'"):
        check_same(made, replace(made, sources=(changed,)))


def test_adding_a_question_changes_no_other_rows_id():
    one = plan(source("a.tif", 1000, 900))
    ships = Question("ships", "Are there ships?", "yesno", YES_NO)
    two = replace(one, questions=(ships, WATER))
    assert one.processing_id(one.sources[0], WATER) == two.processing_id(two.sources[0], WATER)
    assert two.processing_id(two.sources[0], WATER) != two.processing_id(two.sources[0], ships)
    renamed = replace(WATER, id="w")
    assert one.processing_id(one.sources[0], renamed) == one.processing_id(one.sources[0], WATER)


def test_features_are_the_same_whatever_is_asked_and_wherever_the_file_lies():
    made = plan(source("a.tif", 1000, 900))
    [planned] = made.sources
    moved = replace(planned, source=replace(planned.source, path="/else/a.tif", name="b.tif", acquired=None))
    folders = replace(made.model, folder="/else", name="else")
    same = [replace(made, questions=()), replace(made, batch=4, part_tiles=8), replace(made, model=folders), made]
    assert {other.features_id(p) for other in same for p in (planned, moved)} == {made.features_id(planned)}
    others = [
        made.on("cuda:1"),
        replace(made, dtype="bfloat16"),
        replace(made, min_valid=0.4),
        replace(made, stretch=Stretch((0.0,), (3000.0,))),
        replace(made, model=replace(made.model, weights_id="cd")),
        replace(made, model=replace(made.model, card=replace(made.model.card, side_px=224))),
    ]
    changed = [
        replace(planned, tile_px=224),
        replace(planned, source=replace(planned.source, fingerprint="new")),
        replace(planned, source=replace(planned.source, bands=(3, 2, 1))),
    ]
    ids = {other.features_id(planned) for other in (made, *others)} | {made.features_id(p) for p in changed}
    assert len(ids) == 1 + len(others) + len(changed)


class StallingEngine:
    """Takes a millisecond a tile on a clock of its own, and once, at its second call, five seconds more."""

    def __init__(self):
        self.now, self.calls = 0.0, 0

    def prepare(self, questions, tile_shape, batch):
        return self

    def answer(self, chips, valid=None):
        self.calls += 1
        self.now += 0.001 * len(chips) + (5 if self.calls == 2 else 0)


def test_one_stall_does_not_make_small_parts(monkeypatch):
    engine = StallingEngine()
    monkeypatch.setattr(trial.time, "perf_counter", lambda: engine.now)
    assert trial.probe(engine, [], (112, 112), 32).tile_s == pytest.approx(0.001)
