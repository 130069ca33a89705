"""Products with weights that are held as they are, rounded to 8 bits, or changed by an adapter.

M rows of activations, I inputs, O outputs, r rank of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rsqa.errors import ModelError

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


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A matrix and a change of low rank, as LoRA trains it (arXiv 2106.09685): W + B A."""

    weight: Tensor
    """(O, I) of the base."""
    a: Tensor
    """(r, I)."""
    b: Tensor
    """(O, r), times alpha / r."""

    def product(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O), the adapter's part in its own type: it may be wider than the base."""
        base = F.linear(x, self.weight)
        return (base + F.linear(F.linear(x.to(self.a.dtype), self.a), self.b)).to(base.dtype)

    def merged(self) -> Tensor:
        """(O, I): base and change as one matrix in float32."""
        return self.weight.float() + self.b.float() @ self.a.float()


Weight = Tensor | Int8 | Lora


def weight_of(module: Any) -> Tensor | Lora:
    """The matrix of a linear layer; with the adapters that peft put around the layer, while they are switched on.

    `weight` of such a layer is that of its base, without a word of the adapter. ModelError for what is neither plain
    LoRA nor one DoRA.
    """
    if not hasattr(module, "base_layer"):
        given: Tensor = module.weight
        return given
    base: Tensor = module.base_layer.weight
    _refuse_all_but_lora(module)
    names = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    if not names:
        return base
    if names[0] in module.lora_magnitude_vector:
        return _dora(module, names[0])
    a = torch.cat([module.lora_A[name].weight for name in names])
    b = torch.cat([module.lora_B[name].weight * module.scaling[name] for name in names], dim=1)
    return Lora(base, a, b)


def _dora(module: Any, name: str) -> Tensor:
    """(O, I): W + scale · B A with rows of the lengths that were learned; their own ones get no gradient (arXiv
    2402.09353, section 4.3).
    """
    changed: Tensor = module.base_layer.weight + module.scaling[name] * (
        module.lora_B[name].weight @ module.lora_A[name].weight
    )
    lengths: Tensor = module.lora_magnitude_vector[name].weight / changed.detach().norm(dim=1)
    return (lengths[:, None] * changed).to(module.base_layer.weight.dtype)


def _refuse_all_but_lora(module: Any) -> None:
    """ModelError for layers of peft that compute anything but x Wᵀ + scale · (x Aᵀ) Bᵀ, or this with scaled rows."""
    if not hasattr(module, "lora_A"):
        raise ModelError(f"layers adapted as {type(module).__name__} can't be run; rsqa runs plain LoRA")
    variants = {type(kind).__name__ for kind in module.lora_variant.values() if kind is not None}
    if odd := sorted(variants - {"DoraLinearVariant"}):
        raise ModelError(f"an adapter with {odd[0]} can't be run; rsqa runs LoRA and DoRA")
    if variants and len(module.lora_A) > 1:
        raise ModelError("several adapters with DoRA among them can't be run; use one at a time")
    if any(module.lora_bias.values()) or any(getattr(drop, "p", 0) > 0 for drop in module.lora_dropout.values()):
        raise ModelError("an adapter with biases or dropout can't be run; make it without lora_bias and lora_dropout")
    if module.merged:
        raise ModelError("an adapter that peft merged in place can't be told from its base; unmerge it first")


def stacked(weights: Sequence[Tensor | Lora]) -> Tensor | Lora:
    """Matrices of the same inputs, (O_k, I) each, below one another: (ΣO, I).

    The changes stay apart: B of all is block-diagonal, of no columns where a matrix has no adapter.
    """
    whole = torch.cat([weight.weight if isinstance(weight, Lora) else weight for weight in weights])
    changed = [weight.a for weight in weights if isinstance(weight, Lora)]
    if not changed:
        return whole
    b = [weight.b if isinstance(weight, Lora) else weight.new_empty(len(weight), 0) for weight in weights]
    return Lora(whole, torch.cat(changed), torch.block_diag(*b))  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
    """(…, I) -> (…, O)."""
    if not isinstance(weight, Tensor):
        return weight.product(x) if bias is None else weight.product(x).add_(bias)
    return F.linear(x, weight, bias)


def scaled_linear(x: Tensor, weight: Weight, bias: Tensor, scale: float) -> Tensor:
    """(…, I) -> (…, O): the product times `scale`, which costs nothing, plus the bias."""
    if not isinstance(weight, Tensor):
        return weight.product(x).mul_(scale).add_(bias)
    rows = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t(), alpha=scale)
    return rows.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Precision:
    """How the tensors of a checkpoint are held."""

    matrix: Callable[[Tensor | Lora], Weight]
    """Of a layer: all but a few of the weights."""
    other: Callable[[Tensor], Tensor]
    """Norms, biases, word vectors, first and last product."""


AS_LOADED = Precision(lambda weight: weight, lambda tensor: tensor)


def rounded(dtype: torch.dtype) -> Precision:
    """All in `dtype`, an adapter's change within the matrix that it changes."""

    def matrix(weight: Tensor | Lora) -> Tensor:
        return (weight.merged() if isinstance(weight, Lora) else weight).to(dtype)

    return Precision(matrix, lambda tensor: tensor.to(dtype))


def eight_bits(dtype: torch.dtype) -> Precision:
    """Matrices of 8 bits, activations and all else in `dtype`."""

    def matrix(weight: Tensor | Lora) -> Int8:
        return Int8.of(weight.merged() if isinstance(weight, Lora) else weight, dtype)

    return Precision(matrix, lambda tensor: tensor.to(dtype))
