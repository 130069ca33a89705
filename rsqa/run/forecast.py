"""What a run will take, told from its plan and a trial: time, memory, bytes that are read, size of the output.

Constants of memory and output are fitted to runs on Linux with an engine that costs nothing; those in seconds are
estimates. `tests/bench/bench_plan.py` holds every figure against real runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from rsqa.raster.gdal import FILE_CACHE_BYTES
from rsqa.raster.grid import BlockGrid
from rsqa.raster.source import RasterSource
from rsqa.raster.stored import Stored, stored_under, stored_window
from rsqa.raster.stretch import sample_windows
from rsqa.run.batches import tiles_at_once
from rsqa.run.cluster import SLOTS
from rsqa.run.plan import Parts, Plan, PlannedSource, blocks
from rsqa.run.report import Binding, Expected
from rsqa.run.trial import Pace, Tried

COMMIT_S = 0.03
"""To write a part."""
CREW_S, PROCESS_S = 1.0, 6.0
"""Until Dask's threads are ready for parts, or its processes, which import everything again and load a small model."""
TABLES_S, ROW_S = 1.0, 2e-5
"""To finish the tables: of any run, and for each row."""
RUN_BYTES = 80 << 20
"""Memory for Dask and for the libraries that finish the tables."""
BLOCKS_BYTES = 16 << 20
"""That GDAL keeps of decoded file blocks."""
LOOK_BYTES = 80_000
"""Read of a file to see that it is the one that was planned, beside its block table."""
ENTRY_BYTES = 16
"""Of a block table, for each file block."""
OUT_BYTES, PART_BYTES, ANSWER_BYTES = 90_000, 5_000, 60
"""Of the outputs: of any run, for each part, and for each answer to a short closed question."""
MOST_TABLES = 1_000
"""Sources whose block tables are looked at; of more, some that lie evenly among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doers:
    """Who will do the parts."""

    processes: int
    """With a model each."""
    cores: int
    """Processors of all of them."""
    alone: bool
    """The one process that does parts also hands them out."""
    driver_bytes: int | None
    """Memory of the process that hands out parts, without a model; None where the system does not tell."""
    planned_s: float
    """What it took to come to a plan."""


def expected(plan: Plan, parts: Parts, tried: Tried, read: Pace, doers: Doers) -> Expected:
    """What following the plan will take."""
    n_tiles = sum(planned.n_tiles for planned in plan.sources)
    n_rows = n_tiles * len(plan.row_questions)
    model_s, read_s = (tile_s * n_tiles / doers.processes for tile_s in (tried.tile_s, read.tile_s))
    commits_s = COMMIT_S * len(parts) / doers.processes
    bounds: dict[Binding, float] = {
        "model": model_s,
        "reading": (model_s + read_s + commits_s) / SLOTS,
        "processors": (tried.tile_cpu_s + read.tile_cpu_s) * n_tiles / doers.cores,
    }
    begin_s = doers.planned_s + (CREW_S if doers.alone else PROCESS_S)
    tables_s = TABLES_S + ROW_S * n_rows
    work_s, rest_s = max(bounds.values()), begin_s + tables_s
    fetched = _fetched(plan, parts, SLOTS * doers.processes)
    return Expected(
        seconds=work_s + rest_s,
        begin_s=begin_s,
        model_s=model_s,
        read_s=read_s,
        tables_s=tables_s,
        bound_by=max(bounds, key=lambda name: bounds[name]) if work_s >= rest_s else "start",
        memory_bytes=None if tried.peak_bytes is None else tried.peak_bytes + RUN_BYTES + _held(plan),
        driver_bytes=None if doers.alone or doers.driver_bytes is None else doers.driver_bytes + RUN_BYTES,
        read_bytes=fetched.n_bytes,
        unknown_blocks=fetched.n_unknown,
        output_bytes=OUT_BYTES + PART_BYTES * len(parts) + ANSWER_BYTES * n_rows,
    )


def _held(plan: Plan) -> int:
    """Bytes that the slots of a process hold beside the model."""
    some = _spread(plan.sources)
    block = max(_block_bytes(plan, planned) for planned in some)
    chips = max(tiles_at_once(plan, shape) * 3 * shape[0] * shape[1] for shape in {p.chip_shape for p in some})
    return BLOCKS_BYTES + SLOTS * (block + chips + FILE_CACHE_BYTES)


def _block_bytes(plan: Plan, planned: PlannedSource) -> int:
    """Bytes of the largest block of a source while it is read: as the file has it, as colours, and what is valid."""
    grid, cut = planned.level_grid, blocks(planned, plan.part_tiles)
    found = [cut.block(0)] if isinstance(cut, BlockGrid) else cut.blocks  # those of a grid differ by little
    windows = [block.window(grid) for block in found]
    source = planned.source
    masked = source.mask != "none" or source.mask_band is not None or bool(source.members)
    as_it_is = plan.stretch.identity and not (masked or source.palette)
    per_px = source.bytes_per_px + (0 if as_it_is else 3 + masked)
    return per_px * max(window.height * window.width for window in windows)


def _fetched(plan: Plan, parts: Parts, readers: int) -> Stored:
    """What is read of the sources from the beginning to the end of a run."""
    some = _spread(plan.sources)
    pixels = sum((_stored(plan, planned, readers) for planned in some), Stored())
    scale = len(plan.sources) / len(some)
    total = Stored(ceil(pixels.n_bytes * scale), ceil(pixels.n_unknown * scale))
    if plan.scale == "auto":
        total += sum((stored_window(*sample) for sample in sample_windows([p.source for p in plan.sources])), Stored())
    looks = [_look_bytes(planned.source) for planned in some]
    n_looks = len(plan.sources) + max(len(plan.sources), len(parts))  # before the run, and before each commit
    return total + Stored(n_looks * sum(looks) // len(looks))


def _stored(plan: Plan, planned: PlannedSource, readers: int) -> Stored:
    cut = blocks(planned, plan.part_tiles)
    return stored_under(planned.source, planned.level_grid, cut, planned.factor, readers)


def _look_bytes(source: RasterSource) -> int:
    if source.members:
        return sum(_look_bytes(member.source) for member in source.members)
    return LOOK_BYTES + ENTRY_BYTES * source.blocks.blocks if source.blocks else 0


def _spread(sources: tuple[PlannedSource, ...]) -> tuple[PlannedSource, ...]:
    """All, or of very many MOST_TABLES that lie evenly among them."""
    return tuple(sources[at] for at in range(0, len(sources), ceil(len(sources) / MOST_TABLES)))
