"""A run from request to report: plan it, do its parts, finish its tables.

request ─ draft ─ settle ─> plan ─ the missing parts ─> Dask ─> committed parts ─ finish ─> tables, cube, item
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_hex

import rsqa
from rsqa.engines.registry import load_engine
from rsqa.errors import UsageError
from rsqa.raster.stretch import BLIND
from rsqa.run.cluster import DaskCrew, check_dashboard, local_crew, remote_crew
from rsqa.run.derive import derive, whole_summary
from rsqa.run.draft import Draft, draft, first_few, settle, trial
from rsqa.run.execute import Stop, run_tasks, stop_on_signals
from rsqa.run.features import CacheCost, cache_cost, open_cache
from rsqa.run.fitness import gdal_environment, unfit
from rsqa.run.folder import PARTS, PLAN, part_path, parts_there
from rsqa.run.forecast import Doers, expected
from rsqa.run.heap import share_one_heap
from rsqa.run.ledger import Ledger
from rsqa.run.place import Place, place_at
from rsqa.run.plan import Parts, Plan, check_same
from rsqa.run.report import PlanReport, Progress, RunReport, SourceSummary, size
from rsqa.run.request import Request
from rsqa.run.resident import resident_bytes
from rsqa.run.trial import Here, Site, reading
from rsqa.run.work import do_part, give_up
from rsqa.run.workbench import Job
from rsqa.sinks.ground import crs_label
from rsqa.sinks.part_reading import read_parts, valid_part
from rsqa.sinks.whole import sweep
from rsqa.tasks.task import Classify

Note = Callable[[str], None]
"""Takes a sentence for the user."""

NOTHING_TO_STRETCH = (
    "no valid pixel in the sampled blocks, so no stretch could be fitted: "
    "should any tile be valid after all, give --scale LOW,HIGH"
)


def ask(
    request: Request,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Note | None = None,
    on_dashboard: Note | None = None,
) -> RunReport:
    """Ask every tile every question; go on where an earlier run of the same plan stopped.

    `on_dashboard` is told the address of Dask's dashboard; None: there is none. Raises the RsqaError that names the
    exit code. A signal or the end of the time budget is no error: what is in flight is committed, and the report says
    how far the run came.
    """
    if on_dashboard and request.scheduler is None:
        check_dashboard()
    share_one_heap()
    ledger, note = Ledger(on_progress or (lambda _: None)), on_note or (lambda _: None)
    drafted = draft(request)
    for sentence in (*_left_out(drafted), *drafted.notes):
        note(sentence)
    place = request.place
    with place.held() as out:
        plan, parts = _stored_or_new(place, out, request, drafted, note)
        for sentence in _remarks(request, plan):
            note(sentence)
        place.fetch()
        todo = missing_parts(out, plan, parts, request.retry_errors)
        if todo and request.cache_features:
            cost = _cache_cost(request, drafted, plan)
            if cost.n_tiles:
                note(_price(cost))
            open_cache(request.cache_features, plan.on(drafted.device))
        ledger.begin(parts, todo)
        summary = whole_summary(out, plan) if not todo and place.has(plan.task.table) else None
        if summary is None:
            place.withdraw()
        stop = Stop(deadline=None if request.max_duration_s is None else ledger.started + request.max_duration_s)
        with stop_on_signals(stop):
            if todo:
                with _crew(request, drafted.device, place.name, note, on_dashboard) as crew:
                    plan = _execute(_job(request, drafted, plan), place, plan, todo, crew, ledger, stop, note)
            ledger.raise_failures()
            if ledger.complete and summary is None:
                sweep(out / PARTS)  # of workers that died on this machine
                place.gather(todo, len(parts))
                summary = derive(out, plan, parts, ledger.trace, ledger.facts())
                place.publish()
        for sentence in ledger.remarks():
            note(sentence)
        report = ledger.report(place.shown, plan, parts, summary, stop)
        return replace(report, warnings=(*drafted.notes, *_remarks(request, plan), *ledger.remarks()))


def finish(name: Path | str) -> RunReport:
    """Rebuild everything that is derived from the parts of an output. UsageError while parts are missing."""
    ledger, place = Ledger(lambda _: None), place_at(str(name))
    place.plan()  # a mistyped name must not become a folder
    with place.held() as out:
        plan = place.plan()
        parts = Parts(plan)
        place.fetch()
        missing = missing_parts(out, plan, parts, retry_errors=False)
        if missing:
            raise UsageError(
                f"{len(parts) - len(missing)} of {len(parts)} parts of {str(place.shown)!r} are done; run the same "
                f"`rsqa {plan.task.verb}` again to do the rest (each file in {PARTS}/ is a GeoParquet of its own)"
            )
        ledger.begin(parts, missing)
        summary = derive(out, plan, parts, ledger.trace, ledger.facts())
        place.publish()
        return ledger.report(place.shown, plan, parts, summary, Stop())


def plan(request: Request) -> PlanReport:
    """What `ask` would do. Writes nothing; reads headers and a stretch's pixels, times a probe batch and a block."""
    share_one_heap()
    start = time.perf_counter()
    drafted = draft(request)
    driver_bytes = resident_bytes()
    with _site(request, drafted.device, lambda _: None) as site:
        made = settle(request, drafted, None, site)
        planned_s = time.perf_counter() - start
        asked = replace(trial(made, request, drafted.device), batch=made.batch)
        tried = site.call(asked.measure)
        processes = len(site)
    made = replace(made, batch=tried.batch)
    parts = Parts(made)
    doers = Doers(
        processes=processes, cores=tried.cores * (processes if request.scheduler else 1),
        alone=request.workers is None and request.scheduler is None, driver_bytes=driver_bytes, planned_s=planned_s,
    )  # fmt: skip
    cost = _cache_cost(request, drafted, made) if request.cache_features else None
    return PlanReport(
        sources=tuple(
            SourceSummary(
                name=p.source.name, width=p.source.width, height=p.source.height, crs=crs_label(p.source.crs_wkt) or "",
                gsd_m=p.source.gsd_m, tiles=p.n_tiles,
            )
            for p in made.first_pass
        ),
        n_tiles=drafted.n_tiles,
        n_parts=len(parts),
        tile_px=max(planned.tile_px for planned in made.sources) if request.tile_px is None else request.tile_px,
        side_px=made.model.card.model_side(*asked.shape)[0],
        batch=made.batch,
        model=made.model.name,
        plan_id=made.plan_id,
        expected=expected(made, parts, tried, reading(made, parts), doers),
        cache_bytes=cost.n_bytes if cost else None,
        cache_free_bytes=cost.free_bytes if cost else None,
        warnings=(*_left_out(drafted), *drafted.notes, *_remarks(request, made)),
    )  # fmt: skip


def _left_out(drafted: Draft) -> list[str]:
    return first_few([str(error) for _, error in drafted.failed], "sources left out, which run.json names")


def _remarks(request: Request, plan: Plan) -> tuple[str, ...]:
    """What the user should know of the plan."""
    remarks = []
    if plan.scale == "auto" and plan.stretch == BLIND:
        remarks.append(NOTHING_TO_STRETCH)
    if (
        isinstance(plan.task, Classify)
        and plan.task.cog
        and not any(p.source.placed and not p.whole for p in plan.sources)
    ):
        remarks.append("--cog asked, but no source with a place on the ground is cut in tiles: there will be no raster")
    if request.batch_size and plan.batch < request.batch_size:
        remarks.append(
            f"--batch-size {request.batch_size} asked, the plan has batches of {plan.batch}: one that does not "
            "fit into memory is halved; --overwrite plans anew"
        )
    return tuple(remarks)


def _cache_cost(request: Request, drafted: Draft, plan: Plan) -> CacheCost:
    assert request.cache_features is not None  # only asked then
    engine = load_engine(plan.model, drafted.device, plan.dtype)
    return cache_cost(request.cache_features, plan.on(drafted.device), engine)


def _price(cost: CacheCost) -> str:
    return (
        f"--cache-features adds at most {size(cost.n_bytes)} for {cost.n_tiles:,} tiles to {str(cost.root)!r}, "
        f"where {size(cost.free_bytes)} are free"
    )


def _stored_or_new(place: Place, out: Path, request: Request, drafted: Draft, note: Note) -> tuple[Plan, Parts]:
    """The plan that is in the output, if it is the one asked for; else a new one, stored before any part.

    A request that makes no sense has failed before anything is cleared or stored.
    """
    sweep(out)
    sweep(out / PARTS)
    if place.has(PLAN) and not request.overwrite:
        stored = place.plan()
        planned = {planned.source.name for planned in stored.sources}
        if lost := [error for name, error in drafted.failed if name in planned]:
            raise lost[0]
        asked = settle(request, drafted, stored, Here(1))
        check_same(stored, asked)
        if asked != stored:  # the same parts, but files or model lie elsewhere now, or something else is made of them
            if (asked.task, asked.failed) != (stored.task, stored.failed):
                place.withdraw()
            place.write_plan(asked)
        return asked, Parts(asked)
    with _site(request, drafted.device, note) as site:
        made = settle(request, drafted, None, site)
    parts = Parts(made)
    if request.cache_features:
        _cache_cost(request, drafted, made)
    if request.overwrite:
        place.clear()
    if drafted.searches:
        place.write_searches(drafted.searches)
    place.write_plan(made)
    return made, parts


def missing_parts(out: Path, plan: Plan, parts: Parts, retry_errors: bool) -> list[int]:
    """Numbers of parts that are not committed, or are to be done again."""
    plan_id, n_questions, there = plan.plan_id, len(plan.row_questions), parts_there(out)
    paths = (part_path(out, number) for number in range(len(parts)))
    return [
        number
        for number, path in enumerate(paths)
        if path.name not in there or not _done(path, plan_id, parts, number, n_questions, retry_errors)
    ]


def _done(path: Path, plan_id: str, parts: Parts, number: int, n_questions: int, retry_errors: bool) -> bool:
    whole = valid_part(path, plan_id, number, parts.n_tiles(number) * n_questions)
    return whole and not (retry_errors and _has_errors(path))


def _has_errors(path: Path) -> bool:
    return any("error" in rows["status"].unique().to_pylist() for rows in read_parts([path], 1 << 16, ["status"]))


def _job(request: Request, drafted: Draft, plan: Plan) -> Job:
    cache = None if request.cache_features is None else str(request.cache_features.absolute())
    environment = gdal_environment() if request.scheduler else ()  # processes of this machine inherit it
    return Job(request.place.name, plan.plan_id, drafted.device, token_hex(8), cache, environment)


def _crew(request: Request, device: str, out: str, note: Note, show: Note | None) -> AbstractContextManager[DaskCrew]:
    """Who does the parts; `out` empty: no output is needed yet."""
    check = partial(unfit, rsqa.__version__, device, out)
    if request.scheduler is not None:
        return remote_crew(request.scheduler, check, note, show)
    return local_crew(request.workers, device, check, note, show)


@contextmanager
def _site(request: Request, device: str, note: Note) -> Iterator[Site]:
    """Where the model can be tried out before there is a plan."""
    if request.scheduler is None:
        yield Here(request.workers or 1)
    else:
        with _crew(request, device, "", note, None) as crew:
            yield crew


def _execute(
    job: Job, place: Place, plan: Plan, todo: Sequence[int], crew: DaskCrew, ledger: Ledger, stop: Stop, note: Note
) -> Plan:
    """Do the parts; those that crashed once more, one at a time, so that no neighbour can be blamed.

    A part that ends its workers even then is committed with its tiles as errors. -> the plan that was followed: stored
    anew with a smaller batch where its first parts did not fit into memory.
    """

    def do(plan: Plan, numbers: Sequence[int], at_once: int | None) -> Plan:
        left = deque(numbers)
        while left and not stop:
            task = partial(do_part, replace(job, plan_id=plan.plan_id))
            for number, result in run_tasks(task, _until_too_large(left, ledger), crew, stop, at_once):
                ledger.record(number, result)
                if ledger.hopeless:
                    stop.asked.set()
            if ledger.too_large and not place.begun():
                plan = _shrink(place, plan, min(ledger.too_large.values()), note)
            left.extend(ledger.too_large)
            ledger.too_large.clear()
        return plan

    plan = do(plan, todo, None)
    suspects = ledger.crashed
    ledger.lost.clear()
    plan = do(plan, suspects, 1)
    for number in sorted(ledger.lost):
        ledger.give_up(number, give_up(replace(job, plan_id=plan.plan_id), number))
    return plan


def _until_too_large(left: deque[int], ledger: Ledger) -> Iterator[int]:
    """Take numbers from `left` until a part is too large: what is in flight decides whether the plan is changed."""
    while left and not ledger.too_large:
        yield left.popleft()


def _shrink(place: Place, plan: Plan, batch: int, note: Note) -> Plan:
    """Store the plan with a smaller batch; no part of it may be there, or in work."""
    note(f"batches of {plan.batch} tiles do not fit into memory: the plan now has batches of {batch}")
    smaller = replace(plan, batch=batch)
    place.write_plan(smaller)
    return smaller
