from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rsqa.errors import SourceMissing
from rsqa.train import words
from rsqa.train.data import (
    CLASS_NAMES,
    IGNORE,
    Batches,
    Picture,
    PictureSet,
    blended,
    by_token,
    facts_in,
    hints,
    packed,
    part_of,
    read_parquet,
    view,
)
from rsqa.train.sft import NANO_STYLE
from rsqa.train.turns import Asker, Facts, Turn


def words_as_ids(text):
    """One id per character: a tokenizer whose spans can be counted by eye."""
    return [ord(c) for c in text]


END = 1
NO_GROUND = torch.zeros((4, 4, len(words.GROUND)), dtype=torch.uint8)


def nothing_known(n):
    return hints([Facts()] * n, [NO_GROUND] * n)


def test_labels_cover_exactly_the_answer_and_the_end():
    turns = [[Turn("ask?", "yes", "a"), Turn("how many?", "12", "b")]]
    batch = packed(torch.zeros(1, 3, 4, 4), nothing_known(1), turns, words_as_ids, END, 40)
    for number, turn in enumerate(turns[0]):
        here = batch.turn[0] == number
        ids, labels = batch.ids[0, here].tolist(), batch.labels[0, here].tolist()
        assert ids == words_as_ids(turn.suffix + turn.answer)
        # The last token of the question predicts the first of the answer, the last of the answer the end.
        assert labels == [IGNORE] * (len(turn.suffix) - 1) + [*words_as_ids(turn.answer), END]
        assert batch.depth[0, here].tolist() == list(range(len(ids)))
    padding = batch.turn[0] == -1
    assert (batch.labels[0, padding] == IGNORE).all()
    assert batch.kind.tolist() == [["a", "b"]]


def test_turns_that_do_not_fit_are_left_out_whole():
    turns = [[Turn("q", "yes", "short"), Turn("x" * 50, "yes", "long"), Turn("r", "no", "short")]]
    batch = packed(torch.zeros(1, 3, 4, 4), nothing_known(1), turns, words_as_ids, END, 20)
    assert batch.ids.shape == (1, 20)
    assert batch.kind.tolist() == [["short", "short"]]


def test_hints_tell_unknown_from_absent():
    known = Facts(present=frozenset({"river"}), absent=frozenset({"ship"}), name="river")
    told = hints([known, Facts()], [NO_GROUND, NO_GROUND])
    said = dict(zip(words.NOUNS, told.nouns[0].tolist(), strict=True))
    assert (said["river"], said["ship"], said["trees"]) == (1, 0, -1)
    assert CLASS_NAMES[told.scene[0]] == "river"
    assert (told.nouns[1] == -1).all()
    assert told.scene[1] == IGNORE


def test_ground_turns_with_the_picture():
    """A bright cell has a kind of its own; wherever it goes, its ground goes too."""
    side, cell = 56, 7
    pixels = np.zeros((3, side, side), np.uint8)
    pixels[:, cell : 2 * cell, 3 * cell : 4 * cell] = 200
    ground = np.zeros((side // cell, side // cell, len(words.GROUND)), np.uint8)
    ground[..., 0] = 255
    ground[1, 3] = np.eye(len(words.GROUND), dtype=np.uint8)[5] * 255
    places = set()
    for seed in range(60):
        picture = Picture("p", pixels, Facts(), whole=True, ground=ground)
        seen = view(picture, 1.0, 0.0, side, np.random.default_rng(seed))
        bright = seen.chip[0].reshape(side // cell, cell, side // cell, cell).mean(dim=(1, 3)).argmax()
        assert int(seen.ground[..., 5].flatten().argmax()) == int(bright)
        # The same cell among those of its visual token.
        token, inside = (by_token(seen.ground[None])[0, ..., 5] == 1).nonzero()[0].tolist()
        row, col = divmod(token, 2)
        down, right = divmod(inside, 4)
        assert (4 * row + down) * 8 + 4 * col + right == int(bright)
        places.add(int(bright))
    assert len(places) == 8


def test_parts_follow_the_documented_rule():
    for i in range(500):
        name = f"picture{i}.jpg"
        place = zlib.crc32(name.encode()) % 100
        assert (part_of(name) == "validation") == (place < 15)
        assert (part_of(name) == "train") == (place >= 18)


@pytest.fixture
def data(tmp_path):
    """A data folder of AID alone, whose pictures hold their own number."""
    rows = []
    for i in range(120):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (i, i, i)).save(stream, "PNG")
        rows.append({"id": f"{i}.jpg", "image": stream.getvalue(), "cls": "Forest", "captions": ["Trees ."]})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "aid.parquet")
    return tmp_path


def test_validation_pictures_are_never_drawn_for_training(data):
    parts = {part: {p.id for p in read_parquet(data, "aid", part)} for part in ("train", "calibration", "validation")}
    assert sum(len(ids) for ids in parts.values()) == 120
    assert len(set.union(*parts.values())) == 120
    train = read_parquet(data, "aid", "train")
    held = {int(name.split(".")[0]) for part in ("validation", "calibration") for name in parts[part]}
    batches = Batches([PictureSet.of("aid", train)], [1.0], Spelling(), Asker(NANO_STYLE), 28, 200)
    seen = set()
    for step in range(20):
        pixels = batches.train((0, step, 0), 32, 8, 0.6, 0.0, 0.0).pixels
        seen |= set(pixels[:, 0, 0, 0].round().int().tolist())
    assert seen.isdisjoint(held)
    assert len(seen) > len(train) * 0.9


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(SourceMissing, match="--data"):
        read_parquet(tmp_path, "ucm", "train")


class Spelling:
    """A tokenizer by characters."""

    def encode(self, text, add_special_tokens):
        return words_as_ids(text)

    def convert_tokens_to_ids(self, token):
        return END


def test_a_batch_is_a_function_of_its_seed(data):
    batches = Batches(
        [PictureSet.of("aid", read_parquet(data, "aid", "train"))], [1.0], Spelling(), Asker(NANO_STYLE), 28, 200
    )
    first, again, other = (batches.train(seed, 8, 4, 0.6, 0.2, 0.5) for seed in ((0, 3, 0), (0, 3, 0), (0, 4, 0)))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.pixels, other.pixels)


def boxed_picture():
    """Ships at known centres on a picture whose pixels hold their own row and column."""
    rows, cols = np.mgrid[0:112, 0:112].astype(np.uint8)
    objects = (("ship", 10.0, 10.0), ("ship", 90.0, 90.0), ("airplane", 10.0, 90.0))
    return Picture("p", np.stack([rows, cols, rows]), Facts(), objects, frozenset({"ship", "airplane", "bridge"}))


def test_boxes_count_when_their_centre_is_inside_the_crop():
    picture = boxed_picture()
    upper_left = facts_in(picture, (0, 0, 50, 50))
    assert upper_left.counts == {"ship": 1}
    assert upper_left.present == {"ship"}
    assert upper_left.absent == {"airplane", "bridge"}
    assert facts_in(picture, None).counts == {"ship": 2, "airplane": 1}


def test_a_view_shows_the_window_that_its_facts_are_about():
    picture = boxed_picture()
    for seed in range(60):
        seen = view(picture, 0.4, 0.0, 56, np.random.default_rng(seed))
        chip, facts = seen.chip, seen.facts
        top, left = float(chip[0].min()), float(chip[1].min())
        bottom, right = float(chip[0].max()), float(chip[1].max())
        for noun, row, col in picture.objects:
            margin = 3  # pixels of the filter
            if top + margin < row < bottom - margin and left + margin < col < right - margin:
                assert noun in facts.present
            if row < top - margin or row > bottom + margin or col < left - margin or col > right + margin:
                assert facts.counts.get(noun, 0) < sum(n == noun for n, *_ in picture.objects)


def test_upright_views_are_whole_and_unturned():
    picture = boxed_picture()
    upright = 0
    for seed in range(100):
        seen = view(picture, 0.6, 0.0, 112, np.random.default_rng(seed))
        if seen.upright:
            upright += 1
            assert torch.equal(seen.chip, torch.from_numpy(picture.pixels).float())
    assert upright > 2


def test_blending_keeps_the_main_picture():
    pixels = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 4, 4) * 10
    assert torch.equal(blended(pixels, 0.0, np.random.default_rng(0)), pixels)
    mixed = blended(pixels, 1.0, np.random.default_rng(0))
    assert ((mixed - pixels).abs() <= 0.35 * 70 + 1e-3).all()
    assert not torch.equal(mixed, pixels)


def test_ucm_labels_outrank_the_class(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    asked = [{"question": "How many cars in the picture?", "answer": "twenty-eight"},
             {"question": "How many trees in the picture?", "answer": "several"},
             {"question": "Does this picture contain trees?", "answer": "no"},
             {"question": "What is the location of the cars in this picture?", "answer": "left"}]  # fmt: skip
    row = {
        "id": "17.jpg",
        "image": stream.getvalue(),
        "cls": "airplane",
        "labels": ["cars"],
        "captions": [],
        "vqa": json.dumps(asked),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "ucm.parquet")
    facts = read_parquet(tmp_path, "ucm", part_of("17.jpg"))[0].facts
    assert "airplane" in facts.absent
    assert "cars" in facts.present
    assert "airport" in facts.present
    assert facts.asked == (("Does this picture contain trees?", "no"),)
    assert facts.asked_upright == (
        ("How many cars in the picture?", "28"), ("What is the location of the cars in this picture?", "left"),
    )  # fmt: skip
