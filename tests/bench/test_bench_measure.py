"""The driver with sides that are made to fail: one row each, and the others go on."""

from __future__ import annotations

import pytest

from rsqa.bench import measure as driver
from rsqa.bench.measure import Contest, SideProcess, measure
from rsqa.bench.sides import SideKind
from rsqa.bench.work import Case, Setup, pictures, questions

CASE = Case(56, 2, 2, None)
SIDE = """
import os
from rsqa.bench.work import Case
LOG = {log!r}
class Fine:
    name = "fine"
    def __init__(self, setup): self.setup = setup
    def note(self, what):
        with open(LOG, "a") as file: print(self.name, what, file=file)
    def prepare(self, case): print("noise on stdout"); self.note("prepare"); return ["done"]
    def run(self): self.note("run"); return {{"extra": 1.0, "flop_per_s": 1.0}}
    def tokens(self, n): return [[[7]] * 2] * n
class Other(Fine): name = "other"
class Dies(Fine):
    def run(self): os._exit(3)
class Raises(Fine):
    def prepare(self, case): raise ValueError("too\\nmany lines")
class Absent:
    def __init__(self, setup): import no_such_package
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Stand-ins for all sides, importable by their processes as rsqa.bench.fakes would be."""
    log = tmp_path / "log.txt"
    (tmp_path / "fakes.py").write_text(SIDE.format(log=str(log)))
    code = f"import rsqa.bench; rsqa.bench.__path__.append({str(tmp_path)!r})\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = {name.lower(): SideKind(name.lower(), name, f"fakes:{name}") for name in SIDE_NAMES}
    monkeypatch.setattr(driver, "SIDES", names)
    monkeypatch.setattr(driver, "CEILING", names["fine"])
    monkeypatch.setattr(driver, "REFERENCE", SideKind("reference", "", "fakes:Fine"))
    return log


SIDE_NAMES = ("Fine", "Other", "Dies", "Raises", "Absent")
SETUP = Setup("nowhere", "cpu", "float32", 1, "")


def test_rounds_go_there_and_back(fakes):
    contest = Contest(SETUP, (CASE,), ("other",), rounds=3, sample=0)
    [measured] = measure(contest, lambda _: None)
    runs = [line.split()[0] for line in fakes.read_text().splitlines() if line.endswith("run")]
    assert runs == ["fine", "other", "other", "fine", "fine", "other"]
    [row] = measured.rows
    assert len(row.runs) == 3
    assert row.runs[0]["extra"] == 1.0
    assert row.runs[0]["peak_mb"] > 10
    assert row.compared is None


def test_a_failing_side_is_a_row_and_ends_no_other(fakes):
    contest = Contest(SETUP, (CASE, CASE), ("dies", "raises", "absent", "other"), rounds=2, sample=1)
    for measured in measure(contest, lambda _: None):
        dies, raises, absent, other = measured.rows
        assert (dies.state, raises.state, absent.state, other.state) == ("failed", "failed", "not run", "ok")
        assert dies.why.startswith("its process ended with 3")
        assert raises.why == "ValueError: too"
        assert "no_such_package" in absent.why
        assert len(other.runs) == 2
        assert other.compared == {"tokens": [[[7]] * 2], "option_logprobs": None}


def test_no_process_outlives_an_interruption(fakes, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(SideProcess, "load", lambda self: started.append(self) or {})

    def interrupt(line):
        if started:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(measure(Contest(SETUP, (CASE,), ("other",), 1, 1), interrupt))
    assert started
    assert not any(process.alive for process in started)


def test_slow_sides_may_see_fewer_tiles():
    contest = Contest(SETUP, (), (), 1, 0, rival_tiles=1)
    assert contest.case_of("a", CASE).n_tiles == 1
    assert contest.case_of("e", CASE).n_tiles == contest.case_of("file", CASE).n_tiles == 2


def test_pictures_and_questions_are_the_same_everywhere_and_differ_among_themselves():
    more = Case(56, 3, 70, None)
    assert (pictures(more)[:2] == pictures(CASE)).all()
    assert len({tile.tobytes() for tile in pictures(more)}) == 3
    assert len({question.text for question in questions(more)}) == 70
