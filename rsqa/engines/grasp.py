"""A prompt adapter on an engine: vectors of questions once for all tiles, then slots for each tile and question.

Slots stand at the head of each question's suffix, so that the image prefix stays shared; or, as in the paper, before
the image, which makes a prefix of each question.

    visual tokens ┬─ prefix ───────────────────────────┐
                  └─ slots(visual, questions) ─ slots | question …

B tiles, N tiles of a call, S visual tokens, D width, Q questions, K slots of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rsqa.engines.words import Words
from rsqa.models.grasp import Prompted, block_of
from rsqa.models.language import Language, read
from rsqa.models.rivals import Prompter
from rsqa.tasks.question import Question

SHOWN = 0.5
"""Least share of valid pixels under a visual token that counts as seen."""
KEPT = 4096
"""Questions whose vectors are kept over all sessions of an engine."""


class Guide:
    """An adapter with the words and the language part of its base."""

    def __init__(self, prompter: Prompter, language: Language, words: Words) -> None:
        self.shape = prompter.shape
        self._prompter, self._language, self._words = prompter.to(language.words.device), language, words
        self._vector = lru_cache(maxsize=KEPT)(self._read)

    def vectors(self, questions: Sequence[Question]) -> Tensor:
        """-> (Q, D) float32: what the slots depend on; the raw words of a question, without tag and options."""
        if not self.shape.asks or not questions:
            return torch.zeros(len(questions), self.shape.width, device=self._language.words.device)
        return torch.stack([self._vector(question.text) for question in questions])

    def _read(self, text: str) -> Tensor:
        return question_vector(self._language, self._words.encode(text), self.shape.question)

    def before(self, question: int) -> tuple[int, ...]:
        """Tokens before the image of one question, its slots among them."""
        *system, image = self._words.before
        return (*system, *self.slot_ids(question), image)

    def slot_ids(self, question: int) -> tuple[int, ...]:
        """The slots of a question as tokens; see `rsqa.engines.prefix`."""
        return tuple(-1 - question * self.shape.tokens - k for k in range(self.shape.tokens))

    def slots(self, visual: Tensor, grid: tuple[int, int], questions: Tensor, shown: Tensor) -> Prompted:
        """(B, S, D) visual tokens of `grid` (rows, cols), (Q, D) vectors, (B, S) tokens that show ground."""
        found: Prompted = self._prompter(visual, grid, questions, shown)
        return found

    def evidence(self, weights: Tensor, grid: tuple[int, int], shown: Tensor) -> Tensor:
        """(B, Q, N) weights of blocks -> the same, NaN where a block shows no ground: it had no choice but zero."""
        block = block_of(grid, self.shape.side).to(shown.device)
        there = torch.zeros(len(shown), self.shape.blocks, device=shown.device).index_add(1, block, shown.float()) > 0
        return weights.masked_fill(~there[:, None], torch.nan)


def question_vector(language: Language, ids: Sequence[int], where: str) -> Tensor:
    """Tokens of a question alone -> (D,) float32, mean over them; `where` as `PromptShape.question`."""
    x = language.embed([list(ids)])
    if where != "words":
        if where == "middle":
            language = replace(language, layers=language.layers[: len(language.layers) // 2])
        x, _ = read(language, x, language.turns(torch.arange(len(ids)).expand(3, -1)))
    return x[0].float().mean(dim=0)


def shown_tokens(valid: NDArray[np.bool_] | None, n_tiles: int, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """(N, H, W) valid pixels, None when all are -> (N, S) visual tokens of `grid` that show ground."""
    if valid is None:
        return np.ones((n_tiles, grid[0] * grid[1]), np.bool_)
    share = [F.adaptive_avg_pool2d(torch.from_numpy(tile)[None].float(), grid) for tile in valid]
    return (torch.cat([torch.empty(0, *grid), *share]).flatten(1) >= SHOWN).numpy()


def marked(features: NDArray[Any], shown: NDArray[np.bool_]) -> NDArray[Any]:
    """(N, S, D) visual tokens, (N, S) which of them show ground -> (N, S + rows of marks, D), as it is kept on disk."""
    n, s, d = features.shape
    rows = -(-s // d)
    marks = np.zeros((n, rows * d), features.dtype)
    marks[:, :s] = shown
    return np.concatenate([features, marks.reshape(n, rows, d)], axis=1)


def unmarked(features: NDArray[Any], n_tokens: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The inverse of `marked`."""
    n, rows, d = features[:, n_tokens:].shape
    marks = features[:, n_tokens:].reshape(n, rows * d)
    return features[:, :n_tokens], marks[:, :n_tokens] != 0
