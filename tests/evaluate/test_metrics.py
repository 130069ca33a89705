from __future__ import annotations

import numpy as np
import pytest

from rsqa.evaluate.metrics import Score, calibration_error, constant_accuracy, fit_temperature, interval


def test_interval_holds_the_truth_and_widens_when_items_share_a_picture():
    rng = np.random.default_rng(0)
    per_picture = rng.random(60) < 0.7
    right = np.repeat(per_picture, 10)
    alone = interval(right, [str(i) for i in range(600)])
    grouped = interval(right, [str(i // 10) for i in range(600)])
    assert alone[0] < right.mean() < alone[1]
    assert grouped[0] < right.mean() < grouped[1]
    # Ten copies of each item tell no more than one: the interval is about sqrt(10) times as wide.
    assert 2.5 < (grouped[1] - grouped[0]) / (alone[1] - alone[0]) < 4.0


def test_constant_answer_is_fitted_per_question():
    fit = (["a", "a", "a", "b"], ["yes", "yes", "no", "no"])
    assert constant_accuracy(["a", "a", "b", "new"], ["yes", "no", "no", "yes"], *fit) == 0.5


def test_calibration_error_of_a_calibrated_and_of_a_boasting_model():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    honest = rng.random(20_000) < confidence
    assert calibration_error(confidence, honest) < 0.02
    assert calibration_error(np.ones(100), np.arange(100) < 60) == pytest.approx(0.4)


def test_temperature_is_recovered():
    """Answers drawn from a distribution whose logits were then doubled need a temperature of 2."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = [int(rng.choice(3, p=p)) for p in shares]
    assert fit_temperature(list(2 * logits), gold) == pytest.approx(2.0, abs=0.15)


def test_a_bar_is_met_or_not():
    line = dict(name="x", n=1, low=0.0, high=1.0, constant=0.5, no_image=0.5)
    assert Score(accuracy=0.7, bar=0.7, **line).met
    assert not Score(accuracy=0.69, bar=0.7, **line).met
    assert Score(accuracy=0.1, **line).met
