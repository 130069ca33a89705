"""What became of the parts of one run, for progress, the report and the exit code.

The committed parts are the truth; this is only what the driver saw of them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rsqa.errors import ExitCode, InputError, ModelError, OutputError, RsqaError, UsageError
from rsqa.run.execute import MOST_LOST, Again, Crashed, Lost, Stop
from rsqa.run.plan import Parts, Plan
from rsqa.run.report import Progress, RunReport
from rsqa.run.trace import Trace
from rsqa.run.work import Done, Failed, TooLarge
from rsqa.sinks.summary import AnswersSummary

_ERRORS = {
    ExitCode.USAGE: UsageError,
    ExitCode.OUTPUT: OutputError,
    ExitCode.MODEL: ModelError,
    ExitCode.INPUT: InputError,
}
_WORST_FIRST = (ExitCode.UNEXPECTED, ExitCode.OUTPUT, ExitCode.MODEL, ExitCode.INPUT, ExitCode.USAGE)


class Ledger:
    """Collects results; tells progress after each."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self.started = time.monotonic()
        self.started_at = datetime.now(UTC)
        self.failed: dict[int, Failed] = {}
        self.too_large: dict[int, int] = {}
        """Part that is to be done again -> batch that fits."""
        self.lost: set[int] = set()
        """Parts whose workers were lost, all of them."""
        self.trace = Trace()
        """Everything that was done, for the performance table."""
        self.model_calls = 0
        """Batches that went through the model."""
        self._began = self._last = self.started
        """When the first part could begin, and when the last one was recorded."""
        self._todo = self._tiles = 0
        self._parts_done = self._tiles_done = self._tiles_nodata = self._tiles_failed = self._pixels = 0
        self._parts_halved = self._tiles_from_cache = self._parts_again = self._parts_given_up = 0
        self._cache_damaged: set[Path] = set()
        self._unkept = ""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        """Stage -> time spent in it, summed over slots."""

    def begin(self, parts: Parts, todo: Sequence[int]) -> None:
        """Say what is to be done."""
        self._began = self._last = time.monotonic()
        self._todo, self._tiles = len(todo), sum(map(parts.n_tiles, todo))
        self._tell()

    def record(self, number: int, result: Done | TooLarge | Failed | Crashed | Lost | Again) -> None:
        """Note what became of a part; a second try counts instead of the first."""
        self._last = time.monotonic()
        if isinstance(result, Again):
            self._parts_again += 1
            return
        if isinstance(result, Crashed):
            result = Failed(f"part {number}: it could not be done ({result.error})", ExitCode.UNEXPECTED)
        if isinstance(result, Lost):
            self.lost.add(number)
            result = Failed(f"part {number}: {MOST_LOST} workers were lost with it", ExitCode.UNEXPECTED)
        if isinstance(result, Failed):
            self.failed[number] = result
            return
        if isinstance(result, TooLarge):
            self.too_large[number] = result.batch
            return
        self.failed.pop(number, None)
        self.lost.discard(number)
        self._count(number, result)
        self._tell()

    def give_up(self, number: int, result: Done | Failed) -> None:
        """Note a part whose tiles were committed as errors, since no worker survives it."""
        self.record(number, result)
        self._parts_given_up += isinstance(result, Done)

    def _count(self, number: int, done: Done) -> None:
        """Keep sums, not results: a run may have a million parts, and progress is told after each."""
        self._parts_done += 1
        self._tiles_done += done.receipt.n_tiles
        self._tiles_nodata += done.receipt.n_nodata
        self._tiles_failed += done.receipt.n_error
        self._pixels += done.pixels
        self.model_calls += done.model_calls
        self._parts_halved += done.halved
        self._tiles_from_cache += done.cache.n_tiles
        self._cache_damaged |= done.cache.damaged
        self._unkept = self._unkept or done.cache.unkept
        for span in done.spans:
            self._seconds[span.stage] += span.end - span.start
        self.trace.add(number, done.spans)

    @property
    def complete(self) -> bool:
        """Whether every part that was missing is committed."""
        return self._parts_done == self._todo

    @property
    def crashed(self) -> list[int]:
        """Parts that failed for no known reason: worth another try."""
        return [n for n, failed in self.failed.items() if failed.exit_code == ExitCode.UNEXPECTED]

    @property
    def hopeless(self) -> bool:
        """Whether the other parts would fail in the same way, or be of no use: a changed source ends the plan."""
        return any(failed.exit_code in _ERRORS for failed in self.failed.values())

    def raise_failures(self) -> None:
        """Raise the worst failure as the error that it was in the worker."""
        if not self.failed:
            return
        worst = min(self.failed.values(), key=lambda failed: _WORST_FIRST.index(failed.exit_code))
        kept = f"{self._parts_done} of {self._todo} parts were committed"
        error = _ERRORS.get(worst.exit_code, RsqaError)(f"{worst.message} ({kept})")
        if worst.details:
            error.add_note(worst.details)
        raise error

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return Progress(
            tiles_done=self._tiles_done,
            tiles_total=self._tiles,
            tiles_skipped=self._tiles_nodata,
            tiles_failed=self._tiles_failed,
            mpx_done=self._pixels / 1e6,
            working_s=self._last - self._began,
            read_s=self._seconds["read"],
            model_s=self._seconds["model"],
            wait_s=self._seconds["wait"],
        )

    def remarks(self) -> tuple[str, ...]:
        """Sentences about what did not go as planned and cost nothing but time or the last digits."""
        remarks = []
        if self._parts_halved:
            remarks.append(
                f"{self._parts_halved:,} of {self._parts_done:,} parts did not fit into memory and were asked in "
                "smaller batches than planned, which their files say; leave this run more memory, or "
                "plan anew with a smaller --batch-size and --overwrite"
            )
        if self._parts_again:
            remarks.append(f"begun again on another worker, the first was lost or silent: {self._parts_again:,} times")
        if self._parts_given_up:
            remarks.append(
                f"{self._parts_given_up:,} parts ended every worker that had them, also alone; their tiles are errors "
                "(worker_crash), and --retry-errors tries them again"
            )
        if self._cache_damaged:
            remarks.append(
                f"damaged files in --cache-features: {len(self._cache_damaged):,}; their tiles were read and seen again"
            )
        if self._unkept:
            remarks.append(f"--cache-features could not keep everything ({self._unkept}); the answers are complete")
        return tuple(remarks)

    def facts(self) -> dict[str, Any]:
        """What this run was like, for run.json."""
        progress = self.progress
        return {
            "started": self.started_at.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 3),
            "working_s": round(progress.working_s, 3),
            "parts_done": self._parts_done,
            "tiles_done": progress.tiles_done,
            "model_calls": self.model_calls,
            "parts_halved": self._parts_halved,
            "parts_again": self._parts_again,
            "parts_given_up": self._parts_given_up,
            "tiles_from_cache": self._tiles_from_cache,
            "cache_damaged": len(self._cache_damaged),
            "read_s": round(progress.read_s, 3),
            "wait_s": round(progress.wait_s, 3),
            "model_s": round(progress.model_s, 3),
            "write_s": round(self._seconds["write"], 3),
        }

    def report(
        self, out: Path | str, plan: Plan, parts: Parts, summary: AnswersSummary | None, stop: Stop
    ) -> RunReport:
        """What the run came to; `summary` is None when parts are missing still."""
        progress = self.progress
        return RunReport(
            out=out,
            exit_code=self._exit_code(plan, summary, stop),
            plan_id=plan.plan_id,
            n_tiles=sum(planned.n_tiles for planned in plan.sources),
            n_parts=len(parts),
            parts_resumed=len(parts) - self._todo,
            tiles_by_status=summary.tiles if summary else {},
            questions=summary.questions if summary else (),
            elapsed_s=time.monotonic() - self.started,
            tiles_per_s=progress.tiles_done / progress.working_s if progress.tiles_done else 0.0,
            mpx_per_s=progress.mpx_done / progress.working_s if progress.tiles_done else 0.0,
            bottleneck=progress.bottleneck,
            engine_calls=self.model_calls,
            parts_halved=self._parts_halved,
            parts_again=self._parts_again,
            parts_given_up=self._parts_given_up,
            tiles_from_cache=self._tiles_from_cache,
            failed_sources=plan.failed,
        )

    def _exit_code(self, plan: Plan, summary: AnswersSummary | None, stop: Stop) -> ExitCode:
        if stop.signum is not None:
            return ExitCode(128 + stop.signum)
        if summary is None:
            return ExitCode.OUT_OF_TIME
        if any("error" in question.statuses for question in summary.questions) or plan.failed:
            return ExitCode.TILES_FAILED
        return ExitCode.DONE

    def _tell(self) -> None:
        self._on_progress(self.progress)
