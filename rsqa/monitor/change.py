"""When answers have changed: a rule over samples, per tile and question, that one odd night does not trigger.

A tile's *state* is the value that `confirmations` observations in a row agreed on. A change is reported when as many
observations in a row agree on another value, and the mean probability of that value rose by at least `min_delta`
between the last observations of the old state and these. What is unknown (nodata, clouds, errors, answers off the
list, too little valid ground) is passed over: it neither starts nor breaks a row. A first state is no change.

T tiles, K options, C confirmations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""No value yet."""


@dataclass(frozen=True, slots=True)
class Change:
    """A tile whose answer is another one now."""

    tile: int
    """Index of the tile."""
    before: int
    """Index of the option."""
    after: int
    p_before: float
    """Mean probability of the new value in the last observations of the old state."""
    p_after: float
    """The same in the observations that confirmed it."""
    last_before: datetime
    """Last observation that still had the old value."""
    first_after: datetime
    """First one of those that agreed on the new value in a row."""
    confirmed: datetime


@dataclass(slots=True, eq=False)
class Sample:
    """The last C observations of T tiles, and when each row of them began and ended."""

    size: int
    """C"""
    shares: NDArray[np.float32]
    """(T, C, K) probabilities; NaN where there is none."""
    n: NDArray[np.int64]
    """(T,) observations that were put in."""
    first: NDArray[np.object_]
    """(T,) when the first one of the row was taken."""
    last: NDArray[np.object_]
    """(T,) when the last one was."""

    @classmethod
    def empty(cls, n_tiles: int, size: int, n_options: int) -> Sample:
        """Nothing seen yet."""
        nothing = np.full(n_tiles, None, object)
        shares = np.full((n_tiles, size, n_options), np.nan, np.float32)
        return cls(size, shares, np.zeros(n_tiles, np.int64), nothing, nothing.copy())

    def put(self, tiles: NDArray[np.int64], shares: NDArray[np.float32], when: datetime) -> None:
        """Add an observation (n, K) of some tiles, in place of their oldest."""
        begun = tiles[self.n[tiles] == 0]
        self.first[begun] = when
        self.last[tiles] = when
        self.shares[tiles, self.n[tiles] % self.size] = shares
        self.n[tiles] += 1

    def clear(self, tiles: NDArray[np.int64]) -> None:
        """Forget these tiles."""
        self.n[tiles] = 0
        self.shares[tiles] = np.nan

    def take(self, other: Sample, tiles: NDArray[np.int64]) -> None:
        """Become the other sample for these tiles, and clear that one."""
        for mine, theirs in ((self.shares, other.shares), (self.n, other.n),
                             (self.first, other.first), (self.last, other.last)):  # fmt: skip
            mine[tiles] = theirs[tiles]
        other.clear(tiles)

    def mean(self, tiles: NDArray[np.int64], options: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) mean probability of one option for each tile."""
        at = self.shares[tiles, :, options].astype(np.float64)
        return np.asarray(np.nanmean(at, axis=1))


@dataclass(slots=True, eq=False)
class Tracks:
    """One question over time: what is known of each tile, as the observations are shown in order of time."""

    n_options: int
    confirmations: int
    min_delta: float
    value: NDArray[np.int64] = field(init=False)
    """(T,) the state: index of an option, or NONE."""
    candidate: NDArray[np.int64] = field(init=False)
    """(T,) the value that the row in `after` agrees on."""
    before: Sample = field(init=False)
    after: Sample = field(init=False)

    def __post_init__(self) -> None:
        self.value, self.candidate = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.before = Sample.empty(0, self.confirmations, self.n_options)
        self.after = Sample.empty(0, self.confirmations, self.n_options)

    def grow(self, n_tiles: int) -> None:
        """Make room for tiles that were never seen before."""
        more = n_tiles - len(self.value)
        if more <= 0:
            return
        self.value = np.append(self.value, np.full(more, NONE))
        self.candidate = np.append(self.candidate, np.full(more, NONE))
        for name in ("before", "after"):
            old, new = getattr(self, name), Sample.empty(more, self.confirmations, self.n_options)
            joined = (np.concatenate([getattr(old, f), getattr(new, f)]) for f in ("shares", "n", "first", "last"))
            setattr(self, name, Sample(self.confirmations, *joined))

    def observe(self, tiles: NDArray[np.int64], shares: NDArray[np.float32], when: datetime) -> list[Change]:
        """Show known answers of one moment: (n,) tiles, none twice, and (n, K) probabilities; -> what changed."""
        top = shares.argmax(axis=1)
        agrees = top == self.value[tiles]
        self.before.put(tiles[agrees], shares[agrees], when)
        self.after.clear(tiles[agrees])
        self.candidate[tiles[agrees]] = NONE
        tiles, top, shares = tiles[~agrees], top[~agrees], shares[~agrees]
        self.after.clear(tiles[self.candidate[tiles] != top])
        self.candidate[tiles] = top
        self.after.put(tiles, shares, when)
        ripe = self.after.n[tiles] >= self.confirmations
        return self._settle(tiles[ripe], top[ripe], when)

    def _settle(self, tiles: NDArray[np.int64], top: NDArray[np.int64], when: datetime) -> list[Change]:
        """Tiles whose row is long enough become what it says, if the probabilities moved enough."""
        first = self.value[tiles] == NONE
        p_after = self.after.mean(tiles, top)
        p_before = np.full(len(tiles), np.nan)
        p_before[~first] = self.before.mean(tiles[~first], top[~first])
        moved = ~first & (p_after - p_before >= self.min_delta)
        changes = [
            Change(
                tile=int(tile), before=int(self.value[tile]), after=int(top[i]), p_before=float(p_before[i]),
                p_after=float(p_after[i]), last_before=self.before.last[tile], first_after=self.after.first[tile],
                confirmed=when,
            )
            for i, tile in enumerate(tiles.tolist()) if moved[i]
        ]  # fmt: skip
        settled = first | moved
        self.value[tiles[settled]] = top[settled]
        self.candidate[tiles[settled]] = NONE
        self.before.take(self.after, tiles[settled])
        return changes
