"""From a request to a plan: open the sources, find the model, choose the sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rsqa.engines.batching import ladder
from rsqa.engines.registry import ModelRef, choose_device, choose_dtype, find_model, locate
from rsqa.errors import InputError, ModelError, PlanMismatch, UsageError
from rsqa.raster.area import read_area
from rsqa.raster.read import choose_level
from rsqa.raster.source import RasterSource, damage
from rsqa.raster.stretch import Stretch, fit_stretch, fixed_stretch
from rsqa.run.inputs import beside, listed, opened_sources, within
from rsqa.run.plan import MOST_TILES, Plan, PlannedSource, blocks, part_key
from rsqa.run.request import TILE_PX, Request
from rsqa.run.searches import Searches
from rsqa.run.trial import PART_S, Site, Trial
from rsqa.sinks.counts import read_areas
from rsqa.sinks.ground import common_crs
from rsqa.tasks.prompts import DIRECT_SYSTEM, END
from rsqa.tasks.question import Question
from rsqa.tasks.task import Classify, Detect, questions_for

CHIP_PX = 1024
"""A source of at most so many pixels a side is a chip, where --tile-px says nothing else: scene data sets have 64 to
1,000."""
PYRAMID = 4
"""How many times larger the tiles of a second pass are: what fills a sixteenth of one was a whole tile before."""
MOST_SAID = 5
"""Of notes about single sources: thousands would hide the others."""
PARTS_PER_WORKER = 8
"""So that the last part of a run does not keep the other workers waiting for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request with its files opened and its model found; only sizes and stretch are missing."""

    sources: tuple[PlannedSource, ...]
    questions: tuple[Question, ...]
    failed: tuple[tuple[str, InputError], ...]
    """Sources that were left out, and why."""
    model: ModelRef
    device: str
    dtype: str
    notes: tuple[str, ...]
    evidence: int
    """See `Plan.evidence`."""
    searches: Searches
    """What STAC searches found."""
    aoi: str | None = None
    """Digest of the area asked for."""

    @property
    def n_tiles(self) -> int:
        """Over all sources."""
        return sum(planned.n_tiles for planned in self.sources)


def draft(request: Request) -> Draft:
    """Open what is asked for. Raises InputError when no source can be read, ModelError without a model."""
    device = choose_device(request.device) if request.scheduler is None else request.device
    area = read_area(str(request.aoi)) if request.aoi else None
    listing, searches = listed(request, area)
    opened, failed = opened_sources(request, listing)
    if not opened:
        raise failed[0][1]
    common_crs(source.crs_wkt for source in opened)  # refuses what no table could hold together
    if isinstance(request.task, Detect) and request.task.areas:
        areas = read_areas(request.task.areas)  # refuses them before hours of work, not behind it
        for crs in {source.crs_wkt for source in opened}:
            areas.shapes(crs)
    found = find_model(request.model, request.card, request.adapter)  # last: it may be gigabytes from the hub
    model = _taught(found, request)
    _check_reasoning(request, model)
    planned = [_cut(source, request, model) for source in opened]
    if request.pyramid:
        planned += [coarse for one in planned if (coarse := _coarser(one, model))]
    if area is not None:
        planned = within(area, planned)
    if request.task.chips:  # alike ones together: they share parts and batches
        places = {key: place for place, key in enumerate(dict.fromkeys(map(part_key, planned)))}
        planned.sort(key=lambda source: places[part_key(source)])
    return Draft(
        sources=tuple(planned),
        questions=questions_for(request.task, request.questions, model.card.prompt, model.card.boxes),
        failed=tuple(failed),
        searches=searches,
        model=model,
        device=device,
        dtype=choose_dtype(request.dtype, device),
        notes=(*listing.notes, *_remarks(opened), *beside(opened, planned), *_misfits(planned, request, model)),
        aoi=None if area is None else area.digest,
        evidence=_blocks(model) if request.evidence else 0,
    )


def _taught(model: ModelRef, request: Request) -> ModelRef:
    """The model with its card as this run asks it: reasoning or not, and the side that --gsd or larger tiles imply."""
    card = model.card
    if request.reasoning and not card.prompt.reasoning:
        raise ModelError(f"{card.title} was not taught to reason, --reasoning asked; use a model such as tinyrs-r1")
    if request.reasoning is False and card.prompt.reasoning:
        direct = replace(card.prompt, system=DIRECT_SYSTEM, reasoning=False, answer_ends=(f"\n{END}", END))
        card = replace(card, prompt=direct)
    if (request.gsd_m is not None or request.pyramid) and card.side_px is None:  # chips of any size are seen at one
        tile_px = request.tile_px or TILE_PX
        card = replace(card, side_px=card.model_side(tile_px, tile_px)[0])
    return replace(model, card=card)


def _blocks(model: ModelRef) -> int:
    """Blocks along a side of a tile that the model's adapter weighs. UsageError when it weighs none."""
    prompt = locate(model).prompt if model.weights_id else None
    if prompt is None or not prompt.shape.asks:
        raise UsageError(
            f"--evidence asked of {model.name!r}, which weighs no blocks of a tile; name a GRASP adapter with --adapter"
        )
    return prompt.shape.side


def _check_reasoning(request: Request, model: ModelRef) -> None:
    """UsageError for what labels and boxes of a model that reasons can't have."""
    if isinstance(request.task, Detect) and model.card.prompt.reasoning:
        raise UsageError(
            "boxes asked of a model that reasons: it can't say how likely a thing is there before it looks for it; "
            "add --no-reasoning"
        )
    if not (isinstance(request.task, Classify) and model.card.prompt.reasoning):
        return
    if len(request.questions) > 1:
        raise UsageError(
            f"{len(request.questions)} prompts asked of a model that reasons: each answer hangs on a chain of thoughts "
            "of its own and they can't be averaged; give one --prompt, or --no-reasoning"
        )
    if request.task.abstain:
        raise UsageError("--abstain asked of a model that reasons, which gives no confidence; add --no-reasoning")


def _cut(source: RasterSource, request: Request, model: ModelRef) -> PlannedSource:
    tile_px, overlap_px = request.tile_px or TILE_PX, request.overlap_px
    if request.gsd_m is not None and source.gsd_m is not None:
        scale = request.gsd_m / source.gsd_m
        side_px, _ = model.card.model_side(tile_px, tile_px)
        # Whole pixels of the overview that will do: most sizes are a multiple of no overview's factor.
        step = max((factor for factor in source.overviews if tile_px * scale >= factor * side_px), default=1)
        tile_px = max(1, round(tile_px * scale / step)) * step
        overlap_px = min(round(overlap_px * scale / step) * step, tile_px - step)
    longest = max(source.height, source.width)
    if request.task.chips and longest <= (CHIP_PX if request.tile_px is None and request.gsd_m is None else tile_px):
        return PlannedSource(source, longest, 1, whole=True)
    side_px, _ = model.card.model_side(tile_px, tile_px)
    core_px = tile_px - overlap_px
    level = choose_level(source, core_px, side_px, overlap_px)
    planned = PlannedSource(source, core_px, level, overlap_px=overlap_px)
    blocks(planned, most_tiles=1)  # refuses a tile that is too large, before the model is tried on it
    return planned


def _coarser(planned: PlannedSource, model: ModelRef) -> PlannedSource | None:
    """The second pass over a source, with larger tiles; None where one of the first pass shows all of it."""
    source, window_px = planned.source, planned.grid.window_px
    scale = min(PYRAMID, -(-max(source.height, source.width) // window_px))
    if scale == 1:
        return None
    core_px, overlap_px = scale * planned.tile_px, scale * planned.overlap_px
    side_px, _ = model.card.model_side(window_px, window_px)
    level = choose_level(source, core_px, side_px, overlap_px)
    coarse = PlannedSource(source, core_px, level, overlap_px=overlap_px, scale=scale)
    blocks(coarse, most_tiles=1)  # refuses a tile that is too large
    return coarse


def _remarks(sources: Sequence[RasterSource]) -> list[str]:
    """What the user should know of the sources before their tiles are asked."""
    said = [note for source in sources for note in source.notes]
    said += [broken for source in sources if (broken := damage(source))]
    n_unplaced = sum(not source.placed for source in sources)
    unplaced = [f"without a place on the ground, so without a geometry: {n_unplaced:,} of {len(sources):,} sources"]
    return [*first_few(said, "notes about sources"), *(unplaced if n_unplaced else [])]


def first_few(sentences: Sequence[str], what: str) -> list[str]:
    """At most MOST_SAID of them, and how many more there are."""
    more = len(sentences) - MOST_SAID
    return [*sentences[:MOST_SAID], *([f"{more:,} more {what}"] if more > 0 else [])]


def _misfits(sources: Sequence[PlannedSource], request: Request, model: ModelRef) -> list[str]:
    """Sentences about tiles that are far from what the model was trained on; one is enough for many sources.

    With --gsd all tiles have its resolution, and so --tile-px pixels.
    """
    card, notes = model.card, []
    low, high = card.side_range_px
    sides = {max(p.chip_shape) if p.whole else request.tile_px or TILE_PX for p in sources}
    if odd_sides := [side for side in sorted(sides) if not low <= side <= high]:
        notes.append(f"{card.title} knows tiles of {low} to {high} px, {odd_sides[0]} px asked")
    if card.gsd_m is not None:
        fine, coarse = card.gsd_m
        seen = [(p.source.name, request.gsd_m or p.source.gsd_m) for p in sources]
        if odd := [(name, gsd_m) for name, gsd_m in seen if gsd_m is not None and not fine <= gsd_m <= coarse]:
            name, gsd_m = odd[0]
            notes.append(
                f"{card.title} knows ground of {fine:g} to {coarse:g} m per pixel, {name} is seen at "
                f"{gsd_m:.3g} m; trust its answers less"
            )
    return notes


def trial(plan: Plan, request: Request, device: str) -> Trial:
    """What is to be known of `plan` before it is followed."""
    sharing = 1 if device.startswith("cuda") else request.workers or 1  # on CUDA each has a device of its own
    shape = largest_shape(plan.sources)
    return Trial(plan.model, device, plan.dtype, plan.questions, shape, request.batch_size, sharing)


def settle(request: Request, drafted: Draft, stored: Plan | None, site: Site) -> Plan:
    """The plan of a draft. A resume measures nothing: it takes sizes and stretch from the stored plan.

    A stored batch that is half, a quarter, … of --batch-size is taken too: the whole one did not fit.
    """
    asked = request.batch_size
    plan = Plan(
        sources=drafted.sources,
        questions=drafted.questions,
        stretch=stored.stretch if stored else _stretch(request.scale, drafted),
        scale=request.scale,
        gsd_m=request.gsd_m,
        min_valid=request.min_valid,
        model=drafted.model,
        dtype=drafted.dtype,
        device_type=drafted.device.partition(":")[0],
        batch=stored.batch if stored and (asked is None or stored.batch in ladder(asked)) else asked or 1,
        part_tiles=request.part_tiles or (stored.part_tiles if stored else 1),
        aoi=drafted.aoi,
        task=request.task,
        failed=tuple((printable(name), printable(str(error))) for name, error in drafted.failed),
        evidence=drafted.evidence,
    )
    if stored is None:
        return _sized(plan, request, drafted, site)
    if plan.device_type != stored.device_type and not request.allow_mixed:
        raise PlanMismatch(
            f"the parts in this folder were made on {stored.device_type}, this run would use {plan.device_type}; "
            f"use --device {stored.device_type}, or --allow-mixed if their last digits may differ"
        )
    return replace(plan, device_type=stored.device_type, dtype=stored.dtype if request.allow_mixed else plan.dtype)


def printable(text: str) -> str:
    """Text that a file can hold: a file's name need not be valid Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def largest_shape(sources: Sequence[PlannedSource]) -> tuple[int, int]:
    """(H, W) of the chips with most pixels: what fits for them fits for all."""
    return max((planned.chip_shape for planned in sources), key=lambda shape: shape[0] * shape[1])


def _stretch(scale: str, drafted: Draft) -> Stretch:
    return fit_stretch([p.source for p in drafted.sources]) if scale == "auto" else fixed_stretch(scale)


def _sized(plan: Plan, request: Request, drafted: Draft, site: Site) -> Plan:
    """Choose what was not asked for: the batch from the model's shape, the part from one probe batch.

    A batch that the probe finds too large is halved until it fits.
    """
    tried = trial(plan, request, drafted.device)
    part_tiles = request.part_tiles
    if part_tiles is not None:
        batch = site.call(tried.first_batch)
    else:
        found = site.call(tried.measure)
        share = -(-drafted.n_tiles // (PARTS_PER_WORKER * len(site)))
        batch, part_tiles = found.batch, max(1, min(MOST_TILES, share, _power_of_two(PART_S / found.tile_s)))
    return replace(plan, batch=min(batch, max(part_tiles, request.batch_size or 1)), part_tiles=part_tiles)


def _power_of_two(number: float) -> int:
    """The largest that is not above; two runs on one machine should come to the same plan."""
    return 1 << max(0, int(number).bit_length() - 1)
