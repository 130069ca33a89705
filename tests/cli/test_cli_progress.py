from __future__ import annotations

import pytest

from rsqa.cli import progress as module
from rsqa.cli.output import start_output
from rsqa.cli.progress import clock, describe, on_terminal, progress_shown
from rsqa.run.report import Progress


def at(done: int, **changes) -> Progress:
    values = {
        "tiles_done": done,
        "tiles_total": 4489,
        "tiles_skipped": done // 4,
        "tiles_failed": 0,
        "mpx_done": done * 0.2,
        "working_s": 10.0,
        "read_s": 1.0,
        "model_s": 8.0,
        "wait_s": 5.0,
    }
    return Progress(**values | changes)


def test_what_is_said():
    assert describe(at(1200)) == (
        "1,200 of 4,489 tiles, 120.0 tiles/s, 24.0 Mpx/s, 27 s left, 25% skipped, bound by the model"
    )
    assert describe(at(1200, read_s=14.0, tiles_failed=3)).endswith("bound by reading, 3 failed")
    assert describe(at(0)) == "0 of 4,489 tiles"
    assert describe(at(0, working_s=0.0, tiles_total=0)) == "0 of 0 tiles"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 05 min")])
def test_clock(seconds, words):
    assert clock(seconds) == words


def test_off_a_terminal_a_line_every_few_seconds(monkeypatch, capsys):
    start_output()
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress_shown(wanted=True) as show:
        for second in range(12):
            now[0] = float(second)
            show(at(second * 100))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["500", "1,000"]


def test_unwanted_progress_is_silent(capsys):
    with progress_shown(wanted=False) as show:
        show(at(5))
    assert capsys.readouterr() == ("", "")


class Terminal:
    """stderr that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass


def test_on_a_terminal_a_bar_that_leaves_messages_alone(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert on_terminal()
    start_output()
    with progress_shown(wanted=True) as show:
        show(at(1200))
        module.log.warning("take care")
        show(at(2400))
    assert "1,200 of 4,489 tiles" in terminal.written or "2,400 of 4,489 tiles" in terminal.written
    assert "rsqa: warning: take care\n" in terminal.written


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not on_terminal()
