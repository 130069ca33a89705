"""Who hears of a pass: a program when something changed, a file of metrics, a file that says "alive"."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rsqa.errors import UsageError
from rsqa.monitor.watch import Watch
from rsqa.sinks.whole import write_whole_bytes

TOLD = "told.json"
SAID_BYTES = 2000
"""Of what a program said, for the log."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line in the log."""

    level: Literal["info", "warning", "error"]
    name: str
    """Stable, for machines."""
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """Which changes were told, and by which rule they were found."""

    rule: str = ""
    ids: frozenset[str] = frozenset()


def read_told(out: Path) -> Told:
    """What was told. Where that can't be read all counts as untold: twice is better than never."""
    try:
        raw = json.loads((out / TOLD).read_text(encoding="utf-8"))
        return Told(str(raw["rule"]), frozenset(map(str, raw["ids"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Told()


def write_told(out: Path, told: Told) -> None:
    """Whole or not at all."""
    write_whole_bytes(out / TOLD, json.dumps({"rule": told.rule, "ids": sorted(told.ids)}).encode())


def program(watch: Watch) -> list[str]:
    """The program of on_change and its arguments. UsageError when it is not there or may not be run."""
    name, *arguments = watch.tell.on_change
    found = shutil.which(str(watch.path(name)) if "/" in name else name)
    if found is None:
        raise UsageError(f"on_change names {name!r}, which is not a program that can be run; give its whole path")
    return [found, *arguments]


def run_program(watch: Watch, changes: Path, lines: Sequence[str]) -> str | None:
    """Run on_change with the file of changes as its last argument and a line per change on its standard input.

    Without a shell, in a process group of its own that ends when its time is up. -> what went wrong, None: nothing.
    """
    try:
        command = [*program(watch), str(changes)]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as given:
            given.write("".join(f"{line}\n" for line in lines).encode())
            given.seek(0)
            started = subprocess.Popen(
                command, stdin=given, stdout=said, stderr=subprocess.STDOUT, cwd=watch.file.parent,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = started.wait(watch.tell.timeout_s)
            except subprocess.TimeoutExpired:
                _end(started)
                return f"on_change did not end within {watch.tell.timeout_s:g} s"
            said.seek(max(0, said.tell() - SAID_BYTES))
            words = " ".join(said.read().decode(errors="replace").split())
    except (OSError, UsageError) as error:
        return f"on_change can't be run: {error}"
    return None if code == 0 else f"on_change ended with {code}: {words}".rstrip(": ")


def _end(started: subprocess.Popen[bytes]) -> None:
    """The program and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def beat(watch: Watch, now: float) -> None:
    """Write the time to the heartbeat file."""
    if watch.tell.heartbeat:
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        write_whole_bytes(watch.path(watch.tell.heartbeat), f"{stamp}\n".encode())


METRICS = {
    "rsqa_monitor_last_pass_timestamp_seconds": "When the last pass ended.",
    "rsqa_monitor_last_success_timestamp_seconds": "When the last pass ended without an error.",
    "rsqa_monitor_last_exit_code": "Exit code of the last pass.",
    "rsqa_monitor_pass_duration_seconds": "What the last pass took.",
    "rsqa_monitor_acquisitions_observed": "Acquisitions that the last pass observed.",
    "rsqa_monitor_acquisitions_pending": "Acquisitions that are to be observed still.",
    "rsqa_monitor_scenes_failed": "Files and acquisitions that failed and wait, or were given up.",
    "rsqa_monitor_changes_told": "Changes that the last pass told.",
}
"""Gauge -> its help."""


def write_metrics(watch: Watch, values: Mapping[str, float]) -> None:
    """Write the gauges for Prometheus's textfile collector; one that has no new value keeps its old one.

    The last success so survives failures: alert on its age.
    """
    if not watch.tell.metrics:
        return
    path = watch.path(watch.tell.metrics)
    label = f'{{monitor="{_escaped(watch.file.stem)}"}}'
    known = _old_values(path) | {name: float(value) for name, value in values.items()}
    text = "".join(
        f"# HELP {name} {about}\n# TYPE {name} gauge\n{name}{label} {known[name]!r}\n"
        for name, about in METRICS.items()
        if name in known
    )
    write_whole_bytes(path, text.encode())


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _old_values(path: Path) -> dict[str, float]:
    values = {}
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name.partition("{")[0]] = float(value)
    return values
