"""Some tiles of a grid: as runs of neighbours, and gathered in blocks that hold no other tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsqa.raster.grid import Block, BlockGrid

Run = tuple[int, int, int]
"""Neighbours in a row of tiles: tile row, first tile column, tile column after the last."""


def runs_of(wanted: NDArray[np.bool_]) -> tuple[Run, ...]:
    """(R, C) which tiles are wanted -> as few runs as possible, row by row."""
    steps = np.diff(wanted.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return tuple(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def count(runs: Sequence[Run]) -> int:
    """Tiles in the runs."""
    return sum(end - start for _, start, end in runs)


@dataclass(frozen=True, slots=True)
class ChosenBlocks:
    """The blocks of some tiles of a grid, as `BlockGrid` has those of all."""

    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.blocks)

    def block(self, number: int) -> Block:
        """The block of that number."""
        return self.blocks[number]


def chosen_blocks(all_blocks: BlockGrid, runs: Sequence[Run]) -> ChosenBlocks:
    """What is wanted of each block, in rectangles: so that nothing else is read."""
    wanted = np.zeros(all_blocks.grid.shape, bool)
    for row, start, end in runs:
        wanted[row, start:end] = True
    found: list[Block] = []
    for block in all_blocks:
        for row0, row1, col0, col1 in _rectangles(wanted[block.row0 : block.row1, block.col0 : block.col1]):
            corner = block.row0 + row0, block.row0 + row1, block.col0 + col0, block.col0 + col1
            found.append(Block(len(found), *corner))
    return ChosenBlocks(tuple(found))


def _rectangles(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """(row0, row1, col0, col1) of rectangles that together are the wanted tiles: equal runs of successive rows."""
    begun: dict[tuple[int, int], int] = {}
    """Columns of a rectangle that may grow -> its first row."""
    for row, line in enumerate([*wanted, np.zeros(wanted.shape[1], bool)]):
        runs = [(start, end) for _, start, end in runs_of(line[None])]
        for columns in [columns for columns in begun if columns not in runs]:
            yield begun.pop(columns), row, *columns
        for columns in runs:
            begun.setdefault(columns, row)


def packed(blocks: ChosenBlocks, most_tiles: int) -> Iterator[range]:
    """Successive blocks, as many together as have at most so many tiles."""
    first, held = 0, 0
    for number, block in enumerate(blocks.blocks):
        if held and held + len(block) > most_tiles:
            yield range(first, number)
            first, held = number, 0
        held += len(block)
    yield range(first, len(blocks))
