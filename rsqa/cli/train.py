"""`rsqa train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, log, plain, start_output
from rsqa.signals import first_signal

Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", help="Folder that the recipe's data files are in.", show_default=False),
]


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, as those in recipes/.", show_default=False)],
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for checkpoints, log and the model.", show_default=False)
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.", show_default=False),
    ] = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_file: opt.LogFile = None,
) -> None:
    """Train a model by a recipe; print the model's folder."""
    start_output(quiet, verbose, log_file)
    from rsqa.cli.progress import training_shown
    from rsqa.train.log import Watcher
    from rsqa.train.stages import run

    heard: list[int] = []
    with training_shown(not quiet) as step, first_signal(heard.append):
        watcher = Watcher(lambda line: log.info("%s", line), step, lambda: bool(heard))
        folder = run(recipe, set_ or (), data, out, resume, watcher)
    if heard:
        log.warning("stopped by a signal; the same command with --resume goes on")
        raise typer.Exit(128 + heard[0])
    emit([plain(folder)])
