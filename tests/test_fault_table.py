"""The table of faults names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_of_the_table_is_there():
    named = set(re.findall(r"`(test_\w+)`", (TESTS / "FAULTS.md").read_text(encoding="utf-8")))
    there = {
        name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    assert len(named) > 60
    assert named <= there, named - there
