"""What the log of GRPO says: how good the texts are, how far the weights have moved, how well it goes on held prompts.

N texts, T tokens of the longest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from rsqa.engines.cards import ModelCard
from rsqa.engines.words import Words
from rsqa.train.groups import Collected, writing_precision
from rsqa.train.grpo_loss import Clip, Judged, k3, outside
from rsqa.train.grpo_recipe import GrpoRecipe
from rsqa.train.log import LOG_FILE
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


@dataclass(frozen=True, slots=True)
class Validation:
    """How well held prompts are answered."""

    scores: dict[str, float]
    """Shares of right and malformed answers, mean length."""
    right: str
    """A digit a held prompt, in order: 1 right, 0 wrong; `-` for an open one, which only a judge could tell."""
    samples: list[dict[str, str]]
    """A few to look at."""


def evaluate(
    recipe: GrpoRecipe, network: Any, words: Words, card: ModelCard, held: Sequence[Prompt], rank: int, ranks: int
) -> Validation:
    """Greedy answers to prompts that are not learned from, shared by all processes. Open prompts are not asked."""
    own = [i for i in range(rank, len(held), ranks) if held[i].answer_type != OPEN]
    asks = [asked(held[i], i, words, card) for i in own]
    written = write(network, words, asks, recipe.rows, recipe.max_new_tokens, precision=writing_precision(recipe))
    sums: Sums = {}
    right: list[tuple[int, float]] = []
    samples = []
    for i, ask, (row,) in zip(own, asks, written, strict=True):
        text, prompt = words.decode(row.tokens), ask.prompt
        right.append((i, float(is_right(text, prompt))))
        one = {name: right[-1][1] for name in ("accuracy", f"accuracy {prompt.answer_type}")}
        one |= {"malformed": 1.0 - format_reward(text), "length": float(len(row.tokens))}
        sums = added(sums, {name: (value, 1.0) for name, value in one.items()})
        samples.append({"question": prompt.question, "text": text, "answer": prompt.answer})
    told = dict(gather_object(right))
    marks = "".join(f"{told[i]:.0f}" if i in told else "-" for i in range(len(held)))
    return Validation(averages(sums), marks, samples[:SHOWN])


def gain(run: Path) -> dict[str, float]:
    """How many more held prompts are right at the end of a run than at its start; see `paired`."""
    with (run / LOG_FILE).open(encoding="utf-8") as file:
        told = [line["right"] for line in map(json.loads, file) if "right" in line]
    return paired(told[0], told[-1]) if len(told[0]) == len(told[-1]) else {}  # resumed with others


def paired(before: str, after: str) -> dict[str, float]:
    """The same prompts answered twice (`Validation.right`) -> shares of right ones, and their difference.

    Its 95 % interval is that of a mean of paired differences, each -1, 0 or 1. Empty for fewer than two prompts.
    """
    pairs = [(float(a), float(b)) for a, b in zip(before, after, strict=True) if a != "-"]
    n = len(pairs)
    if n < 2:
        return {}
    first, last = (sum(side) / n for side in zip(*pairs, strict=True))
    difference = last - first
    spread = sum((b - a - difference) ** 2 for a, b in pairs) / (n - 1)
    half = 1.96 * (spread / n) ** 0.5
    return {
        "n": float(n), "before": first, "after": last, "difference": difference,
        "low": difference - half, "high": difference + half,
    }  # fmt: skip
