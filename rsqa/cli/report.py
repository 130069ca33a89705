"""`rsqa report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, log, plain, start_output
from rsqa.errors import UsageError


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Output folder of rsqa ask.", show_default=False, callback=opt.folder_only),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; by default DIR/report.html.", show_default=False),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a map of one question as a picture; the page only with --out.",
            show_default=False,
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            "-q", "--question", metavar="ID", help="The question of --png; by default the first.", show_default=False
        ),
    ] = None,
    megapixels: Annotated[
        float,
        typer.Option(
            min=0.1, max=200, metavar="N", help="Size of the pictures of all sources together; a page holds them all."
        ),
    ] = 20,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write one HTML file to look at the answers: a map, the picture of each tile, charts. It needs no network.

    Any browser opens it from a disk or an e-mail. The pictures are made from the sources, which must still be there.
    """
    start_output(quiet, verbose)
    if question is not None and png is None:
        raise UsageError("-q names the question of a --png; the page shows all questions")
    from rsqa.report.build import gather, write_report
    from rsqa.report.still import draw_map

    found = gather(folder, int(megapixels * 1e6))
    for note in found.notes:
        log.info("%s", note)
    written = []
    if png is not None:
        draw_map(png, found, question)
        written.append(png)
    if png is None or out is not None:
        written.append(out or folder / "report.html")
        write_report(written[-1], found)
    if not quiet:
        emit(plain(path) for path in written)
