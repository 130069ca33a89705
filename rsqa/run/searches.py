"""What the searches of a run found: kept beside its plan, as a server may answer otherwise tomorrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from rsqa.errors import OutputError
from rsqa.raster.stac import Dated, Named
from rsqa.raster.stac_search import Bounds
from rsqa.sinks.whole import write_whole_bytes

Searches = Mapping[str, Named]
"""`search_key` -> what was found."""


def search_key(argument: str, asset: str | None, bounds: Bounds | None) -> str:
    """16 hexadecimal digits of what was searched: an address may hold a secret, which is no part of the file."""
    return sha256(repr((argument, asset, bounds)).encode()).hexdigest()[:16]


def read_searches(path: Path) -> Searches:
    """Empty where there is no such file. OutputError when it can't be read."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {key: _named(**found) for key, found in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{str(path)!r} can't be read ({error}); start anew with --overwrite") from error


def write_searches(path: Path, searches: Searches) -> None:
    """The inverse of `read_searches`."""
    stored = {
        key: {
            "rasters": [(one.argument, one.acquired and one.acquired.isoformat()) for one in found.rasters],
            "failed": found.failed,
        }
        for key, found in searches.items()
    }
    write_whole_bytes(path, json.dumps(stored, indent=0).encode())


def _named(rasters: list[tuple[str, str | None]], failed: list[tuple[str, str]]) -> Named:
    return Named(
        tuple(Dated(argument, datetime.fromisoformat(when) if when else None) for argument, when in rasters),
        tuple((item, why) for item, why in failed),
    )
