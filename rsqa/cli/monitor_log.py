"""What a monitor says: on stderr only what somebody should look at, in its log file everything, for machines."""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from rsqa.cli.output import log, start_output
from rsqa.errors import OutputError

if TYPE_CHECKING:
    from rsqa.monitor.tell import Event

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OLD_LOGS = 3


class _JsonLine(logging.Formatter):
    """One object a line: ts (UTC), level, event, msg, and what the event knows."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: Event | None = getattr(record, "event", None)
        line = {
            "ts": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": event.name if event else "message",
            "msg": record.getMessage(),
            **(event.facts if event else {}),
        }
        return json.dumps(line, default=str)


def start_monitor_output(verbose: bool) -> None:
    """Warnings and errors go to stderr, with `verbose` all that happens: cron mails what is printed."""
    start_output(verbose=verbose)
    if not verbose:
        log.handlers[0].setLevel(logging.WARNING)


def start_log(path: Path, megabytes: float) -> None:
    """Also append everything to a file that is turned over. OutputError when that can't be opened."""
    try:
        handler = RotatingFileHandler(path, maxBytes=int(megabytes * 1e6), backupCount=_OLD_LOGS, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"can't write log {str(path)!r}: {error.strerror}; choose another") from error
    handler.setFormatter(_JsonLine())
    log.addHandler(handler)


def say(event: Event) -> None:
    """Pass an event on."""
    log.log(_LEVELS[event.level], "%s", event.text, extra={"event": event})
