"""What a benchmark is: pictures that are opened when their turn comes, and questions whose answer is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsqa.tasks.question import Question

Measure = Literal["exact", "bucket", "f1", "box", "detect"]
"""exact: the right words; bucket: the right bucket of a count; f1: words shared with the best reference; box: one box
that covers the thing; detect: all boxes of a class, summed up as average precision."""
PixelBox = tuple[float, float, float, float]
"""(x1, y1, x2, y2), pixels of the picture, y down."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is not in memory."""

    id: str
    load: Callable[[], NDArray[np.uint8]]
    """-> (3, H, W); SourceMissing or SourceRefused."""
    group: str
    """What is resampled as one: the picture itself, or the scene that it was cut from."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture, and what is right."""

    picture: str
    """Its id."""
    question: Question
    types: tuple[str, ...]
    """Lines of the report that it counts in; the first one is its own."""
    gold: tuple[str, ...] = ()
    """The right answer, or several captions; empty where boxes are asked for."""
    measure: Measure = "exact"
    boxes: tuple[PixelBox, ...] = ()
    label: str = ""
    """Class of what is to be detected, or whose presence is asked for."""


@dataclass(frozen=True, slots=True)
class ItemSet:
    """Items with their pictures, by id."""

    pictures: Mapping[str, Picture]
    items: tuple[Item, ...]


Tally = Mapping[tuple[str, str], Counter[str]]
"""(type, question text) -> how often each answer is right: all that baselines need of a train split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A test set as its files give it."""

    name: str
    tests: ItemSet
    train: Tally = field(default_factory=dict)
    """Of the train split; types that are not in it are fitted on the test itself, and the report says so."""
    probe: ItemSet | None = None
    """What a linear probe on colours is fitted on, for the types of its items."""
    numeric: frozenset[str] = frozenset()
    """Types that the average without numbers leaves out."""
    bars: Mapping[str, float] = field(default_factory=dict)
    """Type -> what it must reach."""
    files: tuple[Path, ...] = ()
    """Read for questions and answers; their hashes go into the report."""
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason -> items that can be neither right nor wrong, by name. They are in no denominator."""
    notes: tuple[str, ...] = ()


def joined(sets: Iterable[ItemSet]) -> ItemSet:
    """One set; pictures of the same id are the same picture."""
    pictures: dict[str, Picture] = {}
    items: list[Item] = []
    for one in sets:
        pictures |= one.pictures
        items += one.items
    return ItemSet(pictures, tuple(items))


def tally(items: Iterable[Item]) -> dict[tuple[str, str], Counter[str]]:
    """Count right answers by type and question text."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for item in items:
        counts.setdefault((item.types[0], item.question.text), Counter()).update(item.gold)
    return counts


def limited(tests: ItemSet, n_pictures: int, seed: int = 0) -> ItemSet:
    """The items of the first `n_pictures` of a fixed shuffle."""
    asked = sorted({item.picture for item in tests.items})
    kept = {asked[i] for i in np.random.default_rng(seed).permutation(len(asked))[:n_pictures]}
    return ItemSet(
        {name: tests.pictures[name] for name in asked if name in kept},
        tuple(item for item in tests.items if item.picture in kept),
    )
