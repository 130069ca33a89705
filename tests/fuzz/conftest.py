"""Memory is bounded too, whatever a file declares."""

from __future__ import annotations

import resource

import pytest

MOST_MB = 700


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MB << 10
