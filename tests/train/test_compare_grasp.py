"""The script that compares adapters, on runs whose outcome is written by hand."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsqa.train import grasp

ROOT = Path(__file__).parents[2]
N = 60
"""Questions: two kinds, three of each picture."""


@pytest.fixture(scope="module")
def script():
    return SimpleNamespace(**runpy.run_path(str(ROOT / "recipes" / "grasp" / "compare.py"), run_name="compare"))


def write_run(folder, right, trained=100):
    items = [
        {"picture": i // 3, "kind": "color" if i % 3 == 0 else "presence", "right": bool(right(i))} for i in range(N)
    ]
    folder.mkdir(parents=True)
    told = {"trained": trained, "base": 10_000, "cpu_s_per_epoch": 2.5, "items": items}
    (folder / grasp.HELD_FILE).write_text(json.dumps(told))


def test_the_table_holds_what_the_runs_came_to(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    write_run(tmp_path / "grasp-0", lambda i: i % 3 > 0, trained=300)  # all of presence, no colour
    write_run(tmp_path / "grasp-1", lambda i: True, trained=300)
    write_run(tmp_path / "static-0", lambda i: i % 2 == 0)
    write_run(tmp_path / "static-1", lambda i: i % 2 == 0)
    asked = ["--data", str(tmp_path), "--out", str(tmp_path), "--minutes", "0", "--recipes", "grasp", "static", "lora"]
    found = {line.recipe: line for line in script.main([*asked, "--seeds", "2"])}
    assert found.keys() == {"grasp", "static"}
    best = found["grasp"]
    assert (best.seeds, best.trained, best.share, best.cpu_s_per_epoch) == (2, 300, 0.03, 2.5)
    assert best.oa == pytest.approx(5 / 6)
    assert best.aa == pytest.approx((0.5 + 1) / 2)
    assert best.oa_deviation == pytest.approx((1 / 3) / 2**0.5)
    assert best.oa_interval == (best.oa, best.oa)  # every picture alike
    better, low, high = best.difference["static"]
    assert better == pytest.approx(5 / 6 - 1 / 2)
    assert low < better < high
    assert found["static"].difference == {}
    assert best.tile_ms is None  # there is no model in these folders
    said = capsys.readouterr().out.splitlines()
    assert "4 of 6 runs are done" in said[-2]
    assert json.loads(said[-1])[0]["recipe"] == "grasp"


def test_runs_of_other_questions_are_not_compared(script, tmp_path):
    write_run(tmp_path / "a", lambda i: True)
    write_run(tmp_path / "b", lambda i: True)
    told = json.loads((tmp_path / "b" / grasp.HELD_FILE).read_text())
    told["items"].reverse()
    (tmp_path / "b" / grasp.HELD_FILE).write_text(json.dumps(told))
    runs = {"grasp": script.finished("grasp", [tmp_path / "a"]), "lora": script.finished("lora", [tmp_path / "b"])}
    with pytest.raises(SystemExit, match="other questions"):
        script.line(runs["grasp"], runs, None)


def test_a_run_is_begun_once_continued_and_never_done_twice(script, tmp_path, monkeypatch):
    asked = []

    def train(recipe, data, out, resume, watcher, cache):
        asked.append((recipe.name, recipe.seed, recipe.steps, resume))
        (out / "step-0000001").mkdir(parents=True, exist_ok=True)
        if resume:
            (out / grasp.HELD_FILE).write_text("{}")

    monkeypatch.setattr(grasp, "train", train)
    job = script.Job("static", 1, tmp_path, tmp_path, ("steps=7",), float("inf"))
    late = script.Job("static", 1, tmp_path, tmp_path, ("steps=7",), 0.0)
    said = [script.do(late), script.do(job), script.do(job), script.do(job)]
    assert said == ["static-1: to do", "static-1: saved", "static-1: done", "static-1: done"]
    assert asked == [("static prompt", 1, 7, False), ("static prompt", 1, 7, True)]
