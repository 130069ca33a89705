"""The loss of GRPO. TRL is the oracle (`tests/train/pin_trl.py`).

P prompts, G texts of a prompt, N texts, T tokens of the longest. A mask is 1 up to the token that ends a text, that one
included, and 0 behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-4
"""Added to the deviation of a group (arXiv 2402.03300 in TRL's form)."""


def group_advantage(rewards: Tensor) -> Tensor:
    """(P, G) rewards -> (P, G), centred and scaled within each group by its unbiased deviation.

    NaN, no reward available: the group is that of the others, and its advantage is 0. Equal rewards give 0.
    """
    known = ~rewards.isnan()
    n = known.sum(dim=1, keepdim=True)
    mean = rewards.nansum(dim=1, keepdim=True) / n.clamp(min=1)
    centred = torch.where(known, rewards - mean, 0.0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (n - 1).clamp(min=1)).sqrt()
    # Equal rewards may differ from their mean in the last bit.
    return torch.where(has_signal(rewards)[:, None], centred / (deviation + EPS), 0.0)


def has_signal(rewards: Tensor) -> Tensor:
    """(P, G) -> (P,) bool, whether the rewards that are known differ."""
    low, high = rewards.nan_to_num(nan=torch.inf).amin(dim=1), rewards.nan_to_num(nan=-torch.inf).amax(dim=1)
    return low < high


@dataclass(frozen=True, slots=True)
class Clip:
    """Range in which the ratio of the probabilities counts: 1 - low to 1 + high."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What does not change while a batch of texts is learned from."""

    advantage: Tensor
    """(N,)."""
    weight: Tensor
    """(N, T) share of each token in the loss, 0 outside the mask; see `token_weights`."""
    old: Tensor
    """(N, T) log-probabilities when the texts were written."""
    reference: Tensor | None
    """(N, T) those of the reference; None: no KL term."""


def token_weights(mask: Tensor, normalise: str, longest: int) -> Tensor:
    """(N, T) -> (N, T) weights of the tokens, whose sum is to be divided by `parts`.

    grpo: a text counts the same, whatever its length; bnpo: a token counts the same; dr_grpo: a token counts the same,
    in units of the `longest` text that may be written.
    """
    if normalise == "grpo":
        return mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mask / longest if normalise == "dr_grpo" else mask


def parts(mask: Tensor, normalise: str) -> Tensor:
    """(N, T) -> () what the weights are divided by: tokens for bnpo, else texts. A text that is all masked is none."""
    return mask.sum() if normalise == "bnpo" else mask.amax(dim=1).sum()


def k3(logprob: Tensor, reference: Tensor) -> Tensor:
    """(N, T) each -> (N, T) estimate of the KL divergence from the reference: never negative, without bias."""
    apart = reference - logprob
    return apart.exp() - apart - 1


def outside(logprob: Tensor, judged: Judged, clip: Clip) -> Tensor:
    """-> (N, T) bool, tokens that no longer count because their ratio has gone far enough."""
    ratio, gain = (logprob - judged.old).exp(), judged.advantage[:, None]
    return ((ratio < 1 - clip.low) & (gain < 0)) | ((ratio > 1 + clip.high) & (gain > 0))


def grpo_loss(logprob: Tensor, judged: Judged, clip: Clip, beta: float) -> Tensor:
    """(N, T) log-probabilities of the tokens that were written -> () loss. Gradients flow through `logprob` alone."""
    ratio, gain = (logprob - judged.old).exp(), judged.advantage[:, None]
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip.low, 1 + clip.high) * gain)
    if judged.reference is not None:
        loss = loss + beta * k3(logprob, judged.reference)
    return (loss * judged.weight).sum()
