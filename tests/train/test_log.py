from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rsqa.train.checkpoint import Progress
from rsqa.train.curves import read_log
from rsqa.train.log import CURVES_FILE, LOG_FILE, Log, Watcher


def test_a_log_tells_means_rates_and_the_time_left(tmp_path):
    shown, said = [], []
    log = Log(tmp_path, Watcher(said.append, lambda *step: shown.append(step)), Progress(10, 100.0), 20)
    log.step(Progress(11, 102.0), 3.0, 1.0, 0.5, pictures=8, tokens=40)
    log.step(Progress(12, 104.0), 1.0, 1.0, 0.5, pictures=8, tokens=60)
    log.flush()
    (line,) = [json.loads(text) for text in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert line == {
        "step": 12, "loss": 2.0, "hint": 1.0, "norm": 0.5, "step_s": 2.0, "pictures_per_s": 4.0,
        "answer_tokens_per_s": 25.0, "left_s": 16.0,
    }  # fmt: skip
    assert shown[-1] == pytest.approx((12, 20, 1.0, 25.0, 16.0))
    assert json.loads(said[-1]) == line
    assert list((tmp_path / "events").iterdir())


def test_curves_of_a_resumed_run_hold_each_step_once(tmp_path):
    log = Log(tmp_path, Watcher(), Progress(0, 0.0), 4)
    for step, loss in ((1, 3.0), (2, 9.0), (2, 2.0), (3, 1.0)):
        log.write(step=step, loss=loss)
    log.write(step=3, validation={"presence": 0.75})
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path / LOG_FILE) if "loss" in line] == [
        (1, 3.0), (2, 2.0), (3, 1.0),
    ]  # fmt: skip
    log.draw()
    with Image.open(tmp_path / CURVES_FILE) as picture:
        assert picture.size[0] > 500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
