from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from rsqa.run.heap import ENVIRONMENT, LARGE_BYTES

# Freeing a large array teaches glibc to take the next one of that size from the heap.
LARGE_ARRAYS_OUTSIDE = """
import ctypes, sys
import numpy as np
from rsqa.run.heap import share_one_heap

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
if sys.argv[1] == "call":
    share_one_heap()
for _ in range(3):
    array = np.ones(20 << 20, np.uint8)
    del array
before = mallinfo().hblkhd
array = np.ones(20 << 20, np.uint8)
print(mallinfo().hblkhd - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or newer")
@pytest.mark.parametrize(
    ("how", "environment", "outside"),
    [("call", {}, True), ("environment", ENVIRONMENT, True), ("not at all", {}, False)],
)
def test_large_arrays_stay_outside_the_heap(how, environment, outside):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", LARGE_ARRAYS_OUTSIDE, how],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) >= 20 << 20) == outside
    assert LARGE_BYTES < 20 << 20
