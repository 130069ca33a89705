from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rsqa

sys.path.insert(0, str(Path(__file__).parent))

from numpy.random import default_rng
from simulate_year import make_truth, score, when

SCRIPT = Path(__file__).with_name("simulate_year.py")


@pytest.mark.slow
def test_sixteen_nights():
    root = str(Path(rsqa.__file__).parents[1])
    command = [sys.executable, SCRIPT, "--nights", "16"]
    run = subprocess.run(command, env={"PYTHONPATH": root}, capture_output=True, text=True, timeout=280, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["false"] == 0
    assert [result[f"same_{how}"] for how in ("at_once", "in_any_order", "with_kills")] == [True] * 3


def test_a_truth_that_is_told_is_right():
    there, events = make_truth(default_rng(3), 200)
    assert len(events) > 50
    for event in events:
        lasting = there[event.question][event.night : event.until, *event.tile]
        assert lasting.mean() >= 0.9 if event.there else lasting.mean() <= 0.2
    told = [
        {"question_id": e.question, "tile_row": e.tile[0], "tile_col": e.tile[1],
         "value_after": "yes" if e.there else "no", "first_after": when(e.night), "confirmed": when(e.night + 3)}
        for e in events
    ]  # fmt: skip
    result = score(told, events, there)
    assert (result["precision"], result["recall"], result["false"], result["nights_until_told"]) == (1.0, 1.0, 0, 3.0)
    assert score([*told, told[0]], events, there)["false"] == 1
    assert score(told[1:], events, there)["missed"] == 1
