from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsqa.raster.pages import LARGE_BYTES, zeros


@pytest.mark.parametrize("shape", [(3, 7), (3, 700, 900), (0, 5), (LARGE_BYTES,)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", bool])
def test_like_numpys(shape, dtype):
    made = zeros(shape, dtype)
    assert (made.shape, made.dtype, made.flags.writeable) == (shape, np.dtype(dtype), True)
    assert not made.any()
    made[...] = 1
    assert made.all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is counted by Linux")
def test_freed_pages_are_gone_at_once():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    made = zeros((64 << 20,), "uint8")
    made[...] = 1
    held = resident()
    view = made[5:]
    del made
    assert resident() > held - (8 << 20)  # a view keeps them
    del view
    assert resident() < held - (56 << 20)
