"""The WATCH.toml that `rsqa monitor init` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rsqa.errors import OutputError, UsageError
from rsqa.raster.describe import open_source
from rsqa.raster.grid import Window
from rsqa.raster.source import footprint
from rsqa.raster.stretch import fit_stretch
from rsqa.sinks.ground import crs_label

_TEXT = """\
# What rsqa monitor watches, asks and tells. Paths are absolute, or relative to the folder of this file.

out = "{stem}.monitor"                  # the dataset, the changes, and what the monitor remembers

[scenes]
paths = ["incoming"]                    # folders (their .tif files), or patterns as "incoming/**/*_visual.tif"
# paths = ["https://planetarycomputer.microsoft.com/api/stac/v1/search?collections=naip"]   # or a search, or STAC files
# asset = "image"                       # of STAC items; by default their only TIFF
# days = 30                             # how far back a search looks, counted from now
acquired = "tag"                        # when a scene was taken: its tag, or its name as "*_%Y%m%dT%H%M%S*"
settle_s = 60                           # a file is taken when it was not written to for so long
# bands = ["4", "3", "2"]               # shown as red, green, blue; by default read from the file

[grid]                                  # never changes while the monitor lives: its tiles are ground
crs = {crs}
origin = [{x}, {y}]                     # x, y of the upper left corner of tile 0/0
pixel = {pixel}                         # side of a pixel, in units of the CRS; scenes are resampled to it
tile_px = 448                           # side of a tile, pixels
# area = [xmin, ymin, xmax, ymax]       # no tile outside is asked
resampling = "bilinear"                 # nearest, bilinear, cubic, average
{stretch}

[ask]
questions = ["water: Is there water?", "ships: Are there ships?"]
# question_file = "questions.txt"       # more of them, one a line
# labels = ["forest", "farmland", "city"]  # each tile is given one of them
# objects = ["ship", "storage tank"]    # looked for one by one: what appears, vanishes and moves is told
# threshold = 0.5                       # confidence that a thing is there from which it is located
back_fill = false                       # true: new questions are asked of old scenes too, if their files are there
min_valid = 0.5                         # tiles with less valid ground are not asked

[model]                                 # as the options of rsqa ask; without a name the embedded tinyrs-nano
# name = "tinyrs"
# device = "auto"

[change]
min_delta = 0.3                         # so much must the probability of the new answer have risen
confirmations = 3                       # observations in a row that agree, before and after; 1: believe each night
min_valid = 0.8                         # tiles with less valid ground say nothing about changes

[limits]
# max_minutes = 50                      # stop cleanly after this time (exit code 10); the next pass goes on
tries = 5                               # a scene that is refused so often is given up until it changes
min_free_gb = 1.0                       # begin no scene when less would be left on the disk
# keep_days = 730                       # older scenes are not asked, and rsqa monitor tidy lets go of their rows

[tell]
# on_change = ["/usr/local/bin/page"]   # run with the file of changes as last argument, a line each on its stdin
timeout_s = 60                          # and ended after this time
# webhook_env = "PORT_WEBHOOK"          # variable that holds the secret address where changes are posted as JSON
# ping_env = "PORT_PING"                # the same of a check (healthchecks.io): ADDRESS/start and ADDRESS/EXIT_CODE
# metrics = "/var/lib/node_exporter/rsqa.prom"
# heartbeat = "heartbeat"
# log = "monitor.log"                   # one JSON object a line, turned over at log_mb, three old ones kept
"""
_LOWS = """\
# low = [0.0]                           # values that become 0 and 255, one for all bands or one each;
# high = [3000.0]                       # needed where scenes are not 8-bit"""


@dataclass(frozen=True, slots=True)
class _Ground:
    crs: str
    x: float
    y: float
    pixel: float
    stretch: str


def init_watch(file: Path, scene: Path | None) -> None:
    """Write a new WATCH.toml, its grid and stretch taken from a scene. UsageError when the file is there."""
    ground = _Ground("EPSG:32631", 500000.0, 4600000.0, 0.5, _LOWS) if scene is None else _ground_of(scene)
    text = _TEXT.format(
        stem=file.stem.lower() if file.stem != "WATCH" else "watch", crs=json.dumps(ground.crs, ensure_ascii=False),
        x=repr(ground.x), y=repr(ground.y), pixel=repr(ground.pixel), stretch=ground.stretch,
    )  # fmt: skip
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError as error:
        raise UsageError(f"{str(file)!r} is there already; name another file") from error
    except OSError as error:
        raise OutputError(f"can't write {str(file)!r}: {error.strerror}; choose another place") from error


def _ground_of(scene: Path) -> _Ground:
    source = open_source(str(scene), name=scene.name)
    a, b, _, d, e, _ = source.transform
    sides = (a**2 + d**2) ** 0.5, (b**2 + e**2) ** 0.5
    ring = footprint(source, [Window(0, 0, source.height, source.width)])[0]
    stretch = fit_stretch([source])
    values = "" if stretch.identity else f"low = {list(stretch.low)!r}\nhigh = {list(stretch.high)!r}"
    return _Ground(
        crs_label(source.crs_wkt), float(ring[:, 0].min()), float(ring[:, 1].max()), min(sides), values or _LOWS
    )
