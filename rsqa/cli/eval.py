"""`rsqa eval`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, plain, start_output
from rsqa.cli.progress import counting_shown
from rsqa.errors import ExitCode


def evaluate(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK",
            help="validation, rsvqa-lr, rsvqa-hr, rsivqa, vhm, vhr10, eurosat, ucm or aid.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the benchmark, as published.", show_default=False)
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="rsvqa: test, val; rsvqa-hr also test_phili.", show_default=False),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="vhm: a JSON file in DIR; by default all of them.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Ask about N pictures only, by a fixed shuffle.", show_default=False),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Let the model write all answers instead of scoring the options.")
    ] = False,
    compat: Annotated[
        Literal["paper"] | None,
        typer.Option(help="Show the published sub-string score, with its bugs, beside the strict one."),
    ] = None,
    no_blind: Annotated[bool, typer.Option("--no-blind", help="Skip the run on grey pictures.")] = False,
    model: opt.Model = None,
    adapter: opt.Adapter = None,
    card: opt.Card = None,
    batch_size: opt.BatchSize = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write report.json, predictions.jsonl and reliability.png.", show_default=False
        ),
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    no_progress: opt.NoProgress = False,
    verbose: opt.Verbose = False,
) -> None:
    """Score a model on a benchmark, beside what is right without a look at the pictures."""
    start_output(quiet, verbose)
    from rsqa.engines.registry import choose_device, choose_dtype, find_model, load_engine
    from rsqa.engines.sizing import default_batch
    from rsqa.evaluate.asking import Examiner
    from rsqa.evaluate.evaluate import Options
    from rsqa.evaluate.evaluate import evaluate as run
    from rsqa.evaluate.files import make_folder, write_report
    from rsqa.evaluate.registry import read_benchmark
    from rsqa.evaluate.table import as_text

    if out is not None:
        make_folder(out)
    ref = find_model(model, card, adapter)
    device = choose_device(device)
    dtype_name = choose_dtype(dtype, device)
    tests = read_benchmark(benchmark, data, split, file or (), ref.card.boxes)
    examiner = Examiner(
        load_engine(ref, device, dtype_name),
        lambda size: batch_size or default_batch(ref, size, device, dtype_name),
        device,
        generate,
    )
    options = Options(
        weights=ref.weights_id, dtype=dtype_name, device=device, blind=not no_blind, published=compat == "paper",
        limit=limit,
    )  # fmt: skip
    with counting_shown(wanted=not (quiet or no_progress)) as on_progress:
        report, predictions = run(examiner, tests, options, on_progress)
    if out is not None:
        write_report(out, report, predictions)
    if json:
        emit_json(asdict(report))
    elif not quiet:
        emit(map(plain, as_text(report).splitlines()))
    if report.pictures_unread:
        log.error("%d pictures could not be opened; see the report", report.pictures_unread)
        raise typer.Exit(ExitCode.TILES_FAILED)
