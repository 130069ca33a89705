from __future__ import annotations

import pytest

from rsqa.errors import RsqaError
from rsqa.run import pipeline


@pytest.fixture
def requests(monkeypatch) -> list:
    """Requests that reach the library, which does nothing."""
    seen = []

    def ask(request, on_progress=None, on_note=None, on_dashboard=None):
        seen.append(request)
        raise RsqaError("no more")

    monkeypatch.setattr(pipeline, "ask", ask)
    return seen
