"""Whether the prompt of an adapter looks where the asked thing is: on procedural windows, whose truth is known.

N windows, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine
from rsqa.errors import InputError
from rsqa.evaluate.metrics import interval
from rsqa.evaluate.reading import question_of
from rsqa.evaluate.scene_items import PRESENCE_TEXTS
from rsqa.scenes.scene import OBJECTS
from rsqa.tasks.boxes import Box
from rsqa.tasks.question import YES_NO
from rsqa.train.pictures import Picture
from rsqa.train.words import SCENE_NOUNS

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Share:
    """What the block that holds the asked thing has got, over `Looked.n` questions."""

    weight: float
    """Mean of its weight."""
    low: float
    """95 % interval of that, whole windows drawn with return, as `high`."""
    high: float
    most: float
    """Share of questions in which no other block weighs more."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Over the questions "Is there a …?" about things that all lie in one block of their window."""

    n: int
    chance: float
    """Weight of a block when all weigh the same."""
    asked: Share
    shuffled: Share
    """When the weights are those of the other questions about the same window: what a prompt that does not listen to
    the question would give as well."""


def weight_on_things(engine: Engine, windows: Sequence[Picture]) -> Looked:
    """Ask about every kind of thing in every window; all windows have one size.

    InputError when the engine gives no weights, or no thing lies in one block.
    """
    questions = [question_of(PRESENCE_TEXTS[label], "yesno", YES_NO) for label in OBJECTS]
    pixels = np.stack([window.pixels for window in windows])
    replies = engine.prepare(questions, (pixels.shape[2], pixels.shape[3]), AT_ONCE).answer(pixels)
    given = [reply.evidence for reply in replies if reply.evidence is not None]
    if not given:
        raise InputError("the adapter weighs no blocks; name a GRASP adapter")
    weights = np.stack(given, axis=1).astype(np.float64)  # (N, Q, blocks)
    side = isqrt(weights.shape[2])
    places = [
        (i, q, block)
        for i, window in enumerate(windows)
        for q, label in enumerate(OBJECTS)
        if (block := block_of_all(window.facts.of(SCENE_NOUNS[label]), side)) is not None
    ]
    if not places:
        raise InputError(f"no thing lies in one block in any of {len(windows)} windows; render more")
    window, question, block = np.array(places).T
    others = (question[:, None] + np.arange(1, len(OBJECTS))) % len(OBJECTS)
    shuffled = weights[window[:, None], others]  # (n, Q - 1, blocks)
    return Looked(
        len(places), 1 / side**2, _share(weights[window, question][:, None], block, window),
        _share(shuffled, block, window),
    )  # fmt: skip


def block_of_all(boxes: Sequence[Box], side: int) -> int | None:
    """Boxes in shares of a picture that is cut into side x side blocks -> the block that holds all of them, if any."""
    corners = np.array([[(x1, y1), (x2, y2)] for x1, y1, x2, y2 in boxes]).reshape(-1, 2)
    cells = np.unique(np.floor(corners * side).clip(max=side - 1), axis=0)  # (cells, 2) column, row
    return int(cells[0, 1] * side + cells[0, 0]) if len(cells) == 1 else None


def _share(weights: NDArray[np.float64], block: NDArray[np.int64], window: NDArray[np.int64]) -> Share:
    """(n, some questions, blocks), (n,), (n,)."""
    own = np.take_along_axis(weights, block[:, None, None], axis=2)[..., 0]
    mean, most = own.mean(axis=1), (own >= weights.max(axis=2)).mean(axis=1)
    return Share(float(mean.mean()), *interval(mean, window.astype(str).tolist()), float(most.mean()))
