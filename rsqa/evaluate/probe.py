"""How far colour alone goes: a linear probe on the colour histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsqa.evaluate.items import Item, ItemSet

LEVELS = 8
RIDGE = 1.0


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3, H, W) -> (LEVELS³ + 1,) square roots of the joint colour histogram's shares, and a one."""
    red, green, blue = (pixels // (256 // LEVELS)).astype(np.int64)
    counts = np.bincount(((red * LEVELS + green) * LEVELS + blue).ravel(), minlength=LEVELS**3)
    return np.append(np.sqrt(counts / counts.sum()), 1.0)


def probe_values(fit: ItemSet, test: ItemSet) -> list[str | None]:
    """Ridge regression of each question's answers on `fit` -> the probe's answers to the items of `test`.

    None for types that `fit` does not have. Pictures that can't be opened raise InputError: both sets were read before.
    """
    seen, new = _Features(fit), _Features(test)
    learned: dict[tuple[str, str], list[Item]] = {}
    for item in fit.items:
        learned.setdefault((item.types[0], item.question.text), []).append(item)
    weights = {key: _fitted(seen, items) for key, items in learned.items()}
    values: list[str | None] = []
    for item in test.items:
        golds, w = weights.get((item.types[0], item.question.text), ((), np.empty(0)))
        values.append(golds[int(np.argmax(new[item.picture] @ w))] if golds else None)
    return values


class _Features:
    """Histograms by picture, made when they are asked for."""

    def __init__(self, items: ItemSet) -> None:
        self._items = items
        self._known: dict[str, NDArray[np.float64]] = {}

    def __getitem__(self, picture: str) -> NDArray[np.float64]:
        if picture not in self._known:
            self._known[picture] = histogram(self._items.pictures[picture].load())
        return self._known[picture]


def _fitted(features: _Features, items: list[Item]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """-> (answers, (D, answers) weights): one column per answer, 1 where it is right and 0 elsewhere."""
    golds = tuple(dict.fromkeys(item.gold[0] for item in items))
    x = np.stack([features[item.picture] for item in items])
    y = np.array([[float(gold == item.gold[0]) for gold in golds] for item in items])
    return golds, np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
