"""Whether a WATCH.toml can work, found out before cron does."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from rsqa.errors import InputError, UsageError
from rsqa.monitor.observe import grid_of
from rsqa.monitor.run import check_grid, check_hearers, find_watched_model, questions_of
from rsqa.monitor.scenes import discover, open_scene, settled
from rsqa.monitor.watch import Watch
from rsqa.raster.describe import open_source
from rsqa.raster.stretch import Stretch
from rsqa.raster.warp import View
from rsqa.tasks.question import Question

LOOKED_AT = 3
"""Files whose headers are tried."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How a file was understood."""

    questions: tuple[Question, ...]
    tile: float
    """Side of a tile, CRS units."""
    model: str
    n_files: int
    n_unsettled: int
    warnings: tuple[str, ...]


def check_watch(watch: Watch) -> Checked:
    """Raises the RsqaError that a pass would end with at once; what would only fail a scene is a warning."""
    questions, grid = questions_of(watch), grid_of(watch)
    check_hearers(watch)
    check_grid(watch)
    model, _ = find_watched_model(watch)
    now = time.time()
    found = discover(watch, now)
    warnings = [f"question {q.id!r} has no list of answers, so no change is told of it" for q in questions
                if q.kind == "open"]  # fmt: skip
    if watch.tell.ping_env and watch.tell.ping_env not in os.environ:
        warnings.append(f"ping_env names {watch.tell.ping_env}, which is not set: no ping will be sent")
    for file in found[-LOOKED_AT:]:
        try:
            open_scene(file, watch.scenes)
            source = open_source(file.path, name=file.name, bands=watch.scenes.bands or None)
            View(source, grid, Stretch(watch.grid.low, watch.grid.high), watch.grid.resampling)
            if not len(grid.seen_by(source)):
                warnings.append(f"{file.name!r} lies nowhere on the grid")
        except (InputError, UsageError) as error:
            warnings.append(str(error))
    if not found:
        warnings.append("no scene is there yet")
    return Checked(
        questions, grid.tile, model.name, len(found),
        sum(not settled(file, watch.scenes.settle_s, now) for file in found), tuple(warnings),
    )  # fmt: skip
