"""What a run says about itself: while it goes on, when it is done, and before it has begun.

Values only; who prints them decides how. `to_json` gives what `json.dumps` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rsqa.errors import ExitCode

if TYPE_CHECKING:
    from rsqa.sinks.summary import QuestionSummary  # the command line starts without pyarrow

Bottleneck = Literal["reading", "model"]
Binding = Literal["start", "model", "reading", "processors"]
"""What a run will spend most of its time on; `start`: on beginning and finishing."""


def size(n_bytes: int) -> str:
    """`12 kB`, `3.4 MB`, `1.2 GB`."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:,.1f} GB"
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:,.0f} kB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. Tiles of parts that were committed before it began are not counted."""

    tiles_done: int
    """Committed, whatever came of them."""
    tiles_total: int
    tiles_skipped: int
    """Of `tiles_done`: nodata, never shown to the model."""
    tiles_failed: int
    """Of `tiles_done`: could not be read or answered."""
    mpx_done: float
    """Source pixels of the tiles done, millions."""
    working_s: float
    """From the first part's begin to the last commit so far: start-up is not in it."""
    read_s: float
    """Spent reading, summed over slots; so are the next two."""
    model_s: float
    wait_s: float
    """Spent waiting for the model while another slot had it."""

    @property
    def bottleneck(self) -> Bottleneck:
        """What a slot spends most of its time on."""
        return "model" if self.model_s + self.wait_s >= self.read_s else "reading"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run that ended by itself, by its time budget or by a signal."""

    out: Path | str
    """A folder, or the address of a prefix in an object store."""
    exit_code: ExitCode
    plan_id: str
    n_tiles: int
    n_parts: int
    parts_resumed: int
    """Parts that were there before the run began."""
    tiles_by_status: Mapping[str, int]
    """Status -> tiles: ok, nodata or error."""
    questions: tuple[QuestionSummary, ...]
    elapsed_s: float
    """Of this run alone, start-up and finishing included."""
    tiles_per_s: float
    """Of this run alone while parts were being done, as the next one."""
    mpx_per_s: float
    bottleneck: Bottleneck
    engine_calls: int
    parts_halved: int = 0
    """Asked in smaller batches than planned, for want of memory."""
    parts_again: int = 0
    """Times that a part was begun on another worker, since the last one was lost or silent."""
    parts_given_up: int = 0
    """Committed as errors: no worker survived them."""
    tiles_from_cache: int = 0
    """Neither read nor seen: what the model sees of them was kept."""
    failed_sources: tuple[tuple[str, str], ...] = ()
    """(name, why)"""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; paths as text, the exit code as a number."""
        return asdict(self) | {"out": str(self.out), "exit_code": int(self.exit_code)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """One source as it will be cut."""

    name: str
    width: int
    height: int
    crs: str
    """As people write it: `EPSG:26910`, or the name of the CRS."""
    gsd_m: float | None
    """Ground side of a pixel, metres; None without a place on the ground."""
    tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a run will take, about."""

    seconds: float
    """All of it."""
    begin_s: float
    """Before the first part: opening, trying out, starting workers."""
    model_s: float
    """In the model, in each process; while one part is in it, others are read and written."""
    read_s: float
    """Reading, in each process, were it done by one slot."""
    tables_s: float
    """Behind the last part."""
    bound_by: Binding
    memory_bytes: int | None
    """Peak of each process that does parts, the model in it, a GPU's own memory not; None where that is not known."""
    driver_bytes: int | None
    """Peak of the process that hands out parts; None where that is not known, or it does them itself."""
    read_bytes: int
    """Of local files, as they are stored; what is read again counts again."""
    unknown_blocks: int
    """File blocks, beside those, whose size is not known: what lies elsewhere, and under a VRT."""
    output_bytes: int
    """Size of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a run would do."""

    sources: tuple[SourceSummary, ...]
    n_tiles: int
    n_parts: int
    tile_px: int
    """Side of a tile, source pixels."""
    side_px: int
    """Side of what the model sees, pixels."""
    batch: int
    """Tiles through the model at once."""
    model: str
    plan_id: str
    expected: Expected
    cache_bytes: int | None = None
    """At most so much is added to the folder of features; None without one."""
    cache_free_bytes: int | None = None
    """Free on the disk of that folder."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)
