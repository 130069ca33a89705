from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dataclasses import replace

from simulate import ARCHIVES, Costs, Queue, Run, show, simulate

FREE = Costs(
    tiles=20_480, part_tiles=1024, portion_tiles=128, decode_s=0, tile_bytes=0, row_bytes=0, request_s=0, commit_s=0,
    start_s=0, weight_bytes=0, dispatch_s=0,
)  # fmt: skip


def seconds(costs: Costs, n_workers: int) -> float:
    run = Run(costs, n_workers)
    run.go()
    assert run.done == run.n_parts == 20
    return run.end


@pytest.mark.parametrize("n_workers", [1, 2, 10])
def test_a_free_world_is_the_model_alone(n_workers):
    assert seconds(FREE, n_workers) == pytest.approx(20_480 * FREE.model_s / n_workers)


def test_what_is_scarce_sets_the_time():
    assert seconds(replace(FREE, tile_bytes=1e6, storage_bytes_per_s=1e8), 10) == pytest.approx(204.8, rel=0.05)
    assert seconds(replace(FREE, dispatch_s=50), 10) == pytest.approx(20 * 50, rel=0.05)
    assert seconds(replace(FREE, start_s=1e4), 2) == pytest.approx(1e4 + 20_480 * FREE.model_s / 2, rel=0.01)
    # Two slots decode at a time, and each is in the model in between.
    assert seconds(replace(FREE, decode_s=0.05), 2) == pytest.approx(20_480 * (0.05 + FREE.model_s) / 4, rel=0.02)


def test_reading_hides_behind_the_model():
    alone = seconds(FREE, 2)
    assert seconds(replace(FREE, decode_s=0.5 * FREE.model_s), 2) < 1.1 * alone


def test_a_part_more_than_workers_costs_a_whole_round():
    assert seconds(FREE, 19) == pytest.approx(seconds(FREE, 10), rel=0.01)


def test_what_binds_is_named(capsys):
    rows = simulate(replace(FREE, tile_bytes=1e6, storage_bytes_per_s=1e8), (1, 10))
    assert [row["binds"] for row in rows] == ["storage: pixels", "storage: pixels"]
    heavy = simulate(replace(FREE, weight_bytes=1e12), (10,))
    assert heavy[0]["binds"] == "storage: weights"
    assert simulate(FREE, (1,))[0]["binds"] == "model"
    assert simulate(replace(FREE, dispatch_s=50), (10,))[0]["binds"] == "driver"
    show("free", rows)
    assert "storage" in capsys.readouterr().out


def test_every_archive_changes_costs_that_exist():
    for change in ARCHIVES.values():
        assert isinstance(replace(FREE, **change), Costs)


def test_a_queue_serves_in_turn():
    queue = Queue()
    assert [queue.take(now, 2.0) for now in (0.0, 1.0, 9.0)] == [2.0, 4.0, 11.0]
    assert queue.busy_s == 6.0
