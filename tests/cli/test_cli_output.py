from __future__ import annotations

import json
import logging

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import rsqa.cli
from rsqa.cli.output import emit_json, log, plain, start_output, table
from rsqa.errors import ExitCode, InputError, OutputError, OutputLocked, QuestionError


@given(st.text())
def test_nothing_a_terminal_obeys_gets_through(text):
    shown = plain(text)
    assert shown.isprintable() or not any(
        ord(c) < 32 or 127 <= ord(c) < 160 or 0x202A <= ord(c) <= 0x202E for c in shown
    )
    assert len(shown) == len(text)


def test_plain_keeps_markup_as_text():
    assert plain("[/] [link=x]y[/link] \x1b]8;;x\x07") == "[/] [link=x]y[/link]  ]8;;x "


def test_a_table_is_aligned():
    lines = table(("name", "tiles", "share"), [("a\nb", 1234, 0.5), ("c", 5, None)])
    assert lines == ["name  tiles  share", "a b   1,234   0.50", "c         5"]
    assert table(("name",), []) == ["name"]


def test_json_is_one_ascii_line_without_nan(capsys):
    emit_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": "é\x1b", "d": (1, 2)})
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line) == {"a": None, "b": [None, 1.5], "c": "é\x1b", "d": [1, 2]}


def test_messages_are_single_lines_with_their_level(capsys):
    start_output()
    log.info("all well\x1b[2J")
    log.warning("take\ncare")
    log.debug("not shown")
    assert capsys.readouterr() == ("", "all well [2J\nrsqa: warning: take care\n")


def test_quiet_keeps_errors(capsys):
    start_output(quiet=True)
    log.info("all well")
    log.warning("take care")
    log.error("broken")
    assert capsys.readouterr() == ("", "rsqa: error: broken\n")


def test_the_log_file_has_everything_with_times(tmp_path, capsys):
    path = tmp_path / "rsqa.log"
    for text in ("first", "second\nline"):
        start_output(quiet=True, log_file=path)
        log.info(text)
    start_output()
    times, levels, words = zip(*(line.split(" ", 2) for line in path.read_text().splitlines()), strict=True)
    assert levels == ("INFO", "INFO")
    assert words == ("first", "second line")
    assert all(len(time) == len("2026-01-31T12:00:00.000Z") and time.endswith("Z") for time in times)
    assert capsys.readouterr().err == ""


def test_a_log_file_that_cant_be_written(tmp_path):
    with pytest.raises(OutputError, match="log file"):
        start_output(log_file=tmp_path / "none" / "rsqa.log")


@pytest.fixture
def failing(monkeypatch):
    """A command `fail` that raises what the test put there."""
    raised: list[BaseException] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail(verbose: bool = typer.Option(False, "-v")) -> None:
        start_output(verbose=verbose)
        raise raised[0]

    monkeypatch.setattr(rsqa.cli, "app", app)

    def run(error: BaseException, *arguments: str) -> int:
        raised[:] = [error]
        return rsqa.cli.run(arguments)

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (QuestionError("q.txt line 3: no"), 2, "rsqa: error: q.txt line 3: no\n"),
        (InputError("no\x1b file"), 4, "rsqa: error: no  file\n"),
        (OutputError("full"), 5, "rsqa: error: full\n"),
        (OutputLocked("held"), 75, "rsqa: error: held\n"),
        (typer.Exit(3), 3, ""),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("odd"), 1, "rsqa: error: ValueError: odd; run again with -v for the traceback\n"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(failing, capsys, error, code, line):
    assert failing(error) == code
    assert capsys.readouterr() == ("", line)


def test_verbose_shows_the_traceback(failing, capsys):
    assert failing(ValueError("odd"), "-v") == ExitCode.UNEXPECTED
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "raise raised[0]" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frob"], "No such command 'frob'; see rsqa --help"),
        (["ask"], "Missing argument 'SOURCE'; see rsqa ask --help"),
        (["ask", "a.tif", "--tile-px", "0"], "'--tile-px'"),
        (["ask", "a.tif", "--max-duration", "3x"], "write for example 90m, 2h or 1h30m"),
        (["ask", "a.tif", "--dtype", "int4"], "'--dtype'"),
        (["ask", "a.tif"], "no question; ask with -q TEXT or --question-file FILE"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(capsys, arguments, words):
    assert rsqa.cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("rsqa: error: ")
    assert words in err


def test_libraries_do_not_talk(capsys):
    start_output(verbose=True)
    logging.getLogger("rasterio._env").debug("user:password@host")
    assert capsys.readouterr().err == ""
