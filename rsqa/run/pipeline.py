"""A run from request to report: plan it, do its parts, finish its tables.

request ─ draft ─ settle ─> plan ─ the missing parts ─> Dask ─> committed parts ─ finish ─> tables, cube, item
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_hex

from rsqa.engines.registry import load_engine
from rsqa.errors import UsageError
from rsqa.raster.stretch import BLIND
from rsqa.run.derive import derive, whole_summary, withdraw
from rsqa.run.execute import Stop, dask_executor, run_tasks, stop_on_signals
from rsqa.run.folder import PARTS, PLAN, clear, locked, part_path, read_plan, write_plan
from rsqa.run.heap import share_one_heap
from rsqa.run.ledger import Ledger
from rsqa.run.plan import Parts, Plan, check_same
from rsqa.run.report import PlanReport, Progress, RunReport, SourceSummary
from rsqa.run.request import AskRequest, Draft, draft, probe, settle
from rsqa.run.work import Job, do_part
from rsqa.sinks.ground import crs_label
from rsqa.sinks.part import read_parts, valid_part
from rsqa.sinks.whole import sweep

BYTES_PER_ANSWER = 60
"""Of answers.parquet with its parts, measured on short closed questions."""

NOTHING_TO_STRETCH = (
    "no valid pixel in the sampled blocks, so no stretch could be fitted: "
    "should any tile be valid after all, give --scale LOW,HIGH"
)


def ask(
    request: AskRequest,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> RunReport:
    """Ask every tile every question; go on where an earlier run of the same plan stopped.

    Raises the RsqaError that names the exit code. A signal or the end of the time budget is no error: what is in
    flight is committed, and the report says how far the run came.
    """
    share_one_heap()
    ledger, note = Ledger(on_progress or (lambda _: None)), on_note or (lambda _: None)
    drafted = draft(request)
    for sentence in (*(str(error) for _, error in drafted.failed), *drafted.notes):
        note(sentence)
    out = request.folder
    with locked(out):
        plan, parts = _stored_or_new(out, request, drafted)
        if _blind(plan):
            note(NOTHING_TO_STRETCH)
        todo = _missing(out, plan, parts, request.retry_errors)
        ledger.begin(parts, todo)
        summary = None if todo else whole_summary(out, plan.plan_id)
        if summary is None:
            withdraw(out)
        stop = Stop(deadline=None if request.max_duration_s is None else ledger.started + request.max_duration_s)
        with stop_on_signals(stop):
            job = Job(str(out), plan.plan_id, drafted.device, run=token_hex(8))
            _execute(job, todo, request.workers, ledger, stop)
            ledger.raise_failures()
            if ledger.complete and summary is None:
                summary = derive(out, plan, parts, ledger.trace, ledger.facts())
        report = ledger.report(out, plan, parts, drafted, summary, stop)
        return replace(report, warnings=_warnings(drafted, plan))


def finish(out: Path) -> RunReport:
    """Rebuild everything that is derived from the parts. UsageError while parts are missing."""
    ledger = Ledger(lambda _: None)
    read_plan(out)  # a mistyped name must not become a folder
    with locked(out):
        plan = read_plan(out)
        parts = Parts(plan)
        missing = _missing(out, plan, parts, retry_errors=False)
        if missing:
            raise UsageError(
                f"{len(parts) - len(missing)} of {len(parts)} parts of {str(out)!r} are done; run the same `rsqa ask` "
                f"again to do the rest (each file in {PARTS}/ is a GeoParquet of its own)"
            )
        ledger.begin(parts, missing)
        summary = derive(out, plan, parts, ledger.trace, ledger.facts())
        return ledger.report(out, plan, parts, None, summary, Stop())


def plan(request: AskRequest) -> PlanReport:
    """What `ask` would do. Writes nothing; reads headers, the pixels of a stretch, and times one probe batch."""
    drafted = draft(request)
    made = settle(request, drafted, None)
    engine = load_engine(made.model, drafted.device, made.dtype)
    chip_px = max(planned.chip_px for planned in made.sources)
    seconds = probe(engine, made.questions, chip_px, made.batch) * drafted.n_tiles / (request.workers or 1)
    return PlanReport(
        sources=tuple(
            SourceSummary(
                name=p.source.name, width=p.source.width, height=p.source.height, crs=crs_label(p.source.crs_wkt),
                gsd_m=p.source.gsd_m, tiles=len(p.grid),
            )
            for p in made.sources
        ),
        n_tiles=drafted.n_tiles,
        n_parts=len(Parts(made)),
        tile_px=request.tile_px,
        side_px=made.model.card.model_side(chip_px, chip_px)[0],
        batch=made.batch,
        model=made.model.name,
        plan_id=made.plan_id,
        seconds_expected=seconds,
        bytes_expected=BYTES_PER_ANSWER * drafted.n_tiles * len(made.questions),
        warnings=(*(str(error) for _, error in drafted.failed), *_warnings(drafted, made)),
    )  # fmt: skip


def _warnings(drafted: Draft, plan: Plan) -> tuple[str, ...]:
    return (*drafted.notes, NOTHING_TO_STRETCH) if _blind(plan) else drafted.notes


def _blind(plan: Plan) -> bool:
    return plan.scale == "auto" and plan.stretch == BLIND


def _stored_or_new(out: Path, request: AskRequest, drafted: Draft) -> tuple[Plan, Parts]:
    """The plan that is in the folder, if it is the one asked for; else a new one, stored before any part.

    A request that makes no sense has failed before anything is cleared or stored.
    """
    sweep(out)
    sweep(out / PARTS)
    if (out / PLAN).exists() and not request.overwrite:
        stored = read_plan(out)
        planned = {planned.source.name for planned in stored.sources}
        if lost := [error for name, error in drafted.failed if name in planned]:
            raise lost[0]
        asked = settle(request, drafted, stored)
        check_same(stored, asked)
        if asked != stored:  # the same plan, but files or model lie elsewhere now
            write_plan(out, asked)
        return asked, Parts(asked)
    made = settle(request, drafted, None)
    parts = Parts(made)
    if request.overwrite:
        clear(out)
    write_plan(out, made)
    return made, parts


def _missing(out: Path, plan: Plan, parts: Parts, retry_errors: bool) -> list[int]:
    """Parts that are not committed, or are to be done again."""
    plan_id = plan.plan_id
    return [n for n in range(len(parts)) if not _done(out, plan_id, parts, n, len(plan.questions), retry_errors)]


def _done(out: Path, plan_id: str, parts: Parts, number: int, n_questions: int, retry_errors: bool) -> bool:
    path = part_path(out, number)
    whole = valid_part(path, plan_id, number, parts.n_tiles(number) * n_questions)
    return whole and not (retry_errors and _has_errors(path))


def _has_errors(path: Path) -> bool:
    return any("error" in rows["status"].unique().to_pylist() for rows in read_parts([path], 1 << 16, ["status"]))


def _execute(job: Job, todo: Sequence[int], workers: int | None, ledger: Ledger, stop: Stop) -> None:
    """Do the parts; those that crashed once more, one at a time, so that no neighbour can be blamed."""
    if not todo:
        return
    task = partial(do_part, job)
    with dask_executor(workers) as (executor, in_flight):

        def do(numbers: Sequence[int], at_once: int) -> None:
            for number, result in run_tasks(task, numbers, executor, at_once, stop):
                ledger.record(number, result)
                if ledger.hopeless:
                    stop.asked.set()

        do(todo, in_flight)
        do(ledger.crashed, 1)
