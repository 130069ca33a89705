"""One pass, as cron starts it: what arrived is asked, what changed is told, and the pass leaves.

    discover ─ todo ─> observe, oldest first ─> dataset ─ replay ─> changes.parquet ─> what is new of it is told

Every step is a commit of its own, so a pass may be killed anywhere; the next one goes on from what is there.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsqa.engines.registry import ModelRef, choose_device, choose_dtype, find_model
from rsqa.errors import (
    ExitCode,
    InputError,
    ModelError,
    OutputError,
    PlanMismatch,
    QuestionError,
    RsqaError,
    UsageError,
)
from rsqa.monitor.changes import CHANGES, basis_of, lines, plain_rows, read_changes, replay, rule_id, write_changes
from rsqa.monitor.dataset import OBSERVATIONS, Stored, make_folder, under_first_names
from rsqa.monitor.objects import things_of
from rsqa.monitor.observe import WORK, grid_of, observe, processing_ids, sweep_work
from rsqa.monitor.scenes import discover
from rsqa.monitor.state import PassFacts, State, read_state, write_state
from rsqa.monitor.tell import Event, Told, beat, program, read_told, run_program, write_metrics, write_told
from rsqa.monitor.todo import Todo, arrived, refusal, todos
from rsqa.monitor.upkeep import oldest_kept, settle
from rsqa.monitor.watch import Watch, digest
from rsqa.monitor.web import address, call_webhook, ping
from rsqa.raster.anchored import AnchoredGrid
from rsqa.run.execute import Stop, stop_on_signals
from rsqa.run.folder import held
from rsqa.sinks.whole import discard, sweep, write_whole_bytes
from rsqa.tasks.labels import checked, class_questions
from rsqa.tasks.lines import clean
from rsqa.tasks.question import Question
from rsqa.tasks.question_file import gather_questions

GRID = "grid.json"
REPORTS = "changes"
Say = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What a pass came to."""

    exit_code: ExitCode
    observed: int
    """Acquisitions."""
    tiles: int
    failed: int
    """Scenes that could not be used, in this pass."""
    pending: int
    """Acquisitions that are to be observed still."""
    unsettled: int
    """Files that may still be written."""
    changes: int
    """New ones."""
    changes_file: Path | None
    elapsed_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        file = None if self.changes_file is None else str(self.changes_file)
        return asdict(self) | {"exit_code": int(self.exit_code), "changes_file": file}


@dataclass(slots=True)
class _Pass:
    """What the steps of a pass share."""

    watch: Watch
    grid: AnchoredGrid
    questions: tuple[Question, ...]
    say: Say
    clock: Callable[[], float]
    """Seconds since 1970."""
    stop: Stop
    state: State
    started: float = field(default_factory=time.monotonic)
    observed: int = 0
    tiles: int = 0
    failed: int = 0
    pending: int = 0
    unsettled: int = 0
    codes: set[ExitCode] = field(default_factory=set)

    @property
    def out(self) -> Path:
        return self.watch.out


def questions_of(watch: Watch) -> tuple[Question, ...]:
    """What WATCH.toml asks, for a label and for things included. QuestionError that names the line."""
    ask = watch.ask
    file = watch.path(ask.question_file) if ask.question_file else None
    asked = list(gather_questions(ask.questions, file).questions) if ask.questions or file else []
    if ask.labels:
        asked += class_questions(checked([("labels", clean(label, "labels", "label")) for label in ask.labels]))
    asked += things_of(ask.objects, ask.threshold).values()
    twice = [id_ for id_, n in Counter(question.id.casefold() for question in asked).items() if n > 1]
    if twice:
        raise QuestionError(f"{twice[0]!r} is the id of two things that are asked; give the question another one")
    return tuple(asked)


def run_pass(
    watch: Watch, say: Say, *, change_code: bool = False, retry: bool = False, clock: Callable[[], float] = time.time
) -> PassReport:
    """Do one pass. Raises the RsqaError that names the exit code for what no scene is to blame for.

    change_code: end with CHANGED when something new was told. retry: try what failed again at once.
    """
    questions, grid = questions_of(watch), grid_of(watch)
    check_hearers(watch)
    minutes = watch.limits.max_minutes
    stop = Stop(deadline=time.monotonic() + 60 * minutes if minutes else None)
    with held(watch.out), stop_on_signals(stop):
        going = _Pass(watch, grid, questions, say, clock, stop, read_state(watch.out))
        try:
            check_grid(watch)
            _store_grid(watch)
            if retry:
                going.state.failures.clear()
            beat(watch, clock())
            _ping(going, "start")
            new, file = _tell_changes(going, _observe_all(going))
            code = _exit_code(going, new.num_rows if change_code else 0)
        except RsqaError as error:
            _end(going, error.exit_code, 0)
            raise
        _end(going, code, new.num_rows)
    return PassReport(
        exit_code=code, observed=going.observed, tiles=going.tiles, failed=going.failed, pending=going.pending,
        unsettled=going.unsettled, changes=new.num_rows, changes_file=file,
        elapsed_s=round(time.monotonic() - going.started, 3),
    )  # fmt: skip


def check_hearers(watch: Watch) -> None:
    """UsageError when a program or a webhook that is to hear of changes is not there; a ping may be missing."""
    if watch.tell.on_change:
        program(watch)
    if watch.tell.webhook_env:
        address(watch.tell.webhook_env)


def check_grid(watch: Watch) -> None:
    """PlanMismatch when the monitor began with another grid."""
    path, facts = watch.out / GRID, json.loads(json.dumps(watch.grid_facts))
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise OutputError(f"{str(path)!r} can't be read ({error}); restore it") from error
    if stored != facts:
        name = next(key for key in facts if stored.get(key) != facts[key])
        raise PlanMismatch(
            f"[grid] {name} was {stored.get(name)!r} when the monitor began and is {facts[name]!r} now: tiles would be "
            "other ground; put it back, or choose another out"
        )


def _store_grid(watch: Watch) -> None:
    """With the first pass."""
    if not (watch.out / GRID).exists():
        write_whole_bytes(watch.out / GRID, json.dumps(watch.grid_facts).encode())


def _observe_all(going: _Pass) -> list[Stored]:
    """Observe what arrived, oldest first, as far as the time goes; -> the dataset."""
    watch, state, now = going.watch, going.state, going.clock()
    for folder in (going.out, *(going.out / OBSERVATIONS).glob("acquired_date=*"), *going.out.glob(REPORTS)):
        sweep(folder)
    stored = settle(going.out, going.grid)
    _tell_nothing_of_a_new_rule(going, stored)
    found = discover(watch, now)
    there = arrived(watch, found, state, now, going.say)
    stored = under_first_names(stored, there.acquisitions, going.grid)
    going.unsettled, going.failed = there.n_unsettled, there.n_refused
    ids = {acquisition.id for acquisition in there.acquisitions}
    names = {file.name for file in found}
    state.forget(names)
    state.failures = {key: known for key, known in state.failures.items() if key in names | ids}
    if there.n_refused:
        going.codes.add(ExitCode.TILES_FAILED)
    needs = watch.ask.back_fill
    known = {observation.acquired for file in stored for observation in file.observations}
    oldest = oldest_kept(known, watch.limits.keep_days, datetime.fromtimestamp(now, UTC))
    wanted = [a for a in there.acquisitions if oldest is None or a.acquired >= oldest]
    processing = state.processing.get(watch.settings_id) or (_look_at_model(going) if needs else {})
    left = todos(watch, wanted, stored, going.questions, processing)
    if left:
        fresh = _look_at_model(going)
        if fresh != processing and needs:
            left = todos(watch, wanted, stored, going.questions, fresh)
        processing = fresh
    sweep_work(going.out, {todo.acquisition.id for todo in left})
    due = [todo for todo in left if _due(going, todo)]
    going.pending = len(due)
    for todo in due:
        if going.stop:
            break
        _observe_one(going, todo, processing)
    if going.stop and going.pending:
        going.codes.add(ExitCode.OUT_OF_TIME)
    return settle(going.out, going.grid) if going.observed else stored


def _look_at_model(going: _Pass) -> dict[str, str]:
    """Question id -> processing id, with the model as it is now."""
    model, dtype = find_watched_model(going.watch)
    ids = processing_ids(going.watch, model, dtype, going.questions)
    going.state.processing = {going.watch.settings_id: ids}
    return ids


def find_watched_model(watch: Watch) -> tuple[ModelRef, str]:
    """-> the model of WATCH.toml and its dtype on this machine, not loaded. ModelError when it can't be used."""
    model = watch.model
    adapter = watch.path(model.adapter) if model.adapter else None
    found = find_model(watch.place(model.name), watch.place(model.card), adapter)
    return found, choose_dtype(model.dtype, choose_device(model.device))


def _about(todo: Todo) -> str:
    return digest([todo.acquisition.content_id, [question.id for question in todo.questions]])


def _due(going: _Pass, todo: Todo) -> bool:
    failure = going.state.failure(todo.acquisition.id, _about(todo))
    return failure is None or (failure.due(going.clock()) and not failure.given_up(going.watch.limits.tries))


def _observe_one(going: _Pass, todo: Todo, processing: dict[str, str]) -> None:
    """Observe one acquisition; what is wrong with it is noted, and the next one has its turn."""
    watch, state, key, about = going.watch, going.state, todo.acquisition.id, _about(todo)
    before = state.begin(key, about, going.clock())
    write_state(going.out, state)
    sizes = state.sizes.get(watch.settings_id, {})
    try:
        came = observe(watch, todo.acquisition, todo.questions, processing, todo.replaces, sizes, going.stop)
    except (OutputError, ModelError):
        state.put_back(key, about, before)
        raise
    except Exception as error:
        _note_failure(going, todo, before, error)
        return
    if came.exit_code not in (ExitCode.DONE, ExitCode.TILES_FAILED):
        state.put_back(key, about, before)
        going.codes.add(came.exit_code)
        return
    state.failures.pop(key, None)
    state.sizes = {watch.settings_id: {**came.sizes, **sizes}}
    going.observed, going.tiles, going.pending = going.observed + 1, going.tiles + came.n_tiles, going.pending - 1
    if came.exit_code == ExitCode.TILES_FAILED:
        going.codes.add(ExitCode.TILES_FAILED)
    going.say(Event("info", "observed", f"observed {todo.acquisition.label}: {came.n_tiles:,} tiles",
                    {"acquisition": key, "tiles": came.n_tiles}))  # fmt: skip
    beat(watch, going.clock())


def _note_failure(going: _Pass, todo: Todo, before: Any, error: Exception) -> None:
    """A file at fault is given up after some tries; what nobody expected is tried for good, more and more rarely."""
    refused = isinstance(error, InputError | UsageError)
    reason = str(error) if isinstance(error, RsqaError) else f"{type(error).__name__}: {error}"
    key, tries = todo.acquisition.id, going.watch.limits.tries
    failure = going.state.fail(key, _about(todo), before, reason, going.clock(), refused=refused)
    for folder in (going.out / WORK).glob(f"{key}.*"):
        discard(folder)  # the next try begins anew
    going.failed += 1
    going.pending -= failure.given_up(tries)
    going.codes.add(ExitCode.TILES_FAILED if refused else ExitCode.UNEXPECTED)
    going.say(refusal(todo.acquisition.label, reason, given_up=failure.given_up(tries)))


def _tell_nothing_of_a_new_rule(going: _Pass, stored: Sequence[Stored]) -> None:
    """Another rule finds other changes in old scenes: those are in changes.parquet, and nobody is woken for them."""
    told, rule = read_told(going.out), rule_id(going.watch.change)
    if told.rule == rule:
        return
    changes = _changes(going, stored)
    new = set(changes["change_id"].to_pylist()) - told.ids
    if told.rule and new:
        going.say(Event("info", "rule_changed", f"the rule is another one: {len(new):,} changes of older scenes are "
                        f"in {CHANGES} and are not told", {"changes": len(new)}))  # fmt: skip
    write_told(going.out, Told(rule, told.ids | new))


def _changes(going: _Pass, stored: Sequence[Stored]) -> pa.Table:
    """All changes, from the file if that is of this dataset and rule, else rebuilt."""
    basis = basis_of(stored, going.watch.change)
    table, of = read_changes(going.out / CHANGES)
    if of != basis:
        table = replay(stored, going.watch.change, going.grid)
        write_changes(going.out / CHANGES, table, going.grid, basis)
    return table


def _tell_changes(going: _Pass, stored: Sequence[Stored]) -> tuple[pa.Table, Path | None]:
    """Tell the changes that were not told yet; -> them, and the file that holds them."""
    changes, told = _changes(going, stored), read_told(going.out)
    new = changes.filter(pc.invert(pc.is_in(changes["change_id"], pa.array(sorted(told.ids), pa.string()))))
    if not new.num_rows:
        return new, None
    ids = new["change_id"].to_pylist()
    latest = max(new["confirmed"].to_pylist()).astimezone(UTC)
    file = going.out / REPORTS / f"{latest:%Y%m%dT%H%M%SZ}.{digest(sorted(ids))}.parquet"
    make_folder(file.parent)
    write_changes(file, new, going.grid, "")
    going.say(Event("info", "changed", f"{len(ids):,} changes: {file}", {"changes": len(ids), "file": str(file)}))
    faults = _heard(going.watch, file, new)
    if faults:
        going.codes.add(ExitCode.UNEXPECTED)
        for fault in faults:
            going.say(Event("error", "not_told", f"{fault}; {len(ids):,} changes are told again by the next pass"))
        return new, file
    write_told(going.out, Told(told.rule, told.ids | set(ids)))
    return new, file


def _heard(watch: Watch, file: Path, new: pa.Table) -> list[str]:
    """Tell all who want to hear of changes; -> what went wrong."""
    told = lines(new)
    faults = [run_program(watch, file, told)] if watch.tell.on_change else []
    if watch.tell.webhook_env:
        faults.append(call_webhook(watch, file, plain_rows(new), told))
    return [fault for fault in faults if fault is not None]


def _ping(going: _Pass, end: str) -> None:
    """Whoever does not hear it: that is no fault of the pass."""
    fault = ping(going.watch, end)
    if fault is not None:
        going.say(Event("info", "no_ping", fault))


_SEVERITY = (
    ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.UNEXPECTED, ExitCode.CHANGED, ExitCode.OUT_OF_TIME,
    ExitCode.TILES_FAILED,
)  # fmt: skip
"""Worst first. A change is heard over a scene that failed, which `rsqa monitor status` tells."""


def _exit_code(going: _Pass, n_changes: int) -> ExitCode:
    if going.stop.signum is not None:
        going.codes.add(ExitCode(128 + going.stop.signum))
    if n_changes:
        going.codes.add(ExitCode.CHANGED)
    return next((code for code in _SEVERITY if code in going.codes), ExitCode.DONE)


def _end(going: _Pass, code: ExitCode, n_changes: int) -> None:
    """Remember the pass and write what others look at."""
    now, seconds = going.clock(), round(time.monotonic() - going.started, 3)
    started = datetime.fromtimestamp(now - seconds, UTC).isoformat(timespec="seconds")
    facts = PassFacts(started, seconds, int(code), going.observed, n_changes, going.failed, going.pending)
    fine = code in (ExitCode.DONE, ExitCode.CHANGED, ExitCode.OUT_OF_TIME)
    going.state.ended(facts)
    write_state(going.out, going.state)
    write_metrics(
        going.watch,
        {
            "rsqa_monitor_last_pass_timestamp_seconds": now,
            **({"rsqa_monitor_last_success_timestamp_seconds": now} if fine else {}),
            "rsqa_monitor_last_exit_code": int(code),
            "rsqa_monitor_pass_duration_seconds": seconds,
            "rsqa_monitor_acquisitions_observed": going.observed,
            "rsqa_monitor_acquisitions_pending": going.pending,
            "rsqa_monitor_scenes_failed": len(going.state.failures),
            "rsqa_monitor_changes_told": n_changes,
        },
    )
    beat(going.watch, now)
    _ping(going, str(0 if fine else int(code)))
