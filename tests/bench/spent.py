"""What a command took, told by the kernel.

Linux counts in a child's peak what its parent held when it was begun (getrusage(2): `ru_maxrss` outlives execve), so a
command begun by a large process seems as large. Here a bare interpreter lies between the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import NamedTuple

_BETWEEN = """
import json, os, sys
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10], file)
sys.exit(min(abs(os.waitstatus_to_exitcode(status)), 255))
"""


class Spent(NamedTuple):
    output: str  # what it printed
    core_s: float  # seconds of a core, its own and its children's
    peak_bytes: int  # of its own


def spent(command: list[str]) -> Spent:
    """Run a command to its end; `RuntimeError` if that is not 0."""
    with tempfile.NamedTemporaryFile("r") as figures:
        done = subprocess.run(
            [sys.executable, "-S", "-c", _BETWEEN, figures.name, *command],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
        return Spent(done.stdout, *json.load(figures))
