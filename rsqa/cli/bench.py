"""`rsqa bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, start_output

_GRID = "What is asked"
_HOW = "How it is measured"


def bench(
    shape: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="nano (the embedded weights), 2b (random weights in the shape of Qwen2-VL-2B), or a model's folder.",
            rich_help_panel=_GRID,
        ),
    ] = "nano",
    tile_px: Annotated[str, typer.Option(metavar="LIST", help="Tile sides, pixels.", rich_help_panel=_GRID)] = "224",
    questions: Annotated[str, typer.Option(metavar="LIST", help="Questions per tile.", rich_help_panel=_GRID)] = "8",
    answer: Annotated[
        str,
        typer.Option(metavar="LIST", help="closed, or a number of tokens to write.", rich_help_panel=_GRID),
    ] = "closed",
    tiles: Annotated[int, typer.Option(min=1, metavar="N", help="Tiles.", rich_help_panel=_GRID)] = 16,
    rival_tiles: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Tiles for the sides that are not rsqa, where they are slow; by default all.",
            rich_help_panel=_GRID,
            show_default=False,
        ),
    ] = None,
    sides: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="a, b, b', c: transformers; d: vLLM; e: rsqa, model only; e': the same with kept features; "
            "file: rsqa, file to GeoParquet.",
            rich_help_panel=_HOW,
        ),
    ] = "a,b,b',c,d,e,e',file",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in turns.", rich_help_panel=_HOW)] = 3,
    sample: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Tiles whose answers are compared with float32; 0: none.", rich_help_panel=_HOW
        ),
    ] = 2,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads of each side; default: all cores.",
            rich_help_panel=_HOW,
            show_default=False,
        ),
    ] = None,
    vllm_python: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Python of an environment with vLLM.", rich_help_panel=_HOW, show_default=False
        ),
    ] = None,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to keep the checkpoint in, 4.4 GB for 2b; by default a temporary one.",
            rich_help_panel=_HOW,
            show_default=False,
        ),
    ] = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also draw a chart.", show_default=False),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the last line to a file.", show_default=False)
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Measure rsqa against other ways to ask the same model, side by side on this machine.

    Prints a table per case and, as the last line, one JSON object with everything.
    """
    start_output(verbose=verbose)
    from rsqa.bench.request import BenchRequest

    request = BenchRequest(
        shape=shape,
        tile_px=tile_px,
        questions=questions,
        answer=answer,
        tiles=tiles,
        rival_tiles=rival_tiles,
        sides=sides,
        rounds=rounds,
        sample=sample,
        threads=threads,
        vllm_python=vllm_python,
        checkpoint_dir=checkpoint_dir,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        plot=plot,
        json=json,
    )
    from rsqa.bench.command import bench as run_bench

    emit_json(run_bench(request, say=lambda line: log.info("%s", line), show=emit))
