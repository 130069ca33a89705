"""Keeps the memory of a long run flat, where the C library is glibc; elsewhere little is done.

glibc gives every thread a heap of its own, hands freed memory back only from a heap's end, and moves ever larger arrays
into the heaps as it sees them freed. Slots that take turns with large arrays then fill all heaps with holes, and a run
grows with every part.
"""

from __future__ import annotations

import ctypes

import pyarrow

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""Of glibc's malloc.h."""
LARGE_BYTES = 4 << 20
"""Arrays from this size up lie outside the heap and go back to the system when they are freed: blocks of pixels and the
large activations. tests/bench/bench_scale.py shows what it does to the peak."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES),
               "ARROW_DEFAULT_MEMORY_POOL": "system"}  # fmt: skip
"""The same for a process that is to be started."""


def share_one_heap() -> None:
    """Let all threads that begin from now on share one heap, and keep what is large out of it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own pool keeps what it once had


def trim_heap() -> None:
    """Hand freed memory back to the system; takes 3 to 17 ms."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
