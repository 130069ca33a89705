"""Batches of conversations: every record once an epoch, one size a batch, the same again after a resume."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rsqa.engines.cards import CARDS
from rsqa.engines.preprocess import resample
from rsqa.errors import RecipeError
from rsqa.train import conversation_batches
from rsqa.train.conversation_batches import ConversationBatches, Steps
from rsqa.train.conversations import read_conversations
from rsqa.train.packing import IGNORE

NATIVE = CARDS["tinyrs"].model_side
SIZES = [(56, 56), (60, 57), (56, 84), (30, 100)]
SHAPES = {(56, 56), (56, 84), (28, 112)}
"""What the model sees of them: each side the nearest multiple of 28."""


def spell(text):
    """A token per character: a record's words can be read again from its tokens."""
    return [ord(letter) for letter in text]


def read(ids):
    return "".join(chr(i) for i in ids)


def answers_of(text, row):
    """The learned words of a row, one string per chain: what is predicted at its labels."""
    labels, turn = text.labels[row], text.turn[row]
    found = [read(labels[(turn == t) & (labels != IGNORE)].tolist()) for t in range(int(turn.max()) + 1)]
    return [answer for answer in found if answer]


def answers(text):
    return [answer for row in range(len(text.ids)) for answer in answers_of(text, row)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (*SIZES[number % 4], 3), np.uint8)).save(root / f"{number}.png")
    return root


def conversations(folder, name, drawn):
    """A file of records; `drawn` are (number of the picture or None, length of the answer)."""
    records = []
    for number, (shown, n) in enumerate(drawn):
        answer = f"{name}{number}" + "." * n
        turns = [
            {"from": "human", "value": "<image>\n" * (shown is not None) + "What?"},
            {"from": "gpt", "value": answer},
        ]
        records.append({"conversations": turns} | ({} if shown is None else {"image": f"{shown}.png"}))
    file = folder / f"{name}.json"
    file.write_text(json.dumps(records))
    return read_conversations(file, folder, skip_bad=False)


def epoch(batches, steps, start=0, end=None):
    """All batches of an epoch in the order of steps, processes and micro batches."""
    for step in range(start, batches.n_steps(1) if end is None else end):
        for rank in range(steps.ranks):
            for micro in range(steps.accumulate):
                yield batches.batch(step, micro, rank)


DRAWN = st.lists(st.tuples(st.none() | st.integers(0, 7), st.integers(0, 60)), min_size=1, max_size=25)
STEPS = st.builds(
    Steps, seed=st.integers(0, 9), micro=st.integers(1, 5), accumulate=st.integers(1, 3), ranks=st.integers(1, 3),
    pack=st.booleans(),
)  # fmt: skip


@settings(max_examples=30)
@given(drawn=DRAWN, steps=STEPS, form=st.sampled_from(["sft", "chat"]))
def test_every_record_once_an_epoch(folder, drawn, steps, form):
    source = conversations(folder, "r", drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation_batches, "WINDOW", 2)
        patch.setattr(conversation_batches, "PACKED_CHARS", 100)
        batches = ConversationBatches([source], [1], spell, 0, NATIVE, steps, form)
        seen = list(epoch(batches, steps))
    end = "\n<|im_end|>\n" if form == "sft" else "<|im_end|>"
    expected = Counter(f"r{number}" + "." * n + end for number, (_, n) in enumerate(drawn))
    assert Counter(answer for _, _, text in seen for answer in answers(text)) == expected
    assert len(seen) == batches.n_steps(1) * steps.micros
    for pixels, frame, text in seen:
        assert 1 <= len(text.ids) <= steps.micro
        assert (pixels is None) == (not frame.after)
        if pixels is not None:
            assert pixels.dtype == torch.uint8
            assert len(pixels) == len(text.ids)
            assert tuple(pixels.shape[2:]) in SHAPES


@settings(max_examples=20)
@given(drawn=DRAWN, steps=STEPS)
def test_the_picture_of_a_row_is_that_of_its_texts(folder, drawn, steps):
    source = conversations(folder, "r", drawn)
    seen = list(epoch(ConversationBatches([source], [1], spell, 0, NATIVE, steps, "chat"), steps))
    for pixels, _, text in seen:
        for row in range(len(text.ids)):
            shown = {drawn[int(a[1:].split(".")[0].split("<")[0])][0] for a in answers_of(text, row)}
            assert len(shown) <= 1 or not steps.pack
            for number in shown - {None}:
                native = np.asarray(Image.open(folder / f"{number}.png")).transpose(2, 0, 1).copy()
                expected = resample(torch.from_numpy(native)[None], NATIVE(*native.shape[1:]))[0]
                assert torch.equal(pixels[row], expected)


def test_a_resumed_run_sees_what_it_would_have_seen(folder):
    source = conversations(folder, "r", [(i % 8, i) for i in range(40)])
    steps = Steps(seed=3, micro=3, accumulate=2, ranks=2, pack=True)
    whole = ConversationBatches([source], [1], spell, 0, NATIVE, steps)
    end = whole.n_steps(3)
    straight = [text.ids.tolist() for _, _, text in epoch(whole, steps, 0, end)]
    again = ConversationBatches([source], [1], spell, 0, NATIVE, steps)
    resumed = [text.ids.tolist() for _, _, text in epoch(again, steps, end // 2, end)]
    assert straight[end // 2 * steps.micros :] == resumed
    other = ConversationBatches([source], [1], spell, 0, NATIVE, Steps(4, 3, 2, 2, True))
    assert straight[: len(resumed)] != [text.ids.tolist() for _, _, text in epoch(other, steps, 0, end)][: len(resumed)]


def test_epochs_differ_in_order_and_not_in_content(folder):
    source = conversations(folder, "r", [(i % 8, 0) for i in range(40)])
    steps = Steps(seed=0, micro=4)
    batches = ConversationBatches([source], [1], spell, 0, NATIVE, steps)
    n = batches.n_steps(1)
    first, second = (
        [a for _, _, t in epoch(batches, steps, s, e) for a in answers(t)] for s, e in ((0, n), (n, 2 * n))
    )
    assert first != second
    assert sorted(first) == sorted(second)


def test_packing_sees_a_picture_once(folder):
    source = conversations(folder, "r", [(i % 2 * 2, 0) for i in range(40)])  # two pictures of two shapes
    packed = ConversationBatches([source], [1], spell, 0, NATIVE, Steps(0, micro=8, pack=True))
    single = ConversationBatches([source], [1], spell, 0, NATIVE, Steps(0, micro=8))
    assert [sum(len(p) for p, _, _ in epoch(b, b.steps)) for b in (packed, single)] == [2, 40]
    assert [len(answers(t)) for _, _, t in epoch(packed, packed.steps)] == [20, 20]


def test_long_rows_of_a_picture_are_cut(folder, monkeypatch):
    monkeypatch.setattr(conversation_batches, "PACKED_CHARS", 50)
    source = conversations(folder, "r", [(0, 17)] * 10)  # 5 + 19 characters each
    batches = ConversationBatches([source], [1], spell, 0, NATIVE, Steps(0, micro=8, pack=True))
    ((_, _, text),) = epoch(batches, batches.steps)
    assert sorted(len(answers_of(text, row)) for row in range(len(text.ids))) == [1, 2, 2, 2, 3]


def test_rows_of_a_batch_have_near_lengths(folder):
    rng = np.random.default_rng(0)
    source = conversations(folder, "r", [(0, int(n)) for n in rng.integers(0, 400, 128)])
    steps = Steps(0, micro=8)
    batches = ConversationBatches([source], [1], spell, 0, NATIVE, steps)
    read_tokens = [(text.turn >= 0).float().mean().item() for _, _, text in epoch(batches, steps)]
    assert np.mean(read_tokens) > 0.9  # in random order it is about 0.6


@pytest.mark.parametrize(("weight", "times"), [(3, [3] * 10), (0.5, [0.5] * 10), (1.5, [1.5] * 10), (0.3, [0.3] * 10)])
def test_weights_say_how_often_records_are_seen(folder, weight, times):
    first, second = (conversations(folder, name, [(i % 8, 0) for i in range(10)]) for name in "ab")
    steps = Steps(seed=0, micro=4)
    batches = ConversationBatches([first, second], [1, weight], spell, 0, NATIVE, steps)
    seen = Counter(a for _, _, t in epoch(batches, steps, 0, batches.n_steps(10)) for a in answers(t))
    counts = [seen[f"{name}{i}\n<|im_end|>\n"] / 10 for name in "ab" for i in range(10)]
    assert counts == [1.0] * 10 + times


def test_what_is_missing_to_a_step_has_no_label(folder):
    source = conversations(folder, "r", [(0, 0)] * 5)
    steps = Steps(seed=0, micro=1, accumulate=2, ranks=2)
    batches = ConversationBatches([source], [1], spell, 0, NATIVE, steps)
    assert batches.n_steps(1) == 2
    learned = [text.n_learned for _, _, text in epoch(batches, steps)]
    assert [n > 0 for n in learned] == [True] * 5 + [False] * 3


@pytest.mark.parametrize("weights", [[], [1, 1], [0], [-1]])
def test_weights_that_make_no_sense(folder, weights):
    source = conversations(folder, "r", [(0, 0)])
    with pytest.raises(RecipeError, match="1 files of conversations with weights"):
        ConversationBatches([source], weights, spell, 0, NATIVE, Steps(0, 1))
