from __future__ import annotations

import numpy as np
import pytest
import torch

from rsqa.train.digits import NEAR, digit_tokens, hundredths, nearly
from rsqa.train.packing import IGNORE, Chain

DIGITS = tuple(range(3, 13))
OTHER, VOCAB = 14, 20


def labels_of(text: str) -> tuple[int, ...]:
    return tuple(DIGITS[int(c)] if c.isdigit() else IGNORE if c == "?" else OTHER for c in text)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("[[120,70,1000,340]]", {3, 15}),  # of 70 nothing but hundredths is written, 1000 is the edge
        ("[[0,0,990,10]]", {7}),
        ("[]", set()),
        ("120", {1}),
        ("??121 12 100", {10}),  # 121 is no multiple of a hundredth
        ("4520", set()),
        ("", set()),
    ],
)
def test_hundredths_are_found(text, places):
    found = hundredths(Chain(labels_of(text), labels_of(text), "box"), DIGITS)
    assert len(found) == len(text)
    assert {place for place, is_one in enumerate(found) if is_one} == places


def test_near_digits_count_by_their_share():
    """Against a sum that is written out, for a digit and beside a label that is none."""
    logprob = torch.randn(3, VOCAB).log_softmax(dim=-1)
    labels = torch.tensor([DIGITS[7], OTHER, DIGITS[0]])
    got = nearly(logprob, labels, DIGITS)
    for row, digit in ((0, 7), (2, 0)):
        wanted = sum(NEAR[digit, k] * logprob[row, DIGITS[k]].item() for k in range(10))
        assert got[row].item() == pytest.approx(wanted, abs=1e-5)


def test_the_true_digit_stays_the_likeliest_and_the_middle_is_best_unseen():
    assert (NEAR.argmax(axis=1) == np.arange(10)).all()
    assert NEAR.sum(axis=1) == pytest.approx(np.ones(10))
    unseen = NEAR.mean(axis=0)
    assert unseen[3:7].min() > max(unseen[:3].max(), unseen[7:].max())


def test_tokens_of_digits():
    assert digit_tokens(lambda text: [ord(text), 99]) == tuple(range(48, 58))
