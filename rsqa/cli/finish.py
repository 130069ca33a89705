"""`rsqa finish`."""

from __future__ import annotations

from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import start_output
from rsqa.cli.summary import show_report


def finish(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Output of rsqa ask: a folder, or s3://…", show_default=False)
    ],
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_file: opt.LogFile = None,
) -> None:
    """Rebuild the tables and the cube from the parts that are done."""
    start_output(quiet, verbose, log_file)
    from rsqa.run import pipeline

    report = pipeline.finish(folder)
    show_report(report, as_json=json, quiet=quiet)
    raise typer.Exit(report.exit_code)
