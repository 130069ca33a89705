"""Last digits of a box's sides, learned as numbers: what is nearly right is nearly as good.

To cross entropy a wrong digit is as wrong as any other. A network that sees a side within a few hundredths of the
picture then learns nothing of the second digit, and greedy text takes an accidental one. With targets that fall near
the truth it writes the middle of what it thinks possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rsqa.train.packing import Chain

SPREAD = 3.0
"""Standard deviation of the targets, digits."""
_APART = np.subtract.outer(np.arange(10), np.arange(10))
NEAR = np.exp(-((_APART / SPREAD) ** 2) / 2)
NEAR /= NEAR.sum(axis=1, keepdims=True)
"""(10, 10): row of the true digit, share of each digit among its targets. The true one has the largest."""


def nearly(chain: Chain, digits: Sequence[int], rng: np.random.Generator) -> Chain:
    """The chain whose labels for hundredths are drawn from `NEAR`; what it reads stays true.

    `digits`: the tokens of 0 to 9. Hundredths are the middle ones of three digits that end in 0.
    """
    value = {token: digit for digit, token in enumerate(digits)}
    told = [value.get(token) for token in (*chain.labels, -1)]
    labels = list(chain.labels)
    for place in range(1, len(labels) - 1):
        before, digit, after = told[place - 1 : place + 2]
        alone = told[place + 2] is None and (place < 2 or told[place - 2] is None)
        if before is not None and digit is not None and after == 0 and alone:
            labels[place] = digits[int(rng.choice(10, p=NEAR[digit]))]
    return replace(chain, labels=tuple(labels))
