"""Scores with their intervals. N items, G groups (pictures or scenes) that items belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Score:
    """One line of a report."""

    name: str
    n: int
    accuracy: float
    low: float
    """95 % interval, resampled by picture (procedural: by scene)."""
    high: float
    constant: float
    """Accuracy of the best constant answer per question."""
    no_image: float
    """Accuracy of the same model when every pixel is mid-grey."""
    bar: float | None = None
    """What it must reach; None: reported only."""
    note: str = ""
    by_question: tuple[tuple[str, float], ...] = ()
    """(question, accuracy) where a set asks a few questions of many pictures."""

    @property
    def met(self) -> bool:
        """Whether the bar is reached; true without one."""
        return self.bar is None or self.accuracy >= self.bar


def interval(right: NDArray[np.bool_], group: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """(N,) hits and the group of each -> bounds of the 95 % bootstrap interval, whole groups drawn with replacement."""
    names, member = np.unique(np.asarray(group), return_inverse=True)
    hits = np.bincount(member, weights=right, minlength=len(names))
    sizes = np.bincount(member, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    shares = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def constant_accuracy(
    question: Sequence[str], gold: Sequence[str], fit_question: Sequence[str], fit_gold: Sequence[str]
) -> float:
    """Accuracy of always giving the answer that is most frequent for a question text where it was fitted."""
    counts: dict[str, dict[str, int]] = {}
    for text, answer in zip(fit_question, fit_gold, strict=True):
        seen = counts.setdefault(text, {})
        seen[answer] = seen.get(answer, 0) + 1
    favourite = {text: max(sorted(seen), key=lambda answer: seen[answer]) for text, seen in counts.items()}
    return float(np.mean([favourite.get(text) == answer for text, answer in zip(question, gold, strict=True)]))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over `bins` bins of equal size."""
    order = np.argsort(confidence, kind="stable")
    pieces = [piece for piece in np.array_split(order, bins) if len(piece)]
    return float(sum(abs(confidence[p].mean() - right[p].mean()) * len(p) for p in pieces) / len(order))


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
