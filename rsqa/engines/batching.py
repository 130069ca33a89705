"""A batch is one static shape; what does not fill it is padded to the next step of a short ladder.

The ladder: the whole batch, its half, its quarter, …, one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsqa.errors import OutOfMemory

PACKED_TOKENS = 1_024
"""Most suffix tokens that are scored behind a tile at once; attention and head rows grow with it, more wins nothing."""
ROWS = 256
"""Texts written at once on one device; more cost memory and win little: a step of 256 rows is bound by their keys."""
ROWS_PER_TILE = 8
"""So many texts for each tile of a batch: a smaller batch needs less memory for them, too."""

MAX_CHIP_BYTES = 128 * 2**20
"""uint8 chips that are handed to a session at once."""


AHEAD = 4
"""Batches that a GPU is handed at once: while it works on one, the next is copied."""


def gathered(batch: int, n_written: int, tile_px: int, device_type: str) -> int:
    """Tiles to hand to a session at once: so many batches that texts for `n_written` questions fill its rows."""
    filling = -(-min(ROWS, ROWS_PER_TILE * batch) // n_written) if n_written else batch
    wanted = max(-(-filling // batch), 1 if device_type == "cpu" else AHEAD)
    affordable = MAX_CHIP_BYTES // (3 * tile_px**2)
    return batch * max(1, min(wanted, affordable // batch))


def ladder(batch: int) -> tuple[int, ...]:
    """Sizes that a batch may have, ascending: batch / 1, / 2, / 4, … rounded up, down to 1."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return tuple(reversed(sizes))


def half(batch: int, device: str) -> int:
    """The next smaller step of the ladder, for a batch that did not fit. OutOfMemory when there is none."""
    if batch == 1:
        elsewhere = "" if device == "cpu" else ", or --device cpu"
        raise OutOfMemory(
            f"a single tile does not fit into the memory of {device!r}; "
            f"choose a smaller --tile-px, --dtype bfloat16, a smaller --model{elsewhere}"
        )
    return -(-batch // 2)


def padded_batches(chips: NDArray[Any], batch: int) -> Iterator[tuple[slice, NDArray[Any]]]:
    """(N, …) -> (rows of `chips`, a batch of a ladder's size whose last tile is repeated to fill it)."""
    sizes = ladder(batch)
    for start in range(0, len(chips), batch):
        rows = slice(start, min(start + batch, len(chips)))
        size = next(s for s in sizes if s >= rows.stop - rows.start)
        missing = size - (rows.stop - rows.start)
        yield rows, np.concatenate([chips[rows], np.repeat(chips[rows][-1:], missing, axis=0)])  # a copy, in C order
