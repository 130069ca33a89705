"""What a worker process keeps from one part of a run to the next: the plan, the model and its sessions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from rsqa.engines.base import Engine, Session
from rsqa.engines.registry import load_engine
from rsqa.errors import RsqaError
from rsqa.run.heap import share_one_heap, trim_heap
from rsqa.run.place import Place, place_at
from rsqa.run.plan import Parts, Plan, PlannedSource

SESSIONS = 4
"""Chip sizes that a process is ready for; parts of one size follow one another."""
TRIM_S = 10.0
"""Seconds between two trims of the heap: about a part; small parts should not fetch their memory anew each time."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know to do parts; small, it travels with every task."""

    out: str
    """See `Place.name`."""
    plan_id: str
    device: str
    run: str
    """Another one for each run: the next one of the same plan may find its sources elsewhere."""
    cache: str | None = None
    """Folder of features; None: nothing is kept and nothing looked up."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Name -> value: what GDAL is to find in a process that did not inherit it; may hold secrets, so never shown."""


@dataclass(slots=True, eq=False)
class Workbench:
    """Serves all parts of one run in one process."""

    job: Job
    place: Place
    """Of the output."""
    stamp: Hashable
    """Of the stored plan."""
    plan: Plan
    parts: Parts
    unkept: str = ""
    """Why no more features are kept."""
    _engine: Engine | None = None
    _sessions: dict[tuple[int, int], tuple[int, Session]] = field(default_factory=dict)
    """Chip (H, W) -> batch and session, the latest last."""
    _trimmed: float = 0.0
    """`time.monotonic()` of the last trim of the heap."""
    _known_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Thousands of chips of one folder have the same processing ids."""

    def ids(self, planned: PlannedSource) -> tuple[str, ...]:
        """Processing id of each row question about this source."""
        key = repr((planned.source.bands, planned.cut))
        if key not in self._known_ids:
            self._known_ids[key] = tuple(self.plan.processing_id(planned, q) for q in self.plan.row_questions)
        return self._known_ids[key]

    def session(self, chip_shape: tuple[int, int], batch: int) -> Session:
        """The session for chips (H, W) of that size; loads the model when first asked. The caller holds MODEL."""
        if self._engine is None:
            self._engine = load_engine(self.plan.model, self.job.device, self.plan.dtype)
        known = self._sessions.pop(chip_shape, None)
        if known is None or known[0] != batch:
            known = None  # first: another batch is asked for where memory is short
            while len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            known = batch, self._engine.prepare(self.plan.questions, chip_shape, batch)
        self._sessions[chip_shape] = known
        return known[1]

    def check_plan(self) -> None:
        """RsqaError when the output holds another plan by now, and another run works on that."""
        if self.place.stamp() != self.stamp:
            raise _changed(self.job)

    def trim(self) -> None:
        """Give the system back what the heap holds for nothing, if the last time was long ago."""
        if time.monotonic() - self._trimmed > TRIM_S:
            trim_heap()
            self._trimmed = time.monotonic()


_WORKBENCHES: dict[Job, Workbench] = {}
_SETTING_UP = threading.Lock()
"""Not MODEL: a slot that begins a part must be able to read while the other one is in the model."""


def workbench(job: Job) -> Workbench:
    """The one of this process; set up when the first part of a run is done. RsqaError when its plan is gone."""
    with _SETTING_UP:
        if job not in _WORKBENCHES:
            os.environ.update(job.environment)
            share_one_heap()
            place = place_at(job.out)
            stamp, plan = place.stamp(), place.plan()
            if plan.plan_id != job.plan_id:
                raise _changed(job)
            _WORKBENCHES.clear()  # a process serves one run at a time
            _WORKBENCHES[job] = Workbench(job, place, stamp, plan, Parts(plan))
        return _WORKBENCHES[job]


def _changed(job: Job) -> RsqaError:
    return RsqaError(f"the plan in {job.out!r} changed under the run; run the same command again")
