"""What an engine is: prepare once what all tiles share, then answer batches of tiles.

N tiles, Q questions, K options of one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.cards import ModelCard
from rsqa.tasks.question import Question


@dataclass(frozen=True, slots=True)
class Replies:
    """What the model said to one question, a row per tile, in the order of the chips."""

    option_logprob: NDArray[np.float32] | None = None
    """(N, K) natural log of p(option), end token included, over the full vocabulary; None for open questions.
    NaN rows where a reasoning model never reached `<answer>`."""
    text: NDArray[np.object_] | None = None
    """(N,) what was generated, special tokens removed: open answers, and the reasoning of a reasoning model."""
    token_logprob: NDArray[np.float32] | None = None
    """(N,) mean log-probability of the generated tokens, the end token included."""
    finished: NDArray[np.bool_] | None = None
    """(N,) whether the model ended by itself; False: cut at the token budget."""
    evidence: NDArray[np.float32] | None = None
    """(N, blocks) share of each block of the tile in what an adapter told the model for this question, row by row of
    the square that they form; NaN where a block shows no ground. What the prompt looked at, no proof of an answer."""


@runtime_checkable
class Session(Protocol):
    """Everything that is the same for all tiles of one shape, done once."""

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """(N, 3, H, W) RGB chips, (N, H, W) valid pixels or None when all are -> one `Replies` per question.

        Any N from 0 up; the session cuts it in batches and pads the tail to a short ladder of sizes. Where a question's
        condition (`Question.only_if`) does not hold it may be left without words. Raises OutOfMemory when a batch does
        not fit into the memory of the device; the session can be used on.
        """
        ...


@runtime_checkable
class SeeingSession(Session, Protocol):
    """A session that can look now and be asked later: what it saw may be kept on disk. Optional for an engine.

    `answer_seen(see(chips, valid))` is `answer(chips, valid)`: in float32 on a CPU to the last bit.
    """

    @property
    def feature_bytes(self) -> int:
        """Bytes of what `see` gives for one tile."""
        ...

    def see(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """(N, 3, H, W) chips -> (N, S, D) what the model sees, whatever it will be asked; S x D is the engine's affair.

        In the model's dtype: float32, float16, or uint16 with the bits of bfloat16, which numpy does not know.
        """
        ...

    def answer_seen(self, features: NDArray[Any]) -> list[Replies]:
        """What `see` gave, of any tiles -> one `Replies` per question, as `answer` does."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A loaded model."""

    @property
    def card(self) -> ModelCard:
        """How the model wants to be asked."""
        ...

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> Session:
        """Ready the questions for chips of `tile_shape` (H, W), `batch` tiles at a time."""
        ...
