"""Last digits of a box's sides, learned as numbers: what is nearly right is nearly as good.

To cross entropy a wrong digit is as wrong as any other. A network that sees a side within a few hundredths of the
picture then learns nothing of the second digit, and greedy text takes an accidental one. With targets that are spread
around the truth it writes the middle of what it thinks possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rsqa.train.packing import Chain

SPREAD = 2.0
"""Standard deviation of the targets, digits."""
_APART = np.subtract.outer(np.arange(10), np.arange(10))
NEAR = np.exp(-((_APART / SPREAD) ** 2) / 2)
NEAR /= NEAR.sum(axis=1, keepdims=True)
"""(10, 10): row of the true digit, share of each digit among its targets. The true one has the largest."""


def digit_tokens(encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
    """The tokens of 0 to 9."""
    return tuple(encode(str(digit))[0] for digit in range(10))


def hundredths(chain: Chain, digits: Sequence[int]) -> tuple[bool, ...]:
    """Which labels are the hundredths of sides: the middle ones of three digits that end in 0.

    `digits`: the tokens of 0 to 9.
    """
    value = {token: digit for digit, token in enumerate(digits)}
    told = [None, *(value.get(token) for token in chain.labels), None, None]
    return tuple(
        digit is not None and before is not None and after == 0 and ahead is None and beyond is None
        for ahead, before, digit, after, beyond in zip([None, *told], told, told[1:], told[2:], told[3:], strict=False)
    )


def nearly(logprob: Tensor, labels: Tensor, digits: Sequence[int]) -> Tensor:
    """(n, V) log p of all tokens, (n,) true tokens -> (n,) mean log p of the digits near each, weighted by `NEAR`.

    What stands for labels that are no digit means nothing.
    """
    tokens = torch.tensor(digits, device=labels.device)
    true = (labels[:, None] == tokens).to(logprob)
    near = torch.as_tensor(NEAR, device=labels.device).to(logprob)
    return ((true @ near) * logprob[:, tokens]).sum(dim=1)
