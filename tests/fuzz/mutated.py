"""What the fuzz tests share: damaged copies of good files, and the one thing that is asked of those who read them.

An ordinary run draws a hundred examples a test. `RSQA_FUZZ=20000 python -m pytest tests/fuzz` draws as many as it says;
`--hypothesis-show-statistics` tells how many were run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rsqa.errors import RsqaError

fuzzed = settings(
    max_examples=int(os.environ.get("RSQA_FUZZ", "100")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONGEST_S = 20.0
"""Of processor time: far more than any good file of this size takes."""

_PLACES = st.integers(0, 1 << 20)
_NUMBERS = st.sampled_from([0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1])
_PIECES = st.sampled_from(
    [b"[" * 5000, b'{"a":' * 5000, b"\0", b"\xff\xfe", b"null", b"-1", b"1e999", b"NaN", b'"', b"{}", b"[]", b"\n"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of `seeds` with up to six faults: bits flipped, numbers written over, pieces cut, doubled or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(_PLACES) % (len(content) + 1)
        match draw(st.integers(0, 6)):
            case 0 if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                width = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(_NUMBERS) % (1 << 8 * width)
                content[at : at + width] = number.to_bytes(width, draw(st.sampled_from(["little", "big"])))
            case 2:
                del content[at:]
            case 3:
                del content[at : at + draw(st.integers(1, 64))]
            case 4:
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case 5:
                content[at:at] = draw(_PIECES)
            case _:
                content[at : at + 1] = draw(st.binary(max_size=8))
    return bytes(content)


def documented(call: Callable[[], Any]) -> Any:
    """What `call` returns, None where it refuses in one line; all else that it raises is a fault, and so is time."""
    start = time.process_time()
    found, refusal = None, "refused"
    try:
        found = call()
    except RsqaError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) == 1
    assert time.process_time() - start < LONGEST_S
    return found
