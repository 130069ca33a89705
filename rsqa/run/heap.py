"""Keeps the memory of a long run flat, and a model fast in it, where the C library is glibc; elsewhere little is done.

glibc gives every thread a heap of its own, and slots that take turns with large arrays fill all of them with holes: one
heap for all. It also hands memory back too eagerly: a large array is given to the system when it is freed, and the next
one is fetched page by page, zeroed each time. For a 2B model at 448 px on a CPU that is 880,000 page faults and a
quarter of the time of a tile. So the heap keeps what it has, and is trimmed between parts; blocks of pixels, which
would leave the largest holes, are not in it (`rsqa.raster.pages`).
"""

from __future__ import annotations

import ctypes

import pyarrow

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1
"""Of glibc's malloc.h."""
LARGE_BYTES = 32 << 20
"""Larger arrays lie outside the heap: the most that glibc takes."""
KEPT_BYTES = (1 << 31) - 1
"""Free bytes at the end of the heap that stay: all."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES),
               "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES), "ARROW_DEFAULT_MEMORY_POOL": "system"}  # fmt: skip
"""The same for a process that is to be started."""


def share_one_heap() -> None:
    """Let all threads that begin from now on share one heap, which keeps what it has until it is trimmed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own pool keeps what it once had


def trim_heap() -> None:
    """Hand freed memory back to the system; takes 3 to 17 ms, and what was handed back must be fetched again."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
