"""Words out: results to stdout, everything else to stderr, and nothing that a terminal could obey.

Text of models, files and file names may hold escape sequences; `plain` takes their power before any of it is shown.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rsqa.errors import OutputError

log = logging.getLogger("rsqa")

# Controls (C0, DEL, C1), line and paragraph separators, marks that reorder text, and what stdout can't encode.
_POWERFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: object) -> str:
    """One line that is safe on a terminal: control and reordering characters become blanks."""
    return _POWERFUL.sub(" ", str(text))


def emit(lines: Iterable[str]) -> bool:
    """Print results. -> False when nobody reads them any more; OutputError when they can't be written."""
    if sys.stdout is None or sys.stdout.closed:
        return False
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        _to_devnull(sys.stdout)
        if error.errno == errno.EPIPE:
            return False
        raise OutputError(f"can't write to standard output: {error.strerror}; redirect it elsewhere") from error
    return True


def _to_devnull(stream: TextIO) -> None:
    """Python flushes its streams once more at its end: that must not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(value: Any) -> bool:
    """Print one object on one line. Numbers that JSON does not have are null; the text is ASCII, safe anywhere."""
    return emit([json.dumps(_finite(value), allow_nan=False, default=str)])


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns, numbers to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], int | float | None) for row in rows) for column in range(len(header))]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else plain(value)


class _Stderr(logging.Handler):
    """News as it is, faults as `rsqa: error: …`, on whatever stderr is then: a progress bar takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"rsqa: {record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        lines = [prefix + plain(record.getMessage())]
        if record.exc_info:
            lines += [plain(line) for line in logging.Formatter().formatException(record.exc_info).splitlines()]
        try:
            print("\n".join(lines), file=sys.stderr, flush=True)
        except OSError:
            _to_devnull(sys.stderr)  # nobody reads what a run says: no reason to stop it


class _LogLine(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO message`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{seconds}.{int(record.msecs):03d}Z {record.levelname} {plain(record.getMessage())}"
        if record.exc_info:
            line += "\n" + "\n".join(plain(text) for text in self.formatException(record.exc_info).splitlines())
        return line


def start_output(quiet: bool = False, verbose: bool = False, log_file: Path | None = None) -> None:
    """Send messages to stderr, errors alone when quiet, and to the log file. OutputError when that can't be opened."""
    for old in log.handlers[:]:
        log.removeHandler(old)
        old.close()
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    stderr = _Stderr(level=logging.ERROR if quiet else logging.DEBUG)
    log.addHandler(stderr)
    if log_file is not None:
        try:
            to_file = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(f"can't write log file {str(log_file)!r}: {error.strerror}; choose another") from error
        to_file.setFormatter(_LogLine())
        log.addHandler(to_file)
