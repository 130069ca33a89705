"""Many branches of text behind one shared prefix, packed in one row.

Questions of a tile, the options of a question and the turns of a training example are all trees: a token sees the
prefix, its ancestors and itself, and stands at its depth after the prefix. One forward over the packed row then gives
exactly what one forward per branch would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class TokenTree:
    """A forest of token branches that share their beginnings; grows by `add`. S tokens."""

    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """Index of the token before, -1 at a root."""

    _children: dict[tuple[int, int], int] = field(default_factory=dict)
    """(index of a token, token behind it) -> its index."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[int], after: int = -1) -> list[int]:
        """A chain behind token `after` (-1: behind the prefix) -> indices of its tokens; what is there is shared."""
        chain = []
        for token in ids:
            if (after, token) not in self._children:
                self._children[after, token] = len(self.ids)
                self.ids.append(token)
                self.parents.append(after)
            after = self._children[after, token]
            chain.append(after)
        return chain

    def depths(self) -> Tensor:
        """-> (S,) distance of each token from the prefix, 0 for roots."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return torch.tensor(depths, dtype=torch.long)

    def mask(self) -> Tensor:
        """-> (S, S) bool, true where row may attend to column."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for token, parent in enumerate(self.parents):  # parents come first, so their row is complete
            if parent >= 0:
                seen[token] |= seen[parent]
        return seen
