"""The plan: everything that fixes the bytes of the parts, and how parts are numbered.

A plan is made once, hashed to `plan_id` and stored in the output folder. Parts are implicit: a number leads to the
blocks of tiles that it stands for, so a plan of 10^7 tiles costs kilobytes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, groupby
from math import ceil
from typing import Any

import rsqa
from rsqa.engines.registry import ModelRef
from rsqa.errors import PlanMismatch, SourceChanged
from rsqa.raster.chosen import ChosenBlocks, Run, chosen_blocks, count, packed
from rsqa.raster.grid import Block, BlockGrid, TileGrid, block_grid
from rsqa.raster.read import level_grid
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch
from rsqa.sinks.tiling import TiledSource
from rsqa.tasks.question import Condition, Question
from rsqa.tasks.task import Ask, Task, row_questions, task_from_json, task_to_json

PLAN_FORMAT = 4
"""Of plan.json and sources.parquet."""
FORMAT = 1
"""Of what makes a row, see `Plan.processing_id`."""
FEATURES_FORMAT = 1
"""Of the files that `--cache-features` keeps."""
MOST_TILES = 4096
"""Tiles in a part: a bound on what a crash costs and on what a part holds in memory."""


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source and how it is cut."""

    source: RasterSource
    tile_px: int
    """Side of a tile, source pixels."""
    factor: int
    """Overview that is read: 1 the full resolution, 4 a quarter of it."""
    whole: bool = False
    """A small source that is one tile of its own size: never cut, never padded."""
    overlap_px: int = 0
    """What the windows of neighbouring tiles share, source pixels."""
    scale: int = 1
    """How many times larger the tiles are than in the first pass over the source; 1: this is the first."""
    chosen: tuple[Run, ...] | None = None
    """The tiles that the run is about; None: all."""

    @property
    def grid(self) -> TileGrid:
        """The tiles in pixels of the source."""
        return TileGrid(self.source.height, self.source.width, self.tile_px, self.overlap_px)

    @property
    def n_tiles(self) -> int:
        """Tiles that the run is about."""
        return len(self.grid) if self.chosen is None else count(self.chosen)

    @property
    def level_grid(self) -> TileGrid:
        """The same tiles in pixels of the overview that is read."""
        return level_grid(self.source, self.tile_px, self.factor, self.overlap_px)

    @property
    def chip_shape(self) -> tuple[int, int]:
        """(H, W) of a chip as it is read, before the model resamples it."""
        return (self.source.height, self.source.width) if self.whole else (self.level_grid.window_px,) * 2

    @property
    def tiled(self) -> TiledSource:
        """What outputs need to know of it."""
        source = self.source
        return TiledSource(
            name=source.name, crs_wkt=source.crs_wkt, transform=source.transform, width=source.width,
            height=source.height, tile_px=self.tile_px, overlap_px=self.overlap_px, scale=self.scale,
            acquired=source.acquired,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values, one level of them for the source's and its own."""
        names = ("tile_px", "factor", "whole", "overlap_px", "scale", "chosen")
        own = {name: getattr(self, name) for name in names}
        return {**own, **self.source.to_json()}

    def identity(self) -> dict[str, Any]:
        """All of it but where the files lie."""
        facts = self.to_json()
        for file in (facts, *facts["members"]):
            del file["path"]
        return facts

    @property
    def cut(self) -> dict[str, Any]:
        """What a tile's pixels depend on, beside the file: chips of any size are shown in the same way, whole."""
        masked = [self.source.mask_band, self.source.mask_values]
        cut = {"tile_px": None if self.whole else self.tile_px, "factor": self.factor, "masked": masked}
        return cut | ({"overlap_px": self.overlap_px} if self.overlap_px else {})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of which pixels, with which model, in which portions. Without slots: it keeps its `plan_id`."""

    sources: tuple[PlannedSource, ...]
    questions: tuple[Question, ...]
    stretch: Stretch
    scale: str
    """The stretch as it was asked for."""
    gsd_m: float | None
    min_valid: float
    """Least share of valid core pixels for a tile to be asked."""
    model: ModelRef
    dtype: str
    device_type: str
    """cpu or cuda; the device's number does not matter."""
    batch: int
    """Tiles through the model at once."""
    part_tiles: int
    """Tiles in a part, about."""
    aoi: str | None = None
    """Digest of the area whose tiles are asked; None: all are."""
    task: Task = Ask()  # noqa: RUF009 frozen and without fields
    failed: tuple[tuple[str, str], ...] = ()
    """(name, why) of sources that were left out when the run was last begun."""
    evidence: int = 0
    """Blocks along a side of a tile whose weights in the model's adapter are kept; 0: they are not."""

    @property
    def first_pass(self) -> tuple[PlannedSource, ...]:
        """Each source once, with the tiles that the tables are about; those of a coarser pass come behind them."""
        return tuple(planned for planned in self.sources if planned.scale == 1)

    @property
    def row_questions(self) -> tuple[Question, ...]:
        """What the rows of a tile are about."""
        return row_questions(self.task, self.questions)

    def to_json(self) -> dict[str, Any]:
        """Everything but the sources, as plan.json holds it."""
        return {
            "format": PLAN_FORMAT,
            "rsqa": rsqa.__version__,
            "task": task_to_json(self.task),
            "questions": [asdict(q) for q in self.questions],
            "stretch": self.stretch.to_json(),
            "scale": self.scale,
            "gsd_m": self.gsd_m,
            "min_valid": self.min_valid,
            "model": self.model.to_json(),
            "dtype": self.dtype,
            "device_type": self.device_type,
            "batch": self.batch,
            "part_tiles": self.part_tiles,
            "aoi": self.aoi,
            "failed": self.failed,
            **({"evidence": self.evidence} if self.evidence else {}),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any], sources: tuple[PlannedSource, ...]) -> Plan:
        """The inverse of `to_json`."""
        return cls(
            sources=sources,
            questions=tuple(_question(**question) for question in raw["questions"]),
            stretch=Stretch.from_json(raw["stretch"]),
            scale=raw["scale"],
            gsd_m=raw["gsd_m"],
            min_valid=raw["min_valid"],
            model=ModelRef.from_json(raw["model"]),
            dtype=raw["dtype"],
            device_type=raw["device_type"],
            batch=raw["batch"],
            part_tiles=raw["part_tiles"],
            aoi=raw["aoi"],
            task=task_from_json(raw["task"]),
            failed=tuple((name, why) for name, why in raw["failed"]),
            evidence=raw.get("evidence", 0),
        )

    def identity(self) -> dict[str, Any]:
        """All facts without what may differ while the bytes stay: where the files and the model lie, what failed, and
        what is made of the parts.
        """
        sources = [planned.identity() for planned in self.sources]
        own = {"sources": sources, "model": self._model_identity(), "task": self.task.verb, "failed": ()}
        return {**self.to_json(), **own}

    def _model_identity(self) -> dict[str, Any]:
        return {name: fact for name, fact in self.model.to_json().items() if name != "folder"}

    @cached_property
    def plan_id(self) -> str:
        """16 hexadecimal digits, of `identity`. The first time it costs a pass over all sources, a text of each."""
        before, after = _text(replace(self, sources=()).identity()).split('"sources":[]')
        total = sha256(f'{before}"sources":['.encode())
        for number, planned in enumerate(self.sources):
            total.update(f"{',' if number else ''}{_text(planned.identity())}".encode())
        total.update(f"]{after}".encode())
        return total.hexdigest()[:16]

    def processing_id(self, planned: PlannedSource, question: Question) -> str:
        """What made a row: the same for the same pixels, question and model, whatever else was asked beside it."""
        return _digest(
            {
                "format": FORMAT,
                "question": self._asked(question),
                "model": self._model_identity(),
                "dtype": self.dtype,
                "stretch": self.stretch.to_json(),
                "bands": planned.source.bands,
                **planned.cut,
                "min_valid": self.min_valid,
            }
        )

    def _asked(self, question: Question) -> list[Any]:
        """What a row's answer depends on, of what was asked."""
        asked = [question.text, question.kind, question.options]
        if question.only_if is None:
            return asked
        [first] = (q for q in self.questions if q.id == question.only_if.question)
        return [*asked, first.text, question.only_if.least]

    def on(self, device: str) -> Plan:
        """The plan as `device` does it: another type than it was made for is allowed, but not the same."""
        return replace(self, device_type=device.partition(":")[0])

    def features_id(self, planned: PlannedSource) -> str:
        """What made what the model sees of a source, whatever it is asked: the same for the same pixels and weights."""
        side = self.model.card.model_side(*planned.chip_shape)
        return _digest(
            {
                "format": FEATURES_FORMAT,
                "rsqa": rsqa.__version__,
                "source": [planned.source.fingerprint, planned.source.bands, planned.source.sidecars],
                "model": [self.model.weights_id or self.model.name, side],
                "dtype": self.dtype,
                "device_type": self.device_type,
                "stretch": self.stretch.to_json(),
                **planned.cut,
                "min_valid": self.min_valid,
            }
        )


def _question(options: list[str], only_if: dict[str, Any] | None, **facts: Any) -> Question:
    """From what `asdict` and JSON made of one."""
    return Question(**facts, options=tuple(options), only_if=Condition(**only_if) if only_if else None)


def check_format(facts: Any) -> None:
    """PlanMismatch for stored JSON that is no plan of this version."""
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != PLAN_FORMAT:
        raise PlanMismatch(f"the plan has format {found!r}, this rsqa reads {PLAN_FORMAT}; use --overwrite")


def _digest(facts: dict[str, Any]) -> str:
    return sha256(_text(facts).encode()).hexdigest()[:16]


def _text(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def check_same(stored: Plan, asked: Plan) -> None:
    """Refuse to go on with `stored` when `asked` would give other bytes; the message names what differs.

    Raises SourceChanged when it is a source's content alone, else PlanMismatch.
    """
    if stored.plan_id == asked.plan_id:
        return
    differences = list(_differences(stored.identity(), asked.identity()))
    if not differences:  # such as 1 there, 1.0 asked
        return
    before = {planned.source.name: planned.source.fingerprint for planned in stored.sources}
    changed = [name for name, now in ((p.source.name, p.source.fingerprint) for p in asked.sources)
               if before.get(name, now) != now]  # fmt: skip
    if changed and all(d.startswith("sources") for d in differences):
        raise SourceChanged(
            f"{changed[0]!r} is not the file that the plan in this folder was made for; "
            "restore it, choose another --out, or start anew with --overwrite"
        )
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    raise PlanMismatch(
        f"the folder holds another plan: {'; '.join(differences[:3])}{more}; choose another --out, or --overwrite"
    )


def _differences(stored: Any, asked: Any, path: str = "") -> Iterator[str]:
    """Leaves that differ, as `questions.0.text: 'a' there, 'b' asked`."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            yield from _differences(stored.get(key), asked.get(key), f"{path}.{key}" if path else key)
    elif isinstance(stored, list | tuple) and isinstance(asked, list | tuple) and len(stored) == len(asked):
        for number, (a, b) in enumerate(zip(stored, asked, strict=True)):
            yield from _differences(a, b, f"{path}.{number}")
    elif isinstance(stored, list | tuple) and isinstance(asked, list | tuple):
        yield f"{path}: {len(stored)} there, {len(asked)} asked"
    elif stored != asked:
        yield f"{path}: {stored!r} there, {asked!r} asked"


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive blocks of one or many sources: a task, a commit, a unit of resuming."""

    number: int
    blocks: tuple[tuple[int, range], ...]
    """(index of the source, numbers of its blocks) in order."""


def blocks(planned: PlannedSource, most_tiles: int) -> BlockGrid | ChosenBlocks:
    """The blocks of a source, of at most so many tiles. UsageError when a single tile is too large to be read."""
    source, factor = planned.source, planned.factor
    layout = source.level(factor).layout
    whole = block_grid(planned.level_grid, layout, bytes_per_px=source.bytes_per_px, max_tiles=most_tiles)
    return whole if planned.chosen is None else chosen_blocks(whole, planned.chosen)


def part_key(planned: PlannedSource) -> tuple[int, str, tuple[int, int]]:
    """Sources that follow one another share parts where this is the same: pass, CRS and chip size."""
    return planned.scale, planned.source.crs_wkt, planned.chip_shape


@dataclass(frozen=True, slots=True)
class _Span:
    """Sources first to last - 1 in `n_parts` parts; several sources are one part together."""

    first: int
    last: int
    n_parts: int
    blocks: range | None = None
    """Of one part of one source, where its blocks differ too much in size to be shared out evenly."""


def _spans(index: int, n_tiles: int, blocks: BlockGrid | ChosenBlocks, part_tiles: int) -> Iterator[_Span]:
    """The parts of a source that is too large for one."""
    if isinstance(blocks, BlockGrid):
        yield _Span(index, index + 1, min(ceil(n_tiles / part_tiles), len(blocks)))
    else:
        yield from (_Span(index, index + 1, 1, numbers) for numbers in packed(blocks, part_tiles))


class Parts:
    """The parts of a plan by number. A part has one CRS and one chip size; small sources share a part."""

    def __init__(self, plan: Plan) -> None:
        self._block_grids = [blocks(planned, plan.part_tiles) for planned in plan.sources]
        self._spans = list(self._cut(plan))
        self._ends = list(accumulate(span.n_parts for span in self._spans))

    def _cut(self, plan: Plan) -> Iterator[_Span]:
        for _, run in groupby(range(len(plan.sources)), key=lambda index: part_key(plan.sources[index])):
            first, last, held = 0, 0, 0  # the small sources gathered so far, and their tiles
            for index in run:
                tiles = plan.sources[index].n_tiles
                if held and held + tiles > plan.part_tiles:
                    yield _Span(first, last, 1)
                    held = 0
                if tiles > plan.part_tiles:
                    yield from _spans(index, tiles, self._block_grids[index], plan.part_tiles)
                    continue
                first = first if held else index
                last, held = index + 1, held + tiles
            if held:
                yield _Span(first, last, 1)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Part:
        if not 0 <= number < len(self):
            raise IndexError(f"part {number} of {len(self)}")
        at = bisect_right(self._ends, number)
        span = self._spans[at]
        k, n = number - (self._ends[at] - span.n_parts), span.n_parts
        shares = []
        for source in range(span.first, span.last):
            n_blocks = len(self._block_grids[source])
            shares.append((source, span.blocks or range(k * n_blocks // n, (k + 1) * n_blocks // n)))
        return Part(number, tuple(shares))

    def block(self, source: int, number: int) -> Block:
        """A block of a source, in pixels of the overview that is read."""
        return self._block_grids[source].block(number)

    def begin(self, source: int) -> int:
        """The first part of a source that begins a pass; behind the last source the number of parts."""
        return sum(span.n_parts for span in self._spans if span.first < source)

    def tiles_of_blocks(self, numbers: range) -> Iterator[tuple[int, int]]:
        """Yield (index of the source, tiles) of every block of these parts, as their rows follow one another."""
        for number in numbers:
            for source, blocks in self[number].blocks:
                yield from ((source, len(self.block(source, b))) for b in blocks)

    def n_tiles(self, number: int) -> int:
        """Tiles that the part covers."""
        return sum(len(self.block(source, b)) for source, blocks in self[number].blocks for b in blocks)
