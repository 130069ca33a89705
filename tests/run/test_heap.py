from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from rsqa.run.heap import ENVIRONMENT

# Bytes of the heap with an array of 20 MiB, when it is freed, and when the heap is trimmed; bytes outside for 40 MiB.
SCRIPT = """
import ctypes, sys
import numpy as np
from rsqa.run.heap import share_one_heap, trim_heap

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
if sys.argv[1] == "call":
    share_one_heap()
trim_heap()
begin = mallinfo().arena
array = np.ones(20 << 20, np.uint8)
held = mallinfo().arena
del array
freed = mallinfo().arena
trim_heap()
trimmed = mallinfo().arena
outside = mallinfo().hblkhd
array = np.ones(40 << 20, np.uint8)
print(held - begin, freed - begin, trimmed - begin, mallinfo().hblkhd - outside)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or newer")
@pytest.mark.parametrize(
    ("how", "environment", "kept"),
    [("call", {}, True), ("environment", ENVIRONMENT, True), ("not at all", {}, False)],
)
def test_the_heap_keeps_what_it_has_until_it_is_trimmed(how, environment, kept):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=clean | environment, capture_output=True, text=True, check=True
    )
    held, freed, trimmed, outside = map(int, done.stdout.split())
    assert (held >= 20 << 20) == kept  # else it lies outside
    assert (freed >= 20 << 20) == kept
    assert trimmed < 20 << 20
    assert outside >= 40 << 20
