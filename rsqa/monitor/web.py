"""Who hears of a pass over the network: a webhook when something changed, a ping that a pass began and how it ended.

Their addresses are secrets. WATCH.toml names variables of the environment that hold them, and nothing that is said here
has more than the name of the variable.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any

from rsqa.errors import UsageError
from rsqa.monitor.watch import Watch

PAUSES_S = (1.0, 4.0)
"""Before each time that a server is asked again."""
PING_S = 10.0
"""Longest wait for an answer to a ping, each time."""
MOST_CHANGES = 100
"""That a webhook is told one by one."""
USER_AGENT = "rsqa-monitor"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A secret address is sent nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Makes an error of the answer."""


def address(variable: str) -> str:
    """The address that a variable of the environment holds. UsageError, which does not tell it, when it holds none."""
    url = os.environ.get(variable, "")
    if not url:
        raise UsageError(f"[tell] names the variable {variable}, which is not set; put the address into it")
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"the variable {variable} holds no address that begins with https://")
    return url


def call_webhook(watch: Watch, changes: Path, rows: Sequence[dict[str, Any]], lines: Sequence[str]) -> str | None:
    """Post the changes as JSON, again where that may help. -> what went wrong, None: nothing.

    `rows`: plain values of each change. The same changes are posted with the same `id`.
    """
    about = {
        "monitor": watch.file.stem, "id": changes.stem, "file": str(changes), "n_changes": len(rows),
        "text": "\n".join(lines[:MOST_CHANGES]), "changes": rows[:MOST_CHANGES],
    }  # fmt: skip
    variable = watch.tell.webhook_env
    try:
        fault = _send(address(variable), json.dumps(about).encode(), watch.tell.timeout_s)
    except UsageError as error:
        return str(error)
    return None if fault is None else f"the webhook of {variable} was not reached: {fault}"


def ping(watch: Watch, end: str) -> str | None:
    """Call ADDRESS/end, as healthchecks.io wants it: `start`, or an exit code. -> what went wrong; never raises."""
    variable = watch.tell.ping_env
    if not variable:
        return None
    try:
        fault = _send(f"{address(variable).rstrip('/')}/{end}", b"", PING_S)
    except UsageError as error:
        return str(error)
    return None if fault is None else f"the ping of {variable} was not heard: {fault}"


def _send(url: str, content: bytes, timeout_s: float) -> str | None:
    """Post; -> what went wrong, without the address."""
    headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    for pause in (*PAUSES_S, None):
        try:
            request = urllib.request.Request(url, content, headers)
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            fault, final = f"HTTP {error.code}", error.code < 500 and error.code != 429
        except (OSError, HTTPException, ValueError) as error:  # their words may hold the address
            fault, final = _kind(error), isinstance(error, ValueError | InvalidURL)
        if final or pause is None:
            return fault
        time.sleep(pause)
    raise AssertionError("the last time returns")


def _kind(error: Exception) -> str:
    """`Connection refused`, or what kind of error it is."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    code = reason.errno if isinstance(reason, OSError) else None
    return os.strerror(code) if code and code > 0 else type(reason).__name__
