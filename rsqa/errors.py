"""What can go wrong, and the exit code that cron sees.

    RsqaError                     1   unexpected, or stalled
    ├── UsageError                2   an option, a question file, a recipe, another plan in this output
    │   ├── QuestionError
    │   ├── RecipeError
    │   └── PlanMismatch
    ├── InputError                4   missing, refused or changed
    │   ├── SourceMissing
    │   ├── SourceRefused
    │   └── SourceChanged
    ├── OutputError               5   unwritable or full
    ├── ModelError                6   missing, not loadable or not verified
    │   └── OutOfMemory
    └── OutputLocked             75   another run holds the lock

Exit codes that are outcomes and not errors: 0 done, 3 done but tiles failed, 9 nothing new (only when asked), 10 time
budget reached, 11 change found (only when asked), 130 and 143 interrupted after a clean commit. When several apply:
signal > 1 > 5 > 6 > 4 > 3 > 0.

A message is one line: what was asked, what was found, what to do.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every rsqa command."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    TILES_FAILED = 3
    INPUT = 4
    OUTPUT = 5
    MODEL = 6
    NOTHING_NEW = 9
    OUT_OF_TIME = 10
    CHANGED = 11
    LOCKED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class RsqaError(Exception):
    """Root of all errors that rsqa raises on purpose."""

    exit_code = ExitCode.UNEXPECTED


class UsageError(RsqaError):
    """The request itself makes no sense."""

    exit_code = ExitCode.USAGE


class QuestionError(UsageError):
    """A question or a question file can't be understood; names the line."""


class RecipeError(UsageError):
    """A training recipe has an unknown key or an impossible value."""


class PlanMismatch(UsageError):
    """The output folder holds another plan; names the difference."""


class InputError(RsqaError):
    """A source is missing, refused or changed."""

    exit_code = ExitCode.INPUT


class SourceMissing(InputError):
    """There is no such file."""


class SourceRefused(InputError):
    """The file is there but will not be read: no ground position, forbidden driver, impossible size."""


class SourceChanged(InputError):
    """The file is not the one that the plan was made for."""


class OutputError(RsqaError):
    """The output can't be written: read-only, full, not a folder."""

    exit_code = ExitCode.OUTPUT


class ModelError(RsqaError):
    """The model is missing, not loadable or not what it should be."""

    exit_code = ExitCode.MODEL


class OutOfMemory(ModelError):
    """Raised by `session.answer` when a batch does not fit into the device's memory; the session can still be used."""


class OutputLocked(RsqaError):
    """Another run is writing this output."""

    exit_code = ExitCode.LOCKED
