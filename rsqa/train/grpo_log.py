"""What the log of GRPO says: how good the texts are, how far the weights have moved, how well it goes on held prompts.

N texts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from rsqa.engines.cards import ModelCard
from rsqa.engines.words import Words
from rsqa.train.groups import Collected, writing_precision
from rsqa.train.grpo_loss import Clip, Judged, k3, outside
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.prompts import OPEN, Prompt
from rsqa.train.rewards import format_reward, is_right
from rsqa.train.sampling import asked, write

SHOWN = 3
"""Texts that the log shows at each evaluation."""

Sums = dict[str, tuple[float, float]]
"""Name -> sum and count of what is averaged."""


def added(some: Sums, more: Sums) -> Sums:
    """Sums and counts of both."""
    names = some.keys() | more.keys()
    pairs = {name: (some.get(name, (0.0, 0.0)), more.get(name, (0.0, 0.0))) for name in names}
    return {name: (a[0] + b[0], a[1] + b[1]) for name, (a, b) in pairs.items()}


def averages(sums: Sums) -> dict[str, float]:
    """Means over all processes, by name; without those of which there is nothing."""
    totals: Sums = {}
    for own in gather_object([sums]):
        totals = added(totals, own)
    return {name: total / count for name, (total, count) in sorted(totals.items()) if count}


def text_sums(collected: Collected, words: Words) -> Sums:
    """Of the texts of a step."""
    texts = collected.texts
    n, known = len(texts), [reward for _, reward in texts if isfinite(reward.total)]
    tokens = sum(len(row.tokens) for row, _ in texts)
    return {
        "reward": (sum(reward.total for reward in known), len(known)),
        "accuracy": (sum(reward.accuracy for reward in known), len(known)),
        "malformed": (sum(not format_reward(words.decode(row.tokens)) for row, _ in texts), n),
        "unjudged": (n - len(known), n),
        "length": (tokens, n),
        "cut": (sum(not row.finished for row, _ in texts), n),
        # The mean of -log p of what was drawn estimates the entropy of what it was drawn from.
        "entropy": (-sum(row.logprob for row, _ in texts), tokens),
        "drawn": (collected.drawn, 1.0),  # by each process
        "skipped": (collected.skipped, collected.drawn),
        "left_out": (collected.left_out, collected.drawn),
    }


def learning_sums(logprob: Tensor, judged: Judged, mask: Tensor, clip: Clip) -> Sums:
    """Of one forward pass; (N, T) log-probabilities and mask."""
    n = float(mask.sum())
    sums = {"clipped": (float((outside(logprob, judged, clip) * mask).sum()), n)}
    if judged.reference is not None:
        sums["kl"] = float((k3(logprob, judged.reference) * mask).sum()), n
    return sums


def evaluate(
    recipe: GrpoRecipe, network: Any, words: Words, card: ModelCard, held: Sequence[Prompt]
) -> tuple[Sums, list[dict[str, str]]]:
    """Greedy answers to prompts that are not learned from -> shares of right and malformed ones, and a few to look at.

    Open prompts are not asked: what is right there only a judge could say.
    """
    asks = [asked(prompt, i, words, card) for i, prompt in enumerate(held) if prompt.answer_type != OPEN]
    written = write(network, words, asks, recipe.rows, recipe.max_new_tokens, precision=writing_precision(recipe))
    sums: Sums = {}
    samples = []
    for ask, (row,) in zip(asks, written, strict=True):
        text, prompt = words.decode(row.tokens), ask.prompt
        right, malformed = float(is_right(text, prompt)), 1.0 - format_reward(text)
        one = {"accuracy": right, f"accuracy {prompt.answer_type}": right, "malformed": malformed}
        sums = added(sums, {name: (value, 1.0) for name, value in one.items()} | {"length": (len(row.tokens), 1.0)})
        samples.append({"question": prompt.question, "text": text, "answer": prompt.answer})
    return sums, samples[:SHOWN]
