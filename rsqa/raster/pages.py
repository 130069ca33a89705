"""Memory for blocks of pixels, outside of the C library's heap.

A heap that gives up a block has a hole of its size, which small things that live longer soon break up: a long run grows
by it. Pages of their own go back to the system the moment their array is freed.
"""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LARGE_BYTES = 1 << 20
"""Smaller arrays leave small holes."""


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As numpy's; pages that nobody writes to cost nothing."""
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < LARGE_BYTES:
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)
