from __future__ import annotations

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st

from rsqa.tasks.boxes import (
    BOX_FORMATS,
    SaidBoxes,
    corners,
    format_boxes,
    iou,
    parse_boxes,
    pixel_corners,
    read_boxes,
    upright_boxes,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[100,200,300,400]]", ((0.1, 0.2, 0.3, 0.4),)),
        ("The plane is at [[100, 200, 300, 400]].\n", ((0.1, 0.2, 0.3, 0.4),)),
        ("[100 200 300 400]", ((0.1, 0.2, 0.3, 0.4),)),
        ("[[0,0,10,10],[20,20,30,30]]", ((0, 0, 0.01, 0.01), (0.02, 0.02, 0.03, 0.03))),
        ("[[0,0,2000,999999999]]", ((0, 0, 1, 1),)),
        ("[[-5,0,10,10]]", ((0, 0, 0.01, 0.01),)),
        ("[[300,200,100,400]]", ()),
        ("[[100,200,100,400]]", ()),
        ("[[1,2,3]]", ()),
        ("[[1.5,2,3,4]]", ()),
        ("[]", ()),
        ("", ()),
        ("no", ()),
    ],
)
def test_parse_boxes(text, expected):
    assert parse_boxes(text) == expected


BOX = (0.1, 0.2, 0.3, 0.4)
SMALL = (0.01, 0.02, 0.03, 0.04)


@pytest.mark.parametrize(
    ("box_format", "text", "boxes", "malformed"),
    [
        ("tinyrs", "[[100,200,300,400],[10,20,30,40]]", (BOX, SMALL), 0),
        ("tinyrs", "[[100,200,300,400],[1,2,3],[3,2,1,4],[x,2]]", (BOX,), 3),
        ("tinyrs", "[[100,200,300,400],[10,20,30,4", (BOX,), 1),
        ("tinyrs", "[] [here] there", (), 0),
        ("tinyrs", "<|box_start|>(100,200),(300,400)<|box_end|>", (), 0),
        ("qwen2vl", "<|box_start|>(100,200),(300,400)<|box_end|>", (BOX,), 0),
        ("qwen2vl", "the ship(100, 200), (300, 400)\nthe other(10,20),(30,40)", (BOX, SMALL), 0),
        ("qwen2vl", "(a large one) (100,200),(300,400) (10,20), (10,20),(10,40) (1,2,3),(4,5)", (BOX,), 3),
        ("qwen2vl", "(100,200),(300,400)(10,20),(30,4", (BOX,), 1),
        ("qwen2vl", "[[100,200,300,400]]", (), 0),
        ("geochat", "<p>a ship</p> {<10><20><30><40>|<0>}<delim>{<1><2><3><4>}", (BOX, SMALL), 0),
        ("geochat", "{<10><20><30><40>|<0>}{<10><20><30>|<0>}{<30><20><10><40>|<0>}{<1><2><3><4>|<9", (BOX,), 3),
        ("geochat", "{} {ship} [[10,20,30,40]]", (), 0),
        ("geochat", "{<10><20><30><40>|<0>}{<-5><0><200><999999999>|<0>}", (BOX, (0, 0, 1, 1)), 0),
    ],
)
def test_read_boxes(box_format, text, boxes, malformed):
    assert read_boxes(text, box_format) == SaidBoxes(boxes, (0.0,) * len(boxes), malformed)


def test_angles():
    said = read_boxes("{<20><40><60><60>|<30>}{<20><40><60><60>|<-90>}{<20><40><60><60>|<450>}", "geochat")
    assert said.turns == (30, 270, 90)


words = st.text() | st.lists(
    st.sampled_from(["[", "]", "(", ")", "{", "}", "<", ">", "|", ",", " ", "1", "23", "-", "²", "٣"])
).map("".join)


@given(words, st.sampled_from(BOX_FORMATS))
def test_no_text_makes_it_raise(text, box_format):
    said = read_boxes(text, box_format)
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in said.boxes)
    assert len(said.turns) == len(said.boxes)
    assert said.malformed >= 0
    assert corners(said).shape == (len(said.boxes), 4, 2)
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in upright_boxes(said))


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@pytest.mark.parametrize("piece", ["[", "(", "{", "[1,", "(1,1),", "{<1>", "1", " ", "[ " * 2])
def test_long_nonsense_is_read_at_once(box_format, piece):
    """Time grows with the length of a text, not with its square: that would be minutes here."""
    assert not read_boxes(piece * 50_000, box_format).boxes


numbers = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 100), st.integers(1, 100))


@given(st.lists(numbers), st.lists(numbers, max_size=3))
def test_each_format_reads_its_own(first, second):
    found = [tuple(v / 100 for v in n) for n in first + second if n[0] < n[2] and n[1] < n[3]]
    for box_format, pattern, scale in (
        ("tinyrs", "[{0},{1},{2},{3}]", 10),
        ("qwen2vl", "<|box_start|>({0},{1}),({2},{3})<|box_end|>", 10),
        ("geochat", "{{<{0}><{1}><{2}><{3}>|<0>}}", 1),
    ):
        text = " and ".join(pattern.format(*(v * scale for v in n)) for n in first + second)
        said = read_boxes(text, box_format)
        assert said.boxes == tuple(found)
        assert said.malformed == len(first + second) - len(found)


@given(numbers.filter(lambda n: n[0] < n[2] and n[1] < n[3]), st.integers(-360, 360), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_turn_is_that_of_shapely_in_pixels(box, angle, aspect):
    """y runs down in a picture: what is clockwise there is counter-clockwise, so positive, for x and y."""
    x1, y1, x2, y2 = box
    (turned,) = corners(read_boxes(f"{{<{x1}><{y1}><{x2}><{y2}>|<{angle}>}}", "geochat"), aspect)
    pixels = shapely.affinity.rotate(shapely.box(x1, y1 * aspect, x2, y2 * aspect), angle, origin="center")
    expected = shapely.affinity.scale(pixels, 0.01, 0.01 / aspect, origin=(0, 0))
    assert shapely.Polygon(turned).symmetric_difference(expected).area < 1e-9


def test_corners_go_around_from_the_upper_left():
    (box,) = corners(SaidBoxes((BOX,), (0.0,)))
    assert box.tolist() == [[0.1, 0.2], [0.1, 0.4], [0.3, 0.4], [0.3, 0.2]]
    (turned,) = corners(SaidBoxes(((0.2, 0.4, 0.6, 0.6),), (90.0,)))
    assert np.allclose(turned, [[0.5, 0.3], [0.3, 0.3], [0.3, 0.7], [0.5, 0.7]])


corner = st.integers(0, 999)


@st.composite
def boxes(draw):
    x1, y1 = draw(corner), draw(corner)
    return (x1 / 1000, y1 / 1000, draw(st.integers(x1 + 1, 1000)) / 1000, draw(st.integers(y1 + 1, 1000)) / 1000)


@given(st.lists(boxes()))
def test_what_is_written_is_read(written):
    assert parse_boxes(format_boxes(written)) == tuple(written)


@given(boxes(), boxes())
def test_iou_counts_cells(one, other):
    def cells(box):
        x1, y1, x2, y2 = (round(v * 40) for v in box)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    def coarse(box):
        return tuple(round(v * 40) / 40 for v in box)

    a, b = cells(one), cells(other)
    if a and b:
        assert iou(coarse(one), coarse(other)) == pytest.approx(len(a & b) / len(a | b))


def test_a_wrong_box_is_worth_less_than_the_right_one():
    truth = (0.1, 0.1, 0.5, 0.5)
    assert iou(truth, truth) == 1
    assert iou((0.6, 0.6, 0.9, 0.9), truth) == 0
    assert iou((0.1, 0.1, 0.3, 0.5), truth) == pytest.approx(0.5)


def test_boxes_of_a_padded_chip_are_cut_where_the_source_ends():
    said = read_boxes("[[0,0,500,500],[400,400,1000,1000],[600,0,700,100]]", "tinyrs")
    found = pixel_corners(said, (0, 0, 100, 100), (80, 60))
    assert [(*box.min(axis=0), *box.max(axis=0)) for box in found] == [(0, 0, 50, 50), (40, 40, 60, 80)]


@given(st.integers(-360, 360), st.integers(1, 400), st.integers(1, 400))
def test_a_turned_box_keeps_its_angle_and_its_sides_in_pixels(angle, width, height):
    said = SaidBoxes(((0.4, 0.3, 0.6, 0.5),), (float(angle % 360),))
    (box,) = pixel_corners(said, (1000.0, 2000.0, 1000.0 + width, 2000.0 + height), (9999, 9999))
    down, right = box[1] - box[0], box[3] - box[0]
    assert np.hypot(*down) == pytest.approx(0.2 * height)
    assert np.hypot(*right) == pytest.approx(0.2 * width)
    assert np.allclose(right, 0.2 * width * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]))
    assert np.allclose(box.mean(axis=0), (1000 + 0.5 * width, 2000 + 0.4 * height))
