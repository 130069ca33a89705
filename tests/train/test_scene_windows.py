from __future__ import annotations

import numpy as np
import pytest

from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import COVERS
from rsqa.train.pictures import CELLS_PER_TOKEN
from rsqa.train.scene_windows import FIRST_SEED, PER_SCENE, ground_map, ground_shares, render_windows, scene_windows
from rsqa.train.words import GROUND


@pytest.fixture(scope="module")
def scene():
    """A scene with ships, planes and tanks."""
    made = make_scene(FIRST_SEED, 900, 900)
    assert {thing.label for thing in made.objects} >= {"ship", "plane", "storage tank"}
    return made


def test_the_ground_is_the_cover_with_the_things_on_it(scene):
    ground = ground_map(scene)
    changed = ground != scene.cover
    assert (ground[~changed] < len(COVERS)).all()
    assert set(np.unique(ground[changed])) == {GROUND.index(name) for name in ("ship", "plane", "storage tank")}
    for thing in scene.objects:
        row, col = np.mean(thing.corners, axis=0).astype(int)
        if thing.label != "building" and 0 <= row < 900 and 0 <= col < 900:
            assert GROUND[ground[row, col]] == thing.label


def test_shares_are_those_counted_pixel_by_pixel(scene):
    ground, grid = ground_map(scene)[100:420, 200:520], 16
    shares = ground_shares(ground, grid)
    step = ground.shape[0] // grid
    for i, j in np.ndindex(grid, grid):
        cell = ground[i * step : (i + 1) * step, j * step : (j + 1) * step]
        counted = np.bincount(cell.ravel(), minlength=len(GROUND)) / cell.size
        assert np.abs(shares[i, j] / 255 - counted).max() < 0.51 / 255


def test_windows_are_the_same_from_the_cache_and_again(tmp_path):
    n = PER_SCENE + 2
    drawn = render_windows(n, 56, FIRST_SEED, "train")
    assert drawn.pixels.shape == (n, 3, 56, 56)
    assert drawn.ground.shape == (n, 2 * CELLS_PER_TOKEN, 2 * CELLS_PER_TOKEN, len(GROUND))
    for _ in range(2):
        kept = scene_windows(n, 56, tmp_path)
        assert [picture.facts for picture in kept] == drawn.facts
        assert all(np.array_equal(picture.pixels, drawn.pixels[i]) for i, picture in enumerate(kept))
        assert all(np.array_equal(picture.ground, drawn.ground[i]) for i, picture in enumerate(kept))
