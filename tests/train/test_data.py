from __future__ import annotations

import functools
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rsqa.engines.words import Words
from rsqa.errors import SourceMissing
from rsqa.tasks.prompts import END, suffix_text
from rsqa.tasks.question import YES_NO, Question
from rsqa.train import words
from rsqa.train.batch import split
from rsqa.train.data import (
    CLASS_NAMES,
    Batches,
    CaptionWords,
    Looks,
    Phrasing,
    by_token,
    hints,
)
from rsqa.train.facts import Facts
from rsqa.train.nano import NANO_REASONING, NANO_STYLE, nano_card
from rsqa.train.packing import IGNORE, packed
from rsqa.train.parts import part_of
from rsqa.train.pictures import Picture, PictureSet, facts_in, picture_of, read_parquet
from rsqa.train.recipe import Recipe
from rsqa.train.tokenizer import train_tokenizer
from rsqa.train.turns import Turn, TurnShares
from rsqa.train.views import blended, view


def words_as_ids(text):
    """One id per character: a tokenizer whose spans can be counted by eye."""
    return [ord(c) for c in text]


NO_GROUND = torch.zeros((4, 4, len(words.GROUND)), dtype=torch.uint8)
NOBODY_SAID = CaptionWords([])


def turn(text, answer, trace=""):
    return Turn(Question("q", text, "yesno", YES_NO), answer, text, trace)


@pytest.mark.parametrize("style", [NANO_STYLE, NANO_REASONING], ids=["direct", "reasoned"])
def test_labels_cover_exactly_the_answer_and_the_end(style):
    turns = [turn("Is it?", "yes", "because."), turn("Is it not?", "no", "so.")]
    batch = packed([Phrasing(words_as_ids, style).row(turns)], 0)
    for number, one in enumerate(turns):
        here = batch.turn[0] == number
        ids, labels = batch.ids[0, here].tolist(), batch.labels[0, here].tolist()
        asked, answer = suffix_text(one.question, style), one.answer + END
        if style.reasoning:
            answer = f"<reasoning>{one.trace}</reasoning><answer>{one.answer}</answer>{END}"
        assert ids == words_as_ids(asked + answer)[:-1]
        # The last token of the question predicts the first of the answer.
        assert labels == [IGNORE] * (len(asked) - 1) + words_as_ids(answer)
        assert batch.depth[0, here].tolist() == list(range(len(ids)))
    assert batch.kind.tolist() == [["Is it?", "Is it not?"]]


def test_turns_that_do_not_fit_are_left_out_whole():
    rows = [Phrasing(words_as_ids, NANO_STYLE).row([turn("q", "yes"), turn("x" * 300, "yes"), turn("r", "no")])]
    batch = packed(rows, 0, 120)
    assert batch.ids.shape == (1, 120)
    assert batch.kind.tolist() == [["q", "r"]]
    assert (batch.labels[batch.turn == -1] == IGNORE).all()


def test_an_answer_behind_a_reason_is_learned_as_it_is_scored():
    """The engine scores each option from the token that completes `<answer>` on; those tokens must be the learned."""
    tokenizer = train_tokenizer(["<reasoning>so.</reasoning><answer>yes</answer> no assistant user system"] * 50, 600)
    encode = functools.partial(tokenizer.encode, add_special_tokens=False)
    one = turn("Is it?", "yes", "so.")
    card = nano_card(replace(Recipe("x", "cot", steps=1, asked=1), reasoning=0.5), 1)
    learned = [label for label in Phrasing(encode, card.prompt).chain(one).labels if label != IGNORE]
    (scored,) = Words(tokenizer.backend_tokenizer, card).options(one.question, before=">")[0]
    assert learned[-len(scored) - 1 :] == [*scored, tokenizer.convert_tokens_to_ids(END)]


def test_what_has_no_reason_is_not_asked_for_one():
    assert Phrasing(words_as_ids, NANO_REASONING).row([turn("Is it?", "yes")]) == []


def test_hints_tell_unknown_from_absent():
    known = Facts(present=frozenset({"river"}), absent=frozenset({"ship"}), name="river")
    told = hints([known, Facts()], [NO_GROUND, NO_GROUND], NOBODY_SAID)
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
    batches = batches_of(train)
    seen = set()
    for step in range(20):
        pixels = batches.train((0, step, 0), 32, 8, Looks(0.6, 0.0, 0.0)).pixels
        seen |= set(pixels[:, 0, 0, 0].round().int().tolist())
    assert seen.isdisjoint(held)
    assert len(seen) > len(train) * 0.9


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(SourceMissing, match="--data"):
        read_parquet(tmp_path, "ucm", "train")


def batches_of(pictures):
    phrasings = [(Phrasing(words_as_ids, NANO_STYLE), 1.0)]
    return Batches([PictureSet.of("aid", pictures)], [1.0], phrasings, 28, 400, TurnShares(), NOBODY_SAID)


def test_a_batch_is_a_function_of_its_seed(data):
    batches, looks = batches_of(read_parquet(data, "aid", "train")), Looks(0.6, 0.2, 0.5)
    first, again, other = (batches.train(seed, 8, 4, looks) for seed in ((0, 3, 0), (0, 3, 0), (0, 4, 0)))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.text.ids, again.text.ids)
    assert not torch.equal(first.pixels, other.pixels)


def test_a_batch_is_split_without_loss(data):
    whole = batches_of(read_parquet(data, "aid", "train")).train((0, 3, 0), 12, 8, Looks(0.6, 0.2, 0.0))
    pieces = split(whole, 4)
    assert [(len(piece.pixels), len(piece.text.ids)) for piece in pieces] == [(3, 2)] * 4
    order = [0, 1, 8, 2, 3, 9, 4, 5, 10, 6, 7, 11]
    assert torch.equal(torch.cat([piece.pixels for piece in pieces]), whole.pixels[order])
    assert torch.equal(torch.cat([piece.known.nouns for piece in pieces]), whole.known.nouns[order])
    assert torch.equal(torch.cat([piece.text.ids for piece in pieces]), whole.text.ids)
    assert sum(piece.text.n_learned for piece in pieces) == whole.text.n_learned


SIDE = 112
SHIPS = (("ship", (5, 8, 17, 12)), ("ship", (80, 85, 100, 95)), ("airplane", (84, 4, 96, 16)))
"""(noun, (x1, y1, x2, y2)) in pixels."""


def boxed_picture():
    """Things at known places on a picture whose pixels hold their own row and column."""
    rows, cols = np.mgrid[0:SIDE, 0:SIDE].astype(np.uint8)
    boxes = tuple((noun, tuple(v / SIDE for v in box)) for noun, box in SHIPS)
    return Picture(
        "p", np.stack([rows, cols, rows]), Facts(boxes=boxes, boxed=frozenset({"ship", "airplane", "tanks"}))
    )


def test_boxes_count_where_the_crop_shows_them():
    picture = boxed_picture()
    upper_left = facts_in(picture, (0, 0, 50, 50))
    assert upper_left.counts == {"ship": 1}
    assert upper_left.present == {"ship"}
    assert upper_left.absent == {"airplane", "tanks"}
    assert facts_in(picture, None).counts == {"ship": 2, "airplane": 1}
    # Half of a ship is neither there nor gone.
    cut = facts_in(picture, (0, 0, 90, 112))
    assert cut.boxed == {"airplane", "tanks"}
    assert "ship" not in cut.counts
    assert "ship" not in cut.absent


def test_boxes_go_where_their_pixels_go():
    """Every side of every box is where the view shows the row and column that it has in the picture."""
    picture = boxed_picture()
    for seed in range(80):
        seen = view(picture, 0.4, 0.0, 56, np.random.default_rng(seed))
        rows, cols = seen.chip[0].numpy(), seen.chip[1].numpy()
        for noun, (x1, y1, x2, y2) in seen.facts.boxes:
            row, col = (int(min(v * 56, 55)) for v in ((y1 + y2) / 2, (x1 + x2) / 2))
            at = (cols[row, col], rows[row, col])
            inside = [
                name for name, box in SHIPS
                if box[0] - 2 <= at[0] <= box[2] + 2 and box[1] - 2 <= at[1] <= box[3] + 2
            ]  # fmt: skip
            assert inside == [noun]


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


def ucm_row(name, cls, labels, asked=()):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return {"id": name, "image": stream.getvalue(), "cls": cls, "labels": labels, "captions": [],
            "vqa": json.dumps(asked)}  # fmt: skip


def test_ucm_labels_outrank_the_class():
    asked = [{"question": "How many cars in the picture?", "answer": "twenty-eight"},
             {"question": "How many trees in the picture?", "answer": "several"},
             {"question": "Does this picture contain trees?", "answer": "no"},
             {"question": "What is the location of the cars in this picture?", "answer": "left"}]  # fmt: skip
    facts = picture_of("ucm", ucm_row("17.jpg", "airplane", ["cars"], asked)).facts
    assert "airplane" in facts.absent
    assert "cars" in facts.present
    assert "airport" in facts.present
    assert facts.present & frozenset(words.UCM_LABELS) == {"cars"}
    assert facts.asked == (("Does this picture contain trees?", "no"),)
    assert facts.asked_upright == (
        ("How many cars in the picture?", "28"), ("What is the location of the cars in this picture?", "left"),
    )  # fmt: skip


def test_people_call_the_sea_water_and_a_river_no_sea():
    beach = picture_of("ucm", ucm_row("1.jpg", "beach", ["sand", "sea"])).facts
    river = picture_of("ucm", ucm_row("2.jpg", "river", ["trees", "water"])).facts
    assert beach.present >= {"sand", "sea", "water"}
    assert river.present & frozenset(words.UCM_LABELS) == {"trees", "water"}
    assert "sea" in river.absent
    for known in (beach, river):
        assert not known.present & known.absent
        assert frozenset(words.UCM_LABELS) <= known.present | known.absent
