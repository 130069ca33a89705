"""From scores to weights that sum to one, exact zeros among them: entmax of alpha 1.5 and 2, each with its own
backward pass. N scores along the last axis; -inf is a place that may not be chosen. Half precision is widened.

Peters, Niculae, Martins 2019 (arXiv 1905.05702); Martins, Astudillo 2016 (arXiv 1602.02068).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def entmax15(scores: Tensor) -> Tensor:
    """(…, N) -> (…, N): p = max(0, scores / 2 - threshold)², between softmax and sparsemax."""
    return _Entmax15.apply(_wide(scores))  # type: ignore[no-any-return, no-untyped-call]


def sparsemax(scores: Tensor) -> Tensor:
    """(…, N) -> (…, N): the point of the simplex that is nearest to the scores."""
    return _Sparsemax.apply(_wide(scores))  # type: ignore[no-any-return, no-untyped-call]


def softmax(scores: Tensor) -> Tensor:
    """(…, N) -> (…, N), no zero but those of -inf."""
    return _wide(scores).softmax(dim=-1)


def top2(scores: Tensor) -> Tensor:
    """(…, N) -> (…, N): softmax over the two largest."""
    best = scores.topk(min(2, scores.shape[-1]), dim=-1)
    return torch.zeros_like(_wide(scores)).scatter(-1, best.indices, softmax(best.values))


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


class _Entmax15(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        # The threshold lies at most 1 below the largest: what is 2 below is never chosen, and -inf becomes a number.
        x = ((scores - scores.amax(dim=-1, keepdim=True)) / 2).clamp(min=-2)
        ordered = x.sort(dim=-1, descending=True).values
        k = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
        mean, square = ordered.cumsum(dim=-1) / k, (ordered**2).cumsum(dim=-1) / k
        threshold = mean - ((1 - k * (square - mean**2)) / k).clamp(min=0).sqrt()
        support = (threshold <= ordered).sum(dim=-1, keepdim=True)
        p = (x - threshold.gather(-1, support - 1)).clamp(min=0) ** 2
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (g,) = gradients
        root = ctx.saved_tensors[0].sqrt()
        pulled: Tensor = g * root - root * ((g * root).sum(dim=-1, keepdim=True) / root.sum(dim=-1, keepdim=True))
        return pulled


class _Sparsemax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        x = (scores - scores.amax(dim=-1, keepdim=True)).clamp(min=-2)  # the threshold is at least -1
        ordered = x.sort(dim=-1, descending=True).values
        k = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
        threshold = (ordered.cumsum(dim=-1) - 1) / k
        support = (threshold < ordered).sum(dim=-1, keepdim=True)
        p = (x - threshold.gather(-1, support - 1)).clamp(min=0)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (g,) = gradients
        chosen = ctx.saved_tensors[0] > 0
        mean = (g * chosen).sum(dim=-1, keepdim=True) / chosen.sum(dim=-1, keepdim=True)
        pulled: Tensor = (g - mean) * chosen
        return pulled
