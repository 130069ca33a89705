"""`rsqa merge-adapter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, plain, start_output


def merge_adapter(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter, of rsqa or of peft.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the whole model.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model that was adapted, where it is not found by the name in the adapter.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights; auto: that of the base."),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a merged model.")] = False,
    verbose: opt.Verbose = False,
) -> None:
    """Merge an adapter into its base; print the folder of the model."""
    start_output(verbose=verbose)
    from rsqa.train import merge

    merge.merge_adapter(adapter, out, base, dtype, overwrite)
    emit([plain(out)])
