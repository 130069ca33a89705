"""How far colour alone goes: a linear probe on the colour histogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rsqa.evaluate.items import ItemSet

LEVELS = 8
RIDGE = 1.0


def histogram(chip: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3, H, W) -> (LEVELS³ + 1,) square roots of the joint colour histogram's shares, and a one."""
    red, green, blue = (chip // (256 // LEVELS)).astype(np.int64)
    counts = np.bincount(((red * LEVELS + green) * LEVELS + blue).ravel(), minlength=LEVELS**3)
    return np.append(np.sqrt(counts / counts.sum()), 1.0)


def probe_hits(fit: ItemSet, test: ItemSet) -> NDArray[np.bool_]:
    """Ridge regression of yes (+1) and no (-1) per question on `fit` -> (N,) hits on the items of `test`."""
    seen, new = _features(fit.chips), _features(test.chips)
    hits = np.zeros(len(test.items), dtype=np.bool_)
    for text in {item.question.text for item in test.items}:
        rows = [item for item in fit.items if item.question.text == text]
        x = seen[[item.chip for item in rows]]
        y = np.array([1.0 if item.gold == "yes" else -1.0 for item in rows])
        # The dual form is small: items, not colours.
        weights = x.T @ np.linalg.solve(x @ x.T + RIDGE * np.eye(len(x)), y)
        for number, item in enumerate(test.items):
            if item.question.text == text:
                hits[number] = (new[item.chip] @ weights > 0) == (item.gold == "yes")
    return hits


def _features(chips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    return np.stack([histogram(chip) for chip in chips])
