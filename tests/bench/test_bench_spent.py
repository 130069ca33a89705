from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from spent import spent

MB = 1 << 20


def test_what_a_command_took_is_its_own():
    held = bytes(300 * MB)  # by the parent, and it must not show
    small, large = (spent([sys.executable, "-c", f"print(len(b'.' * {n * MB}))"]) for n in (1, 200))
    assert len(held) == 300 * MB
    assert int(large.output) == 200 * MB
    assert small.peak_bytes < 100 * MB
    assert large.peak_bytes - small.peak_bytes == pytest.approx(199 * MB, rel=0.1)
    assert 0 < small.core_s < 10


def test_a_command_that_fails_is_told():
    with pytest.raises(RuntimeError, match="ended with 3"):
        spent([sys.executable, "-c", "raise SystemExit(3)"])
