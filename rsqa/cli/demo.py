"""`rsqa demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, plain, start_output, table
from rsqa.cli.progress import progress_shown

if TYPE_CHECKING:
    from rsqa.run.demo import Demo


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the mosaic and the answers.")] = Path(
        "rsqa-demo"
    ),
    size: Annotated[int, typer.Option(min=256, max=20_000, metavar="PX", help="Side of the mosaic, pixels.")] = 4096,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another number gives another mosaic.")] = 7,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_file: opt.LogFile = None,
) -> None:
    """Paint a mosaic of known truth, ask the embedded model about it, and show how often it is right."""
    start_output(quiet, verbose, log_file)
    from rsqa.run.demo import run_demo

    log.info("painting a mosaic of %s px and asking it; about a minute", size)
    with progress_shown(wanted=not quiet) as on_progress:
        made = run_demo(out, size, seed, on_progress=on_progress, on_note=log.warning)
    if json:
        scores = [asdict(score) | {"question": score.question.text} for score in made.scores]
        emit_json({"mosaic": str(made.mosaic), "out": str(made.report.out), "scores": scores})
    else:
        emit(_lines(made))
    raise typer.Exit(made.report.exit_code)


def _lines(made: Demo) -> list[str]:
    rows = [
        (s.question.text, s.n, s.accuracy, s.balanced, f'always "{s.constant}": {s.constant_accuracy:.2f}')
        for s in made.scores
    ]
    return [
        *table(("question", "tiles", "right", "balanced", "for comparison"), rows),
        "",
        "right: share of tiles answered as the truth; balanced: mean of that share over the true answers",
        f"mosaic:  {plain(made.mosaic)}",
        f"answers: {plain(made.report.out)}",
        f"look at them with: rsqa show {plain(made.report.out)}",
    ]
