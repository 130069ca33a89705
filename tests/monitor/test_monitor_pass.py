"""Passes over a folder that grows, with an engine that tells the truth."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import duckdb
import geopandas
import pyarrow.dataset as ds
import pytest
from painted_scenes import SIDE, damage_last_block, when
from watched import Watched

from rsqa.errors import ExitCode, InputError, OutputLocked, PlanMismatch
from rsqa.monitor.run import run_pass
from rsqa.monitor.views import history, status
from rsqa.monitor.watch import read_watch
from rsqa.run.folder import held


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two renderings of one ground: a mark vanished, two appeared, a tile is hidden in the second one."""
    watched = Watched(tmp_path_factory.mktemp("pair"), change="confirmations = 1")
    watched.scene("a.tif", [(0, 0), (2, 1)], night=0)
    watched.reports = [watched.run()]
    watched.scene("b.tif", [(2, 1), (3, 3), (1, 2)], night=1, holes=[(3, 0)])
    watched.reports += [watched.run(change_code=True), watched.run(change_code=True)]
    return watched


def test_a_known_edit_is_found_and_nothing_else(pair):
    confirmed = when(1)
    assert pair.changes() == {
        ("0/0", "mark", "yes", "no", confirmed),
        ("3/3", "mark", "no", "yes", confirmed),
        ("1/2", "mark", "no", "yes", confirmed),
    }
    first, second, third = pair.reports
    assert (first.exit_code, first.changes, first.tiles) == (ExitCode.DONE, 0, SIDE * SIDE)
    assert (second.exit_code, second.changes) == (ExitCode.CHANGED, 3)
    assert (third.exit_code, third.changes, third.observed) == (ExitCode.DONE, 0, 0)  # told once
    told = ds.dataset(second.changes_file).to_table(columns=["tile_id"])["tile_id"].to_pylist()
    assert sorted(told) == ["0/0", "1/2", "3/3"]


def test_what_is_hidden_is_unknown(pair):
    assert pair.rows("3/0") == [(when(0), "no", "ok", None), (when(1), None, "nodata", None)]


def test_the_dataset_is_one_table_for_all_readers(pair):
    folder = pair.folder / "port.monitor/observations"
    table = ds.dataset(folder, partitioning="hive").to_table()
    assert len(table) == 2 * SIDE * SIDE
    assert {str(day) for day in table["acquired_date"].to_pylist()} == {"2026-01-01", "2026-01-02"}
    frame = geopandas.read_parquet(folder)
    assert frame.crs == "EPSG:32631"
    assert frame.area.unique().tolist() == [28.0 * 28.0]
    days = duckdb.sql(f"SELECT DISTINCT acquired_date FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=1)")
    assert len(days.fetchall()) == 2


def test_history_and_status(pair):
    assert [row["value"] for row in history(pair.watch, "1/2", "mark")] == ["no", "yes"]
    found = status(pair.watch)
    assert (found.observed, found.changes, found.new_files, found.pending) == (2, 3, 0, 0)
    assert found.gaps == ((when(0), 1.0),)


def test_an_idle_pass_loads_no_model(pair, monkeypatch):
    monkeypatch.setattr("rsqa.monitor.run.find_watched_model", None)
    monkeypatch.setattr("rsqa.monitor.run.observe", None)
    before = pair.bytes()
    assert pair.run().exit_code == ExitCode.DONE
    assert pair.said == []
    assert pair.bytes() == before


def test_any_order_and_all_at_once_give_the_same_files(pair, tmp_path):
    late = Watched(tmp_path / "late", change="confirmations = 1")
    shutil.copy(pair.folder / "incoming/b.tif", late.folder / "incoming")
    late.run()
    shutil.copy(pair.folder / "incoming/a.tif", late.folder / "incoming")
    assert late.run().changes == 3
    once = Watched(tmp_path / "once", change="confirmations = 1")
    shutil.copytree(pair.folder / "incoming", once.folder / "incoming", dirs_exist_ok=True)
    once.run()
    assert late.bytes() == once.bytes() == pair.bytes()


def test_the_grid_is_for_good(pair, tmp_path):
    other = tmp_path / "OTHER.toml"
    other.write_text((pair.folder / "WATCH.toml").read_text().replace("pixel = 0.5", "pixel = 1.0"))
    shutil.copy(other, pair.folder / "OTHER.toml")
    with pytest.raises(PlanMismatch, match=r"pixel was 0.5 .* is 1.0 now"):
        run_pass(read_watch(pair.folder / "OTHER.toml"), print)


def test_a_second_pass_leaves_at_once(pair):
    with held(pair.folder / "port.monitor"), pytest.raises(OutputLocked):
        pair.run()


def test_one_bad_scene_stops_no_other(tmp_path):
    watched = Watched(tmp_path / "w", scenes='acquired = "*%Y-%m-%d*"')
    (tmp_path / "w/incoming/2026-01-01.tif").write_bytes(b"<html>404</html>")
    damage_last_block(watched.scene("2026-01-02.tif"))
    report = watched.run()
    assert (report.exit_code, report.observed, report.failed) == (ExitCode.TILES_FAILED, 1, 1)
    assert [event.name for event in watched.said] == ["scene_failed", "observed"]
    assert [row[1:] for row in watched.rows("3/3")] == [(None, "error", "block_unreadable")]
    assert [row[1:] for row in watched.rows("2/3")] == [("no", "ok", None)]
    again = watched.run()
    assert (again.exit_code, again.failed) == (ExitCode.DONE, 0)  # cron hears of it once, not every minute


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    watched = Watched(tmp_path / "w")
    shutil.rmtree(tmp_path / "w/incoming")
    with pytest.raises(InputError, match="is it mounted"):
        watched.run()
    assert json.loads((tmp_path / "w/port.monitor/state.json").read_text())["runs"][-1]["exit_code"] == 4


def program(folder: Path, text: str) -> str:
    path = folder / "page"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return 'on_change = ["./page", "a b"]\ntimeout_s = 2'


def test_the_program_hears_of_changes_until_it_has_understood(pair, tmp_path):
    tell = program(pair.folder, "cat >&2; exit 3")
    told = pair.folder / "port.monitor/told.json"
    kept = told.read_bytes()
    try:
        told.write_text(json.dumps({"rule": json.loads(kept)["rule"], "ids": []}))  # as if it was killed before
        pair.write(change="confirmations = 1", tell=tell)
        report = pair.run()
        assert (report.exit_code, report.changes) == (ExitCode.UNEXPECTED, 3)
        assert "on_change ended with 3: 2026-01-02 10:30 tile 0/0 mark: yes -> no" in pair.said[-1].text
        program(pair.folder, "sleep 60 & sleep 60")
        assert "did not end within 2 s" in (pair.run(), pair.said[-1].text)[1]
        program(pair.folder, 'printf "%s|" "$@" > heard')
        report = pair.run()
        assert report.exit_code == ExitCode.DONE
        assert (pair.folder / "heard").read_text() == f"a b|{report.changes_file}|"
        assert pair.run().changes == 0
    finally:
        pair.write(change="confirmations = 1")
        told.write_bytes(kept)


def test_another_rule_wakes_nobody_for_old_scenes(pair):
    try:
        pair.write(change="confirmations = 2")
        assert pair.run().changes == 0
        assert pair.changes() == set()
        pair.write(change="confirmations = 1")
        assert pair.run().changes == 0
        assert len(pair.changes()) == 3
    finally:
        pair.write(change="confirmations = 1")


def test_metrics_and_heartbeat(pair):
    try:
        pair.write(change="confirmations = 1", tell='metrics = "m.prom"\nheartbeat = "alive"')
        pair.run(clock=lambda: 2e9)
        text = (pair.folder / "m.prom").read_text()
        assert 'rsqa_monitor_last_success_timestamp_seconds{monitor="WATCH"} 2000000000.0\n' in text
        assert (pair.folder / "alive").read_text() == "2033-05-18T03:33:20+00:00\n"
        shutil.move(pair.folder / "incoming", pair.folder / "unmounted")
        with pytest.raises(InputError):
            pair.run(clock=lambda: 3e9)
        text = (pair.folder / "m.prom").read_text()
        assert 'last_success_timestamp_seconds{monitor="WATCH"} 2000000000.0\n' in text
        assert 'last_exit_code{monitor="WATCH"} 4.0\n' in text
    finally:
        if os.path.isdir(pair.folder / "unmounted"):
            shutil.move(pair.folder / "unmounted", pair.folder / "incoming")
        pair.write(change="confirmations = 1")
