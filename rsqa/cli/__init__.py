"""The command `rsqa`: options in, one library call, words out. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import TyperException

import rsqa
from rsqa.cli import (
    ask,
    bench,
    caption,
    classify,
    data,
    demo,
    detect,
    doctor,
    eval,
    export,
    finish,
    merge,
    models,
    monitor,
    report,
    show,
    train,
)
from rsqa.cli.output import emit, log, start_output
from rsqa.errors import ExitCode, RsqaError

app = typer.Typer(
    name="rsqa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(ask.ask)
app.command()(ask.plan)
app.command()(classify.classify)
app.command()(caption.caption)
app.command()(detect.detect)
app.command()(show.show)
app.command()(finish.finish)
app.command()(export.export)
app.command()(report.report)
app.command()(demo.demo)
app.command()(models.models)
app.command()(doctor.doctor)
app.command()(train.train)
app.command("eval")(eval.evaluate)
app.command()(merge.merge_adapter)
app.command()(bench.bench)
app.add_typer(data.app, name="data")
app.add_typer(monitor.app, name="monitor")


def _version(wanted: bool) -> None:
    if wanted:
        emit([f"rsqa {rsqa.__version__}"])
        raise typer.Exit


@app.callback()
def rsqa_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Ask georeferenced imagery of any size questions in words, and get the answers on the ground.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 some tiles failed, 4 input, 5 output, 6 model, 10 out of time,
    11 something changed, 75 another run holds the output, 130 and 143 interrupted.
    """


def main() -> None:
    """Entry point of `rsqa` and `python -m rsqa`."""
    _open_standard_files()
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without the character is no reason to fail
    logging.captureWarnings(True)  # libraries' warnings are for developers
    logging.raiseExceptions = False  # a log file on a full disk must not fill the terminal
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line. -> exit code; every exception becomes one line on stderr."""
    start_output()
    try:
        code = app(args=list(arguments), prog_name="rsqa", standalone_mode=False)
    except TyperException as error:
        if message := error.format_message():
            context = getattr(error, "ctx", None)
            log.error("%s; see %s --help", message.rstrip("."), context.command_path if context else "rsqa")
        return error.exit_code
    except RsqaError as error:
        log.error("%s", error)
        log.debug("raised here", exc_info=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except Exception as error:
        log.error("%s: %s; run again with -v for the traceback", type(error).__name__, error)
        log.debug("raised here", exc_info=True)
        return ExitCode.UNEXPECTED
    return int(code or ExitCode.DONE)


def _open_standard_files() -> None:
    """A standard file that the caller closed becomes /dev/null: an output opened later must not get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
