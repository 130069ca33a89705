"""Scores with their intervals. N items, G groups (pictures or scenes) that items belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def interval(scores: NDArray[np.float64], group: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """(N,) scores and the group of each -> 95 % bootstrap interval of their mean, whole groups drawn with return."""
    return average_interval([np.arange(len(scores))], scores, group, seed)


def average_interval(
    members: Sequence[NDArray[np.int64]], scores: NDArray[np.float64], group: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """The same for the mean of the means of several sets of items, given by their places; sets may overlap."""
    names, place = np.unique(np.asarray(group), return_inverse=True)
    sums = [np.bincount(place[m], weights=scores[m], minlength=len(names)) for m in members]
    sizes = [np.bincount(place[m], minlength=len(names)) for m in members]
    columns = np.stack([*sums, *sizes], axis=1)  # (G, 2 sets)
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, columns.shape[1]))
    for row in drawn:  # one by one: a table of all draws of many groups would fill the memory
        row[:] = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) @ columns
    total, size = drawn[:, : len(members)], drawn[:, len(members) :]
    shares = np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)
    means = np.nanmean(shares[~np.isnan(shares).all(axis=1)], axis=1)  # a draw may miss a small set
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def calibration_bins(
    confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int = 10
) -> tuple[tuple[int, float, float], ...]:
    """-> (items, mean confidence, accuracy) of `bins` parts of equal size, the least confident first."""
    order = np.argsort(confidence, kind="stable")
    pieces = [piece for piece in np.array_split(order, bins) if len(piece)]
    return tuple((len(p), float(confidence[p].mean()), float(right[p].mean())) for p in pieces)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int = 10) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over `bins` bins of equal size."""
    gaps = calibration_bins(confidence, right, bins)
    return sum(abs(sure - hit) * n for n, sure, hit in gaps) / sum(n for n, _, _ in gaps)


def fit_temperature(logprobs: Sequence[NDArray[np.float64]], gold: Sequence[int]) -> float:
    """Log-probabilities of each item's options and the index of the right one -> the temperature of least log loss."""
    candidates = np.exp(np.linspace(np.log(0.4), np.log(4.0), 93))
    losses = []
    for temperature in candidates:
        loss = 0.0
        for options, right in zip(logprobs, gold, strict=True):
            scaled = options / temperature
            top = scaled.max()
            loss += top + np.log(np.exp(scaled - top).sum()) - scaled[right]
        losses.append(loss)
    return round(float(candidates[int(np.argmin(losses))]), 2)
