"""Open questions: greedy decoding of many tiles at once.

All rows of a batch have the same length, so nothing is padded. No generation settings are taken from the checkpoint:
the likeliest token, until an end token or the budget. B tiles, S suffix tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsqa.models.keyvalues import KeyValues, Prefix
from rsqa.models.qwen2vl import language

FIRST_ROOM = 256
"""Tokens to hold memory for at once; few replies are longer, and the store doubles when one is."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model wrote, a row per tile."""

    tokens: list[list[int]]
    """Up to and including the end token, or the token that `reached` its goal."""
    logprobs: list[float]
    """Mean log-probability of these tokens, over the full vocabulary."""
    finished: list[bool]
    """False where the budget ran out."""
    keys: KeyValues
    """Prefix, suffix and at least all tokens but the last; rows that stopped early hold more, which means nothing."""


def greedy(
    network: Any,
    prefix: Prefix,
    suffix: Tensor,
    stops: frozenset[int],
    budget: int,
    reached: Callable[[list[int]], bool] | None = None,
) -> Generated:
    """Write behind `suffix` (S,) at most `budget` tokens a row.

    A row ends with a token of `stops`, or where `reached` says so of the tokens so far.
    """
    embed, model = network.model.language_model.embed_tokens, network.model.language_model
    n_suffix = suffix.shape[0]
    b, device, n_prefix = prefix.rows, suffix.device, len(prefix.keys)
    keys = prefix.keys.copy(n_suffix + min(budget, FIRST_ROOM))
    places = torch.arange(n_suffix, device=device) + prefix.position
    seen = torch.ones(n_suffix, n_prefix + n_suffix, dtype=torch.bool, device=device).tril(n_prefix)
    hidden = language(model, embed(suffix).expand(b, -1, -1), places.expand(3, 1, -1), seen[None, None], keys)
    tokens: list[list[int]] = [[] for _ in range(b)]
    sums, done = [0.0] * b, [False] * b
    for step in range(budget):
        logits = network.lm_head(hidden[:, -1]).float()  # (B, V)
        best = logits.max(dim=-1)
        logprobs = (best.values - logits.logsumexp(dim=-1)).tolist()
        for row, (token, logprob) in enumerate(zip(best.indices.tolist(), logprobs, strict=True)):
            if done[row]:
                continue
            tokens[row].append(token)
            sums[row] += logprob
            done[row] = token in stops or (reached is not None and reached(tokens[row]))
        if all(done) or step == budget - 1:
            break
        place = torch.full((3, 1, 1), prefix.position + n_suffix + step, device=device)
        hidden = language(model, embed(best.indices)[:, None], place, None, keys)
    means = [total / max(len(row), 1) for total, row in zip(sums, tokens, strict=True)]
    return Generated(tokens, means, done, keys)
