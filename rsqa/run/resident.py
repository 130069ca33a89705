"""How much memory this process holds, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes() -> int | None:
    """Now; None where the system does not tell."""
    return _of_status("VmRSS")


def peak_bytes() -> int | None:
    """The most since `forget_peak`, or since the process began; None where the system does not tell."""
    return _of_status("VmHWM")


def forget_peak() -> None:
    """Let the peak be what is held now, where the system can do that."""
    if _REFERENCES.is_file():
        try:
            _REFERENCES.write_text("5")
        except OSError:
            return  # in some containers; the peak is then that of the whole process


def _of_status(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    found = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
