"""Products with weights that are held as they are, or rounded to 8 bits.

M rows of activations, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 64
"""Of a matrix, rounded at once."""
STEPS = 127
"""8 bits hold -127..127; -128 is left out, so that zero is in the middle."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """A matrix rounded to 8 bits, each output with its own step."""

    values: Tensor
    """(O, I) int8."""
    steps: Tensor
    """(O,) in the type of the activations."""

    @classmethod
    def of(cls, weight: Tensor, dtype: torch.dtype) -> Int8:
        """Round a matrix for activations of `dtype`, some rows at a time: in float32 they are four times as large."""
        values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        steps = torch.empty(len(weight), device=weight.device)
        pieces = (torch.split(tensor, ROWS) for tensor in (weight, values, steps))
        for given, rounded, step in zip(*pieces, strict=True):
            wide = given.float()
            step.copy_(wide.abs().amax(dim=1).clamp_min_(torch.finfo(torch.float32).tiny) / STEPS)
            rounded.copy_((wide / step[:, None]).round_())
        return cls(values, steps.to(dtype))

    def product(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O).

        On a CPU the activations are rounded, too, each row by its own step, and multiplied as whole numbers; on a GPU
        the weights are widened where they are used: that saves memory, not time.
        """
        if x.is_cuda:
            return F.linear(x, self.values.to(x.dtype)) * self.steps
        rows = x.reshape(-1, x.shape[-1])
        steps = rows.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) / STEPS
        whole = torch._int_mm((rows / steps).round_().to(torch.int8), self.values.t())  # int32: exact
        return (whole * steps).mul_(self.steps).reshape(*x.shape[:-1], -1)


Weight = Tensor | Int8


def linear(x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
    """(…, I) -> (…, O)."""
    if isinstance(weight, Int8):
        return weight.product(x) if bias is None else weight.product(x).add_(bias)
    return F.linear(x, weight, bias)


def scaled_linear(x: Tensor, weight: Weight, bias: Tensor, scale: float) -> Tensor:
    """(…, I) -> (…, O): the product times `scale`, which costs nothing, plus the bias."""
    if isinstance(weight, Int8):
        return weight.product(x).mul_(scale).add_(bias)
    rows = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t(), alpha=scale)
    return rows.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Precision:
    """How the tensors of a checkpoint are held."""

    matrix: Callable[[Tensor], Any]
    """Of a layer: all but a few of the weights. Tensor -> Weight."""
    other: Callable[[Tensor], Tensor]
    """Norms, biases, word vectors, first and last product."""


AS_LOADED = Precision(lambda weight: weight, lambda tensor: tensor)


def eight_bits(dtype: torch.dtype) -> Precision:
    """Matrices of 8 bits, activations and all else in `dtype`."""
    return Precision(lambda weight: Int8.of(weight, dtype), lambda tensor: tensor.to(dtype))
