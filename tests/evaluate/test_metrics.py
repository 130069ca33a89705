from __future__ import annotations

import numpy as np
import pytest

from rsqa.evaluate.metrics import average_interval, calibration_bins, calibration_error, fit_temperature, interval


def test_interval_holds_the_truth_and_widens_when_items_share_a_picture():
    rng = np.random.default_rng(0)
    per_picture = rng.random(60) < 0.7
    right = np.repeat(per_picture, 10).astype(float)
    alone = interval(right, [str(i) for i in range(600)])
    grouped = interval(right, [str(i // 10) for i in range(600)])
    assert alone[0] < right.mean() < alone[1]
    assert grouped[0] < right.mean() < grouped[1]
    # Ten copies of each item tell no more than one: the interval is about sqrt(10) times as wide.
    assert 2.5 < (grouped[1] - grouped[0]) / (alone[1] - alone[0]) < 4.0


def test_interval_is_that_of_whole_groups_drawn_by_hand():
    rng = np.random.default_rng(1)
    group = rng.integers(40, size=300)
    scores = rng.random(300)
    shares = []
    for _ in range(4000):
        drawn = rng.integers(40, size=40)
        shares.append(np.concatenate([scores[group == g] for g in drawn]).mean())
    by_hand = np.quantile(shares, (0.025, 0.975))
    assert interval(scores, [str(g) for g in group]) == pytest.approx(tuple(by_hand), abs=0.004)


def test_average_interval_weighs_types_alike():
    """A small wrong type and a large right one: their mean is a half, whatever their sizes."""
    scores = np.array([0.0] * 20 + [1.0] * 380)
    members = [np.arange(20), np.arange(20, 400)]
    assert average_interval(members, scores, [str(i) for i in range(400)]) == (0.5, 0.5)


def test_an_interval_of_one_picture_is_a_point():
    assert interval(np.array([1.0, 0.0]), ["a", "a"]) == (0.5, 0.5)


def test_calibration_error_of_a_calibrated_and_of_a_boasting_model():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    honest = (rng.random(20_000) < confidence).astype(float)
    assert calibration_error(confidence, honest) < 0.02
    assert calibration_error(np.ones(100), (np.arange(100) < 60).astype(float)) == pytest.approx(0.4)
    assert sum(n for n, _, _ in calibration_bins(confidence, honest)) == 20_000


def test_temperature_is_recovered():
    """Answers drawn from a distribution whose logits were then doubled need a temperature of 2."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = [int(rng.choice(3, p=p)) for p in shares]
    assert fit_temperature(list(2 * logits), gold) == pytest.approx(2.0, abs=0.15)
