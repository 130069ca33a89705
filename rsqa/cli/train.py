"""`rsqa train` and `rsqa eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli.output import LogFile, Quiet, Verbose, emit, log, plain, start_output

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Folder with the pictures, as Parquet files.", show_default=False)
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
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe; text in quotes.", show_default=False
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Train a model by a recipe; prints the model's folder."""
    start_output(quiet, verbose, log_file)
    from rsqa.train import sft
    from rsqa.train.recipe import load_recipe

    folder = sft.train(
        load_recipe(recipe, set_ or ()), data, out, resume=resume, echo=lambda line: log.info("%s", line)
    )
    emit([plain(folder)])
