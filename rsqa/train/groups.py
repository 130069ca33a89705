"""What a step of GRPO learns from: prompts, each with a group of rewarded texts.

G texts of a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsqa.engines.cards import ModelCard
from rsqa.engines.generation import Row
from rsqa.engines.words import Words
from rsqa.models.linear import AS_LOADED, Precision, rounded
from rsqa.models.writing import Chance
from rsqa.train.grpo_loss import has_signal
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.prompts import OPEN, Prompts
from rsqa.train.rewards import REWARDS, Judge, Reward
from rsqa.train.sampling import Asked, asked, write

WRITING, SHUFFLING = 1, 2
"""Streams of chance that must not meet: (seed, stream, number)."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The texts of one prompt."""

    asked: Asked
    rows: tuple[Row, ...]
    """G texts."""
    rewards: tuple[Reward, ...]
    """Of each."""

    @property
    def totals(self) -> Tensor:
        """(1, G)."""
        return torch.tensor([[reward.total for reward in self.rewards]], dtype=torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What a step learns from, and what it cost to find it."""

    groups: list[Group]
    texts: list[tuple[Row, Reward]]
    """All that were written, those of skipped groups too."""
    drawn: int
    """Prompts."""
    skipped: int
    """Groups without signal that were replaced."""
    left_out: int
    """Open prompts, for which there is no judge."""


def writing_precision(recipe: GrpoRecipe) -> Precision:
    """Texts are written as inference writes them: with bf16 in bfloat16, though the trained weights are float32.

    The loss takes nothing but the tokens from there: their probabilities are those of the training's own forward pass.
    """
    return rounded(torch.bfloat16) if recipe.bf16 else AS_LOADED


class Sampler:
    """Asks prompts, has texts written and rewards them; what it does in a step depends on recipe and step alone."""

    def __init__(
        self, recipe: GrpoRecipe, prompts: Prompts, words: Words, card: ModelCard, judge: Judge | None
    ) -> None:
        self._recipe, self._prompts, self._words, self._card, self._judge = recipe, prompts, words, card, judge

    def collect(self, network: Any, step: int, rank: int, ranks: int) -> Collected:
        """The groups of a step, this process's share; further prompts in place of groups without signal."""
        recipe = self._recipe
        n = recipe.prompts // ranks
        number = (step * ranks + rank) * n * (1 + recipe.skip_limit)  # each draw of each step has its own prompts
        groups: list[Group] = []
        texts: list[tuple[Row, Reward]] = []
        drawn = skipped = left_out = 0
        for _ in range(1 + recipe.skip_limit):
            wanted = n - len(groups)
            fresh = self.groups(network, number, wanted)
            kept = [g for g in fresh if not recipe.skip_limit or has_signal(g.totals).all()]
            groups += kept
            texts += [pair for group in fresh for pair in zip(group.rows, group.rewards, strict=True)]
            drawn, number = drawn + wanted, number + wanted
            skipped, left_out = skipped + len(fresh) - len(kept), left_out + wanted - len(fresh)
            if len(groups) == n:
                break
        return Collected(groups, texts, drawn, skipped, left_out)

    def groups(self, network: Any, first: int, n: int) -> list[Group]:
        """Prompts number `first` to `first + n - 1`, each with its rewarded texts."""
        recipe = self._recipe
        drawn = enumerate(self._prompts.draw(first, n), start=first)
        asks = [
            asked(prompt, number, self._words, self._card)
            for number, prompt in drawn
            if prompt.answer_type != OPEN or self._judge
        ]
        chance = Chance((recipe.seed, WRITING), recipe.group, recipe.temperature)
        written = write(
            network, self._words, asks, recipe.rows, recipe.max_new_tokens, chance, writing_precision(recipe)
        )
        reward = REWARDS[recipe.reward]
        rewards = [
            reward(self._words.decode(row.tokens), ask.prompt, self._judge)
            for ask, rows in zip(asks, written, strict=True)
            for row in rows
        ]
        if recipe.shuffle_rewards:
            order = np.random.default_rng((recipe.seed, SHUFFLING, first)).permutation(len(rewards))
            rewards = [rewards[place] for place in order]
        shares = [tuple(rewards[i : i + recipe.group]) for i in range(0, len(rewards), recipe.group)]
        return [Group(ask, tuple(rows), share) for ask, rows, share in zip(asks, written, shares, strict=True)]
