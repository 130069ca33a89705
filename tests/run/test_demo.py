from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio

import rsqa.cli
from rsqa.run import demo as module
from rsqa.run.demo import GSD_M, TILE_PX, run_demo, score, write_mosaic
from rsqa.run.pipeline import ask
from rsqa.scenes.compose import make_scene
from rsqa.tasks.question import YES_NO, Question

WATER = Question("water", "Is there water?", "yesno", YES_NO)


@pytest.fixture
def echo(monkeypatch):
    """The demo with a fake engine: the way is tested here, not the answers."""
    monkeypatch.setattr(
        module, "ask", lambda request, **told: ask(replace(request, model="rsqa.testing:EchoEngine"), **told)
    )


def test_the_mosaic_is_the_scene_on_the_ground(tmp_path):
    scene = make_scene(7, 700, 600, gsd_m=GSD_M, style="held-out")
    path = tmp_path / "m.tif"
    write_mosaic(path, scene)
    with rasterio.open(path) as raster:
        assert raster.crs.to_epsg() == 32631
        assert raster.res == (GSD_M, GSD_M)
        assert raster.bounds.bottom == 0
        assert raster.overviews(1) == [2]
        assert raster.profile["tiled"]
        difference = np.abs(raster.read().astype(int) - scene.pixels)
    assert difference.mean() < 8  # JPEG; another scene or a shifted one is far beyond
    first = path.read_bytes()
    write_mosaic(path, scene)
    assert path.read_bytes() == first


def test_a_small_demo_and_the_same_again(tmp_path, echo):
    first = run_demo(tmp_path, 2 * TILE_PX - 1, 7)
    assert first.report.n_tiles == 4
    assert first.report.engine_calls > 0
    assert {s.question.id for s in first.scores} <= {question.id for question, _ in module.ASKED}
    assert all(0 <= s.accuracy <= 1 and 0 < s.constant_accuracy <= 1 and 0 < s.n <= 4 for s in first.scores)
    again = run_demo(tmp_path, 2 * TILE_PX - 1, 7)
    assert again.report.engine_calls == 0
    assert again.scores == first.scores


def test_the_command_prints_scores_and_paths(tmp_path, echo, capsys):
    assert rsqa.cli.run(["demo", "--out", str(tmp_path), "--size", "512"]) == 0
    out = capsys.readouterr().out
    assert "Is there water?" in out or "Is there a forest?" in out
    assert f"rsqa show {tmp_path / 'mosaic.rsqa'}" in out


def test_score():
    pairs = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "no"), ("no", None), ("no", "no")]
    got = score(WATER, pairs)
    assert (got.n, got.constant, got.constant_accuracy) == (6, "no", 4 / 6)
    assert got.accuracy == 4 / 6
    assert got.balanced == (1 / 2 + 3 / 4) / 2


def test_a_constant_answer_scores_as_the_constant():
    pairs = [("yes", "no"), ("no", "no"), ("no", "no")]
    got = score(WATER, pairs)
    assert got.accuracy == got.constant_accuracy
    assert got.balanced == 0.5
