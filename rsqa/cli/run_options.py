"""The options that ask, plan, classify, caption and detect share: declared once, expanded in each of them.

A command has one parameter for a group of options, in the place where its help is to show them:

    @expanded
    def caption(sources: opt.Chips, *, read: SourceOptions, tile_px: opt.ChipPx = None, run: RunOptions) -> None: ...

What Typer sees has `--asset`, `--mosaic`, … in the place of `read`, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, get_type_hints

from rsqa.cli import options as opt

if TYPE_CHECKING:
    from rsqa.run.request import Request
    from rsqa.tasks.question import Question
    from rsqa.tasks.task import Task


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What is read of the sources."""

    asset: opt.Asset = None
    mosaic: opt.Mosaic = False
    aoi: opt.Aoi = None
    bands: opt.Bands = None
    mask_band: opt.MaskBand = None
    mask_values: opt.MaskValues = None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Who is asked."""

    model: opt.Model = None
    card: opt.Card = None
    adapter: opt.Adapter = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How it is done, and what is said of it; within each panel in the order of the help."""

    gsd: opt.Gsd = None
    scale: opt.Scale = "auto"
    min_valid: opt.MinValid = 0.5
    reasoning: opt.Reasoning = None
    batch_size: opt.BatchSize = None
    workers: opt.Workers = None
    scheduler: opt.Scheduler = None
    dashboard: opt.Dashboard = False
    device: opt.Device = "auto"
    dtype: opt.Dtype = "auto"
    cache_features: opt.CacheFeatures = None
    overwrite: opt.Overwrite = False
    retry_errors: opt.RetryErrors = False
    max_duration: opt.MaxDuration = None
    allow_mixed: opt.AllowMixed = False
    part_tiles: opt.PartTiles = None
    json: opt.Json = False
    quiet: opt.Quiet = False
    verbose: opt.Verbose = False
    no_progress: opt.NoProgress = False
    log_file: opt.LogFile = None


class Without:
    """`Annotated[RunOptions, Without("reasoning")]`: the group without this option, which keeps its default."""

    def __init__(self, *names: str) -> None:
        self.names = names


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of its groups in the place of the groups."""
    kinds, hints = get_type_hints(command), get_type_hints(command, include_extras=True)
    groups: dict[str, list[str]] = {}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if is_dataclass(kinds[name]):
            options = _options(kinds[name], hints[name])
            groups[name] = [option.name for option in options]
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, options in groups.items():
            given[name] = kinds[name](**{option: given.pop(option) for option in options})
        command(**given)

    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    return flat


def _options(group: Any, hint: Any) -> list[Parameter]:
    """Parameters for the fields of a group, except those that its hint leaves out."""
    left_out = {name for note in getattr(hint, "__metadata__", ()) if isinstance(note, Without) for name in note.names}
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(group)
        if field.name not in left_out
    ]


def request_of(
    sources: Sequence[str],
    read: SourceOptions,
    model: ModelOptions,
    run: RunOptions,
    *,
    tile_px: int | None,
    questions: tuple[Question, ...] = (),
    task: Task | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    out: str | None = None,
    overlap_px: int = 0,
    pyramid: bool = False,
    evidence: bool = False,
) -> Request:
    """What the library is asked to do. UsageError for what makes no sense together."""
    from rsqa.run.request import Request
    from rsqa.tasks.task import Ask

    return Request(
        sources=tuple(sources),
        questions=questions,
        task=task or Ask(),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        out=out,
        asset=read.asset,
        mosaic=read.mosaic,
        aoi=read.aoi,
        bands=read.bands,
        mask_band=read.mask_band,
        mask_values=read.mask_values,
        tile_px=tile_px,
        overlap_px=overlap_px,
        pyramid=pyramid,
        gsd_m=run.gsd,
        scale=run.scale,
        min_valid=run.min_valid,
        model=model.model,
        card=model.card,
        adapter=model.adapter,
        evidence=evidence,
        reasoning=run.reasoning,
        batch_size=run.batch_size,
        workers=run.workers,
        scheduler=run.scheduler,
        device=run.device,
        dtype=run.dtype,
        cache_features=run.cache_features,
        overwrite=run.overwrite,
        retry_errors=run.retry_errors,
        max_duration_s=run.max_duration,
        allow_mixed=run.allow_mixed,
        part_tiles=run.part_tiles,
    )
