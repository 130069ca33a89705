from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from seams import RECTANGLE, Seen, band_of, boxes_of, by_brute_force, look, merged, take, tiles_of

from rsqa.raster.grid import TileGrid
from rsqa.tasks.boxes import SaidBoxes, corners, format_boxes, read_boxes
from rsqa.tasks.merge import merge


@st.composite
def grids(draw, least_overlap=1, least_tile=20):
    tile_px = draw(st.integers(least_tile, 60))
    overlap = draw(st.integers(least_overlap, 30))
    return TileGrid(draw(st.integers(20, 200)), draw(st.integers(20, 200)), tile_px, overlap)


@st.composite
def apart(draw, grid, most_px=None, least_px=1):
    """Upright things (label, box) that touch no other one."""
    things, shapes = [], []
    for _ in range(draw(st.integers(0, 12))):
        width, height = (draw(st.integers(least_px, min(most_px or side, side))) for side in (grid.width, grid.height))
        x, y = draw(st.integers(0, grid.width - width)), draw(st.integers(0, grid.height - height))
        shape = shapely.box(x, y, x + width, y + height)
        if not any(shape.intersects(other) for other in shapes):
            shapes.append(shape)
            things.append((draw(st.integers(0, 1)), (float(x), float(y), float(x + width), float(y + height))))
    return things


@given(st.data())
def test_true_things_come_back_each_once(data):
    """Any overlap joins what it cuts, also things larger than a tile."""
    grid = data.draw(grids())
    things = data.draw(apart(grid))
    tiles = tiles_of(grid)
    found = merged([band_of(tiles, look(tiles, things))], (grid.height, grid.width))
    assert boxes_of(found) == sorted((label, *box) for label, box in things)


def in_words(tiles, seen):
    """What is left of boxes that are written as whole thousandths of their window, and read again."""
    said = []
    windows = dict(zip(map(tuple, tiles.tile.tolist()), tiles.window, strict=True))
    for one in seen:
        origin, side = windows[one.tile][:2], windows[one.tile][2:] - windows[one.tile][:2]
        x1, y1, x2, y2 = ((one.corners[[0, 2]] - origin) / side).ravel().tolist()
        read = corners(read_boxes(format_boxes([(x1, y1, x2, y2)]), "tinyrs")) * side + origin
        said += [Seen(one.tile, one.label, box) for box in read]
    return said


@given(st.data())
def test_true_things_come_back_from_words(data):
    grid = data.draw(grids(least_overlap=8))
    things = data.draw(apart(grid, least_px=4))
    tiles = tiles_of(grid)
    found = boxes_of(merged([band_of(tiles, in_words(tiles, look(tiles, things)))], (grid.height, grid.width)))
    assert len(found) == len(things)
    for label, *box in things:
        best = max(found, key=lambda one: _iou(one[1:], box[0]) * (one[0] == label))
        assert best[0] == label
        assert _iou(best[1:], box[0]) > 0.8


def _iou(one, other):
    a, b = shapely.box(*one), shapely.box(*other)
    return a.intersection(b).area / a.union(b).area


@pytest.mark.data
@pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA names no folder of real pictures")
@pytest.mark.parametrize(("tile_px", "overlap_px"), [(256, 64), (448, 128), (300, 31)])
def test_real_things_come_back_each_once(tile_px, overlap_px):
    """Those of all pictures of NWPU VHR-10, side by side: many touch or overlap others of their label."""
    table = pq.read_table(Path(os.environ["RSQA_TEST_DATA"], "vhr10.parquet"), columns=["objects"])
    objects = [json.loads(text) for text in table["objects"].to_pylist()]
    labels = sorted({one["label"] for some in objects for one in some})
    across, cell = 22, 650
    things = set()
    for number, some in enumerate(objects):
        shift = np.tile([number % across * cell, number // across * cell], 2)
        things |= {(labels.index(one["label"]), *(one["box"] + shift).tolist()) for one in some}
    grid = TileGrid(across * cell, across * cell, tile_px, overlap_px)
    tiles = tiles_of(grid, n_labels=len(labels))
    found = merged([band_of(tiles, look(tiles, [(label, box) for label, *box in things]))], (grid.height, grid.width))
    assert boxes_of(found) == sorted(things)


@given(st.data())
def test_turned_things_come_back_when_the_overlap_holds_them(data):
    grid = data.draw(grids(least_overlap=16))
    tiles = tiles_of(grid)
    things, shapes = [], []
    for _ in range(data.draw(st.integers(0, 8))):
        half = data.draw(st.integers(2, 7)), data.draw(st.integers(1, 3))
        middle = [data.draw(st.integers(0, side)) for side in (grid.width, grid.height)]
        angle = data.draw(st.integers(0, 179))
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        box = (np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half) @ [[cos, sin], [-sin, cos]] + middle
        inside = (box >= 0).all() and (box <= (grid.width, grid.height)).all()
        if inside and not any(shapely.Polygon(box).intersects(other) for other in shapes):
            shapes.append(shapely.Polygon(box))
            things.append((data.draw(st.integers(0, 1)), box))
    seen = [
        Seen(tuple(name), label, box)
        for name, window in zip(tiles.tile.tolist(), tiles.window, strict=True)
        for label, box in things
        if shapely.Polygon(box).intersection(shapely.box(*window)).area > 0
    ]
    found = merged([band_of(tiles, seen)], (grid.height, grid.width))
    told = sorted(
        (label, *box.ravel().tolist()) for label, box in zip(found.label.tolist(), found.corners, strict=True)
    )
    assert told == sorted((label, *box.ravel().tolist()) for label, box in things)


@st.composite
def anything(draw, tiles):
    """Boxes without sense: overlapping, cut, turned, repeated, of any tile."""
    seen = []
    for _ in range(draw(st.integers(0, 14))):
        i = draw(st.integers(0, len(tiles) - 1))
        x1, y1, x2, y2 = tiles.window[i]
        sides = [sorted(draw(st.tuples(share, share)))[::1] for _ in range(2)]
        (left, right), (top, bottom) = sides
        said = SaidBoxes(((left, top, right, bottom),), (draw(st.sampled_from([0.0, 0.0, 30.0])),))
        box = corners(said)[0] * (x2 - x1, y2 - y1) + (x1, y1)
        if left < right and top < bottom:
            score = len(seen) / 16
            seen.append(Seen(tuple(tiles.tile[i].tolist()), draw(st.integers(0, 1)), box, score))
    return seen


share = st.integers(0, 97).map(lambda n: n / 97)


@given(st.data())
def test_the_slowest_way_gives_the_same(data):
    grid = TileGrid(*(data.draw(st.integers(30, 90)) for _ in range(2)), 25, data.draw(st.integers(0, 24)))
    silent = data.draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))))
    tiles = tiles_of(grid, asked=lambda tile, label: label == 1 or tile[1:] not in silent)
    seen = data.draw(anything(tiles))
    found = merged([band_of(tiles, seen)], (grid.height, grid.width))
    ends = np.cumsum(found.n_seen)
    saw = [frozenset(map(tuple, found.seen[end - n : end].tolist())) for n, end in zip(found.n_seen, ends, strict=True)]
    objects = sorted(
        zip(found.label.tolist(), saw, found.score.tolist(), strict=True), key=lambda o: (o[0], sorted(o[1]), o[2])
    )
    expected = by_brute_force(tiles, seen, (grid.height, grid.width))
    assert [one[:2] for one in objects] == [one[:2] for one in expected]
    assert [one[2] for one in objects] == pytest.approx([one[2] for one in expected], nan_ok=True)


def crowd(seed, grid, n=60):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 1, (n, 2)) * (grid.width, grid.height)
    high = np.minimum(low + rng.uniform(2, 70, (n, 2)), (grid.width, grid.height))
    return [(int(rng.integers(2)), (*a.tolist(), *b.tolist())) for a, b in zip(low, high, strict=True)]


def test_neither_order_nor_the_size_of_bands_matters():
    grid = TileGrid(400, 300, 50, 20)
    tiles = tiles_of(grid)
    seen = in_words(tiles, look(tiles, crowd(1, grid)))
    rng = np.random.default_rng(2)
    for row, col in rng.integers(0, (5, 5), (9, 2)).tolist():  # turned boxes reach out of their windows
        turned = np.add([[0, -50], [-10, -40], [0, 50], [10, 40]], (50 * col + 25, 50 * row + 75))
        seen += [Seen((1, r, col), 0, turned, 0.3) for r in (row, row + 2)]
    whole = merged([band_of(tiles, seen)], (400, 300))
    assert len(whole) > 20
    rows = [take(tiles, tiles.tile[:, 1] == row) for row in range(grid.n_rows)]
    pairs = [take(tiles, rng.permutation(np.flatnonzero(tiles.tile[:, 1] // 2 == row))) for row in range(4)]
    # Two files, side by side: all tiles of a band of the left one come first.
    files = [take(tiles, np.lexsort((tiles.tile[:, 2] > 2, tiles.tile[:, 1] // 4)))]
    for portions in (rows, pairs, files):
        shuffled = [seen[i] for i in rng.permutation(len(seen))]
        other = merged([band_of(portion, shuffled) for portion in portions], (400, 300))
        for name in ("label", "corners", "score", "logprob", "n_seen", "seen"):
            assert (getattr(other, name) == getattr(whole, name)).all(), name


def test_objects_come_as_soon_as_no_tile_can_add_to_them():
    grid = TileGrid(500, 60, 50, 10)
    tiles = tiles_of(grid)
    seen = look(tiles, [(0, (10.0, 10.0 + 50 * i, 30.0, 30.0 + 50 * i)) for i in range(9)])
    given_out = []

    def bands():
        for row in range(grid.n_rows):
            given_out.append(row)
            yield band_of(take(tiles, tiles.tile[:, 1] == row), seen)

    for objects in merge(bands(), (500, 60)):
        assert objects.corners[:, :, 1].max() >= 50 * (given_out[-1] - 3)


def test_bands_out_of_order_are_refused():
    tiles = tiles_of(TileGrid(200, 60, 50, 10))
    with pytest.raises(ValueError, match="above"):
        list(merge([band_of(take(tiles, tiles.tile[:, 1] == row), []) for row in (1, 0)], (200, 60)))


def two_passes(grid, times):
    """Tiles of `grid`, and a second pass with tiles so many times larger."""
    coarse = tiles_of(TileGrid(grid.height, grid.width, grid.tile_px * times, grid.overlap_px * times))
    coarse.tile[:, 0] = times
    return tiles_of(grid).and_those(coarse)


def larger(seen, factor, px):
    """All boxes of other passes, of this one only those with a side longer than `px`."""
    return [one for one in seen if one.tile[0] != factor or np.ptp(one.corners, axis=0).max() > px]


@given(st.data())
def test_two_passes_give_each_thing_once(data):
    grid = data.draw(grids())
    things = data.draw(apart(grid))
    tiles = two_passes(grid, 3)
    seen = larger(look(tiles, things), 3, grid.overlap_px)
    found = merged([band_of(tiles, seen)], (grid.height, grid.width))
    assert boxes_of(found) == sorted((label, *box) for label, box in things)


def test_a_coarse_pass_joins_what_the_tiles_saw_in_pieces():
    """A thing of four tiles; one in the middle does not see it, so its pieces touch no more."""
    grid = TileGrid(400, 400, 50, 10)
    tiles = two_passes(grid, 4)
    long, small = (20.0, 20.0, 190.0, 45.0), (300.0, 300.0, 320.0, 310.0)
    seen = [one for one in look(tiles, [(0, long), (0, small)]) if one.tile != (1, 0, 1)]
    assert len(merged([band_of(take(tiles, tiles.tile[:, 0] == 1), seen)], (400, 400))) == 3
    found = merged([band_of(tiles, larger(seen, 4, 10))], (400, 400))
    assert boxes_of(found) == [(0, *long), (0, *small)]
    whole = found.seen[: found.n_seen[0]].tolist()
    assert whole[0] == [4, 0, 0]


def one_box(tile, box, score=0.5, label=0):
    return Seen(tile, label, np.array(box)[RECTANGLE], score)


@pytest.mark.parametrize(("asked", "n"), [(True, 0), (False, 1)])
def test_a_box_that_its_owner_does_not_see_is_dropped_unless_the_owner_was_not_asked(asked, n):
    tiles = tiles_of(TileGrid(50, 100, 50, 20), asked=lambda tile, label: tile != (1, 0, 1) or asked)
    seen = [one_box((1, 0, 0), (51.0, 10.0, 59.0, 20.0))]
    assert len(merged([band_of(tiles, seen)], (50, 100))) == n


def test_what_a_tile_says_twice_is_one_thing_and_neighbours_are_two():
    tiles = tiles_of(TileGrid(50, 50, 50))
    twice = [one_box((1, 0, 0), (10.0, 10.0, 30.0, 30.0)), one_box((1, 0, 0), (10.0, 10.0, 30.0, 30.5), 0.7)]
    assert merged([band_of(tiles, twice)], (50, 50)).score.tolist() == [pytest.approx(0.7)]
    neighbours = [one_box((1, 0, 0), (10.0, 10.0, 30.0, 30.0)), one_box((1, 0, 0), (10.0, 16.0, 30.0, 36.0))]
    assert len(merged([band_of(tiles, neighbours)], (50, 50))) == 2


def test_a_box_has_one_partner_in_another_tile_the_one_it_agrees_with_best():
    tiles = tiles_of(TileGrid(50, 100, 50, 40))
    two = [one_box((1, 0, 0), (32.0, 10.0, 52.0, y), score=0.6) for y in (30.0, 36.0)]
    found = merged([band_of(tiles, [*two, one_box((1, 0, 1), (32.0, 10.0, 52.0, 31.0), 0.9)])], (50, 100))
    assert boxes_of(found) == [(0, 32.0, 10.0, 52.0, 30.0), (0, 32.0, 10.0, 52.0, 36.0)]
    assert found.n_seen[np.argmax(found.score)] == 2
    assert found.corners[np.argmax(found.score), :, 1].max() == 30


def test_a_piece_that_fits_two_boxes_joins_the_one_that_goes_on_least():
    tiles = tiles_of(TileGrid(50, 200, 50, 40))
    piece = one_box((1, 0, 0), (70.0, 10.0, 90.0, 20.0), 0.9)  # ends where its window does
    both = [one_box((1, 0, 1), (70.0, 10.0, x, 20.0), 1 - x / 200) for x in (96.0, 115.0)]
    found = merged([band_of(tiles, [piece, *both])], (50, 200))
    assert sorted(zip(found.corners[:, :, 0].max(axis=1), found.n_seen, strict=True)) == [(96.0, 2), (115.0, 1)]


def test_the_owner_draws_the_box_and_all_that_can_judge_it_score_it():
    tiles = tiles_of(TileGrid(50, 100, 50, 40))
    owner, other = (1, 0, 1), (1, 0, 0)
    seen = [one_box(owner, (48.0, 10.0, 68.0, 20.0), 0.4), one_box(other, (47.0, 10.0, 67.0, 20.0), 0.8)]
    found = merged([band_of(tiles, seen)], (50, 100))
    assert boxes_of(found) == [(0, 48.0, 10.0, 68.0, 20.0)]
    assert (found.score.tolist(), found.logprob.tolist()) == ([pytest.approx(0.6)], [pytest.approx(-0.4)])
    assert found.seen.tolist() == [list(owner), list(other)]


@pytest.mark.parametrize(
    ("left", "asked", "score"),
    [
        (75.0, True, 0.4),  # the other window, which ends at 90, shows 15 of 20 pixels
        (77.0, True, 0.8),  # 13 of 20
        (75.0, False, 0.8),  # it was not asked: its silence says nothing
    ],
)
def test_silence_of_a_tile_that_shows_a_thing_speaks_against_it(left, asked, score):
    tiles = tiles_of(TileGrid(50, 200, 50, 40), asked=lambda tile, label: tile != (1, 0, 0) or asked)
    tiles = take(tiles, tiles.tile[:, 2] < 2)
    found = merged([band_of(tiles, [one_box((1, 0, 1), (left, 10.0, left + 20, 20.0), 0.8)])], (50, 200))
    assert found.score.tolist() == [pytest.approx(score)]


def test_a_tile_without_a_probability_says_nothing():
    tiles = tiles_of(TileGrid(50, 100, 50, 40))
    box = (48.0, 10.0, 68.0, 20.0)
    both = [one_box((1, 0, col), box, score) for col, score in ((0, np.nan), (1, 0.8))]
    assert merged([band_of(tiles, both)], (50, 100)).score.tolist() == [pytest.approx(0.8)]
    assert np.isnan(merged([band_of(tiles, both[:1])], (50, 100)).score).all()


def test_a_coarse_tile_says_nothing_of_what_it_is_not_asked_for():
    """Small things are left to the finer pass, so the silence of the coarser one is none."""
    grid = TileGrid(400, 400, 50, 10)
    small = one_box((1, 2, 2), (110.0, 110.0, 130.0, 130.0), 0.8)
    assert merged([band_of(two_passes(grid, 4), [small])], (400, 400)).score.tolist() == [pytest.approx(0.8)]


def test_other_labels_stay_apart():
    tiles = tiles_of(TileGrid(50, 50, 50))
    seen = [one_box((1, 0, 0), (10.0, 10.0, 30.0, 30.0), label=label) for label in (0, 1)]
    assert merged([band_of(tiles, seen)], (50, 50)).label.tolist() == [0, 1]


def test_turned_pieces_make_a_box_along_the_largest():
    """A road 20 degrees off the rows of pixels, over two tiles of which none sees it whole."""
    tiles = tiles_of(TileGrid(200, 200, 100, 20))
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))

    def road(start, end):
        return np.array([[start, -2], [start, 2], [end, 2], [end, -2]]) @ [[cos, sin], [-sin, cos]] + (40, 30)

    to_the_edge, from_the_edge = (80 - 2 * sin) / cos, (40 + 2 * sin) / cos
    seen = [Seen((1, 0, 0), 0, road(0, to_the_edge)), Seen((1, 0, 1), 0, road(from_the_edge, 130))]
    found = merged([band_of(tiles, seen)], (200, 200))
    assert len(found) == 1
    assert shapely.Polygon(found.corners[0]).symmetric_difference(shapely.Polygon(road(0, 130))).area < 1e-6
    assert found.seen.tolist() == [[1, 0, 0], [1, 0, 1]]
