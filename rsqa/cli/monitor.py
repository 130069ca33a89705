"""`rsqa monitor`: scenes that keep coming, asked as they arrive and compared with what was there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsqa.cli import options as opt
from rsqa.cli.monitor_log import say, start_log, start_monitor_output
from rsqa.cli.output import emit, emit_json, log, plain, table
from rsqa.errors import OutputLocked

if TYPE_CHECKING:
    from rsqa.monitor.watch import Watch

app = typer.Typer(no_args_is_help=True, help="Watch folders for new scenes, ask them, and tell what changed.")

MOST_LINES = 50
"""Changes that are printed one by one."""

File = Annotated[Path, typer.Argument(metavar="WATCH.toml", help="What to watch.", show_default=False)]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="WATCH.toml", help="A new file.")] = Path("WATCH.toml"),
    scene: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A scene to take grid and stretch from.", show_default=False),
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Write a WATCH.toml with comments, to be edited."""
    start_monitor_output(verbose)
    from rsqa.monitor.template import init_watch

    init_watch(file, scene)
    emit([str(file)])


@app.command()
def check(file: File, verbose: opt.Verbose = False) -> None:
    """Say how a WATCH.toml is understood and what is wrong with it; writes nothing."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from rsqa.monitor.check import check_watch

    checked = check_watch(watch)
    for warning in checked.warnings:
        log.warning("%s", warning)
    emit(
        [
            *table(("id", "kind", "question"), [(q.id, q.kind, q.text) for q in checked.questions]),
            "",
            f"tiles   {checked.tile:g} x {checked.tile:g} in units of {watch.grid.crs}",
            f"model   {checked.model}",
            f"files   {checked.n_files:,}, of which {checked.n_unsettled:,} may still be written",
            f"out     {plain(watch.out)}",
        ]
    )


@app.command()
def run(
    file: File,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 11 when something changed since the last pass.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try what failed or was given up again, at once.")] = False,
    json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Do one pass and leave; made for cron and timers. Prints nothing unless something is wrong.

    Exit codes: 0 done or nothing new, 3 a scene failed, 10 out of time, 11 something changed (with --exit-code), 75
    another pass is at work.
    """
    start_monitor_output(verbose)
    watch = _watch(file)
    if watch.tell.log:
        start_log(watch.path(watch.tell.log), watch.tell.log_mb)
    from rsqa.monitor.run import run_pass

    try:
        report = run_pass(watch, say, change_code=exit_code, retry=retry)
    except OutputLocked as error:  # a pass that takes longer than cron waits is no news
        log.info("%s", error)
        raise typer.Exit(error.exit_code) from error
    if json:
        emit_json(report.to_json())
    raise typer.Exit(report.exit_code)


@app.command()
def status(file: File, json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Show what was observed, what failed, and the last passes."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from dataclasses import asdict

    from rsqa.monitor.views import status as look

    found = look(watch)
    if json:
        emit_json(asdict(found))
        return
    span = f", {found.first:%Y-%m-%d} to {found.last:%Y-%m-%d}" if found.first and found.last else ""
    gaps = [f"gap       {days:.1f} days from {began:%Y-%m-%d}" for began, days in found.gaps]
    emit(
        [
            f"observed  {found.observed:,} acquisitions{span}",
            *gaps,
            f"changes   {found.changes:,}",
            f"backlog   {found.pending:,} acquisitions, {found.new_files:,} new files",
            "",
            *table(("failed", "tries", "then", "reason"), [(k, n, then, why) for k, why, n, then in found.failures]),
            "",
            *table(
                ("pass", "seconds", "exit", "observed", "changes", "failed", "pending"),
                [
                    (r.started, r.seconds, r.exit_code, r.observed, r.changes, r.failed, r.pending)
                    for r in found.runs[:10]
                ],
            ),
        ]
    )


@app.command()
def history(
    file: File,
    tile: Annotated[str, typer.Option(metavar="ROW/COL", help="A tile of the grid.", show_default=False)],
    question: Annotated[str | None, typer.Option(metavar="ID", help="Only this question.", show_default=False)] = None,
    json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show what a tile answered over time."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from rsqa.monitor.views import history as look

    rows = look(watch, tile, question)
    if json:
        emit_json(list(rows))
        return
    shown = [
        (f"{row['acquired']:%Y-%m-%d %H:%M}", row["question_id"], row["value"], row["confidence"], row["status"],
         row["valid_frac"], row["source"])
        for row in rows
    ]  # fmt: skip
    emit(table(("acquired", "question", "value", "confidence", "status", "valid", "source"), shown))


@app.command()
def replay(
    file: File,
    min_delta: Annotated[
        float | None, typer.Option(min=0, max=1, help="Instead of the one in the file.", show_default=False)
    ] = None,
    confirmations: Annotated[
        int | None, typer.Option(min=1, max=100, help="Instead of those in the file.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write them as GeoParquet.", show_default=False)
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Show which changes another rule finds in the dataset; asks nothing, tells nobody."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from dataclasses import replace

    from rsqa.monitor.changes import basis_of, lines, write_changes
    from rsqa.monitor.changes import replay as rebuild
    from rsqa.monitor.dataset import ledger
    from rsqa.monitor.observe import grid_of

    rule = replace(
        watch.change,
        min_delta=watch.change.min_delta if min_delta is None else min_delta,
        confirmations=confirmations or watch.change.confirmations,
    )
    stored, grid = ledger(watch.out), grid_of(watch)
    changes = rebuild(stored, rule, grid)
    if out is not None:
        write_changes(out, changes, grid, basis_of(stored, rule))
    more = [f"… and {changes.num_rows - MOST_LINES:,} more"] if changes.num_rows > MOST_LINES else []
    emit([*map(plain, lines(changes.slice(0, MOST_LINES))), *more, f"{changes.num_rows:,} changes"])


@app.command()
def cube(
    file: File,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="By default cube.zarr in the monitor's folder.")
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Build the Zarr cube (time, y, x) of the answers to the questions as they are asked now."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from rsqa.monitor.cube import write_cube
    from rsqa.monitor.observe import grid_of, processing_ids
    from rsqa.monitor.run import find_watched_model, questions_of

    questions = questions_of(watch)
    asked = processing_ids(watch, *find_watched_model(watch), questions)
    path = out or watch.out / "cube.zarr"
    n_moments = write_cube(watch.out, path, grid_of(watch), questions, asked)
    log.info("%s moments", f"{n_moments:,}")
    emit([plain(path)])


@app.command()
def report(
    file: File,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="HTML, or PNG for a name that ends so; by default report.html in the monitor's folder."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only what was confirmed from this day on (UTC).", show_default=False),
    ] = None,
    verbose: opt.Verbose = False,
) -> None:
    """Write one page about what changed: a map and a list."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from rsqa.monitor.report import write_report

    path = out or watch.out / "report.html"
    write_report(watch, path, None if since is None else since.replace(tzinfo=UTC))
    emit([plain(path)])


@app.command()
def tidy(file: File, verbose: opt.Verbose = False) -> None:
    """Gather the dataset's files of each day in one, and let go of days before keep_days."""
    start_monitor_output(verbose)
    watch = _watch(file)
    from rsqa.monitor.observe import grid_of
    from rsqa.monitor.upkeep import tidy_dataset
    from rsqa.run.folder import held

    with held(watch.out):
        fewer, days = tidy_dataset(watch, grid_of(watch), datetime.now(UTC))
    emit([f"{fewer:,} files fewer, {days:,} days let go"])


def _watch(file: Path) -> Watch:
    from rsqa.monitor.watch import read_watch

    return read_watch(file)
