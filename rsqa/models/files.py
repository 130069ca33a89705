"""Files of a model, read with one line for the user when they are damaged. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rsqa.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. ModelError when the file is missing or holds anything else."""
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent.name!r}; is this the folder of a model?")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path.name} in {path.parent.name!r} can't be read ({error}); fetch the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} in {path.parent.name!r} is no JSON object; fetch the model again")
    return value


def check_header(path: Path) -> dict[str, str]:
    """-> what the header of a safetensors file says beside its tensors. ModelError when the file is no whole one."""
    try:
        with safe_open(path, framework="numpy") as file:  # checks that header and size of the file agree
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path.name} in {path.parent.name!r} is truncated or no safetensors ({error}); fetch it again"
        ) from error


def digest_of(files: Iterable[Path]) -> str:
    """-> 64 hexadecimal digits over names and content, whatever the order."""
    lines = sorted(f"{path.name} {_file_sha256(path, path.stat().st_size, path.stat().st_mtime_ns)}" for path in files)
    return sha256("\n".join(lines).encode()).hexdigest()


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Size and time only tell the cache when a file is another one."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
