"""What answers without a look at the picture are worth: one answer per type, one per question text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rsqa.evaluate.items import Item, Tally, tally
from rsqa.evaluate.scoring import in_shares
from rsqa.tasks.boxes import format_boxes

FOLDS = 10


def constant_values(items: Sequence[Item], sizes: Sequence[tuple[int, int]], train: Tally) -> list[str | None]:
    """The answer that is most often right in the item's type; for boxes the one of median corners.

    Fitted on the train split where that has the type, else on the items themselves. None for detections.
    """
    own = _by_type(tally(items))
    favourites = own | _by_type(train)
    boxes = _median_boxes(items, sizes)
    return [boxes.get(i.types[0]) if i.boxes else _most(favourites.get(i.types[0])) for i in items]


def question_values(items: Sequence[Item], train: Tally) -> list[str | None]:
    """The answer that is most often right to the same words; the type's where they are new. None for boxes.

    Without a train split of the type: fitted on nine tenths of the pictures, asked about the last one, ten times.
    """
    folds = _folds(items)
    counts = tally(items)
    per_fold = [tally(i for i, f in zip(items, folds, strict=True) if f == fold) for fold in range(FOLDS)]
    by_type, fold_by_type = _by_type(counts), [_by_type(one) for one in per_fold]
    trained = _by_type(train)
    values: list[str | None] = []
    for item, fold in zip(items, folds, strict=True):
        type_, key = item.types[0], (item.types[0], item.question.text)
        if item.boxes or item.measure == "detect":
            values.append(None)
        elif type_ in trained:
            values.append(_most(train.get(key)) or _most(trained[type_]))
        else:
            others = counts[key] - per_fold[fold].get(key, Counter())
            values.append(_most(others) or _most(by_type[type_] - fold_by_type[fold].get(type_, Counter())))
    return values


def fitted_on(type_: str, train: Tally) -> str:
    """`train` or `test`."""
    return "train" if any(known == type_ for known, _ in train) else "test"


def _folds(items: Sequence[Item]) -> list[int]:
    """Fold of each item, by the place of its picture among those of its type: neighbours are often of one place."""
    pictures: dict[str, set[str]] = {}
    for item in items:
        pictures.setdefault(item.types[0], set()).add(item.picture)
    place = {type_: {name: i for i, name in enumerate(sorted(names))} for type_, names in pictures.items()}
    return [place[i.types[0]][i.picture] * FOLDS // len(place[i.types[0]]) for i in items]


def _by_type(counts: Tally) -> dict[str, Counter[str]]:
    sums: dict[str, Counter[str]] = {}
    for (type_, _), counter in counts.items():
        sums.setdefault(type_, Counter()).update(counter)
    return sums


def _most(counter: Counter[str] | None) -> str | None:
    """The most frequent, of equals the first in the alphabet."""
    return min(counter, key=lambda answer: (-counter[answer], answer)) if counter else None


def _median_boxes(items: Sequence[Item], sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
    corners: dict[str, list[tuple[float, float, float, float]]] = {}
    for item, size in zip(items, sizes, strict=True):
        if item.measure == "box":
            corners.setdefault(item.types[0], []).append(in_shares(item.boxes[0], size))
    medians = {type_: np.median(np.array(boxes), axis=0) for type_, boxes in corners.items()}
    return {type_: format_boxes([(float(m[0]), float(m[1]), float(m[2]), float(m[3]))]) for type_, m in medians.items()}
