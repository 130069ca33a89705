"""WATCH.toml: what a monitor looks at, what it asks, when it speaks. A key we do not know is an error.

Paths in it are absolute, or relative to the folder of the file: cron starts anywhere.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from rsqa.errors import UsageError

T = TypeVar("T")

KERNELS = ("nearest", "bilinear", "cubic", "average")
FROM_TAG = "tag"
"""Value of `acquired`: the file says when it was taken."""
_DATE_FIELDS = {"Y": r"(?P<Y>\d{4})", "m": r"(?P<m>\d\d)", "d": r"(?P<d>\d\d)", "j": r"(?P<j>\d{3})",
                "H": r"(?P<H>\d\d)", "M": r"(?P<M>\d\d)", "S": r"(?P<S>\d\d)"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """Where scenes arrive."""

    paths: tuple[str, ...]
    """Folders, files, patterns, STAC files and searches."""
    asset: str = ""
    """Of STAC items; empty: their only TIFF."""
    days: float = 0.0
    """STAC items that were taken longer ago are left out, and searches look no further back; 0: all are taken."""
    acquired: str = FROM_TAG
    settle_s: float = 60.0
    bands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.paths:
            raise UsageError("paths is empty; name a folder, or files as incoming/*.tif")
        if len(self.bands) not in (0, 1, 3):
            raise UsageError(f"bands names {len(self.bands)}; one is shown as grey, three as red, green and blue")
        if self.settle_s < 0 or self.days < 0:
            raise UsageError(f"settle_s is {self.settle_s:g} and days {self.days:g}; neither can be negative")
        name_pattern(self.acquired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The ground that is looked at, for good."""

    crs: str
    origin: tuple[float, ...]
    """(x, y) of the upper left corner of tile 0/0, CRS units."""
    pixel: float
    """Side of a pixel, CRS units."""
    tile_px: int = 448
    area: tuple[float, ...] = ()
    """(xmin, ymin, xmax, ymax), CRS units: no other tiles are asked; empty: wherever a scene lies."""
    resampling: str = "bilinear"
    low: tuple[float, ...] = ()
    """Of each band, or of all, the value that becomes 0; empty: 8-bit values as they are."""
    high: tuple[float, ...] = ()
    """The value that becomes 255."""

    def __post_init__(self) -> None:
        if len(self.origin) != 2:
            raise UsageError(f"origin is x and y of a corner, {list(self.origin)} given")
        if self.pixel <= 0 or self.tile_px < 1:
            raise UsageError(f"pixel {self.pixel:g} and tile_px {self.tile_px} must be positive")
        if self.area and not (len(self.area) == 4 and self.area[0] < self.area[2] and self.area[1] < self.area[3]):
            raise UsageError(f"area is xmin, ymin, xmax, ymax, {list(self.area)} given")
        if self.resampling not in KERNELS:
            raise UsageError(f"resampling is {self.resampling!r}; choose one of {', '.join(KERNELS)}")
        if len(self.low) != len(self.high) or any(a >= b for a, b in zip(self.low, self.high, strict=False)):
            raise UsageError("low and high must be as many, and each low below its high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked of each tile."""

    questions: tuple[str, ...] = ()
    question_file: str = ""
    labels: tuple[str, ...] = ()
    """Each tile is given one of them."""
    objects: tuple[str, ...] = ()
    """Kinds of things, in the singular, that are looked for."""
    threshold: float = 0.5
    """Confidence that a thing is there from which it is located."""
    back_fill: bool = False
    """Whether new questions are asked of old scenes too, as far as their files are there."""
    min_valid: float = 0.5

    def __post_init__(self) -> None:
        if not (self.questions or self.question_file or self.labels or self.objects):
            raise UsageError("nothing is asked; give questions, question_file, labels or objects")
        if not 0.5 <= self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold:g}; choose 0.5 to 1: what is less likely is not there")
        _check_share("min_valid", self.min_valid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Who answers; see the options of `rsqa ask`."""

    name: str = ""
    adapter: str = ""
    card: str = ""
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 0
    """0: from memory, when the first scene is asked; kept from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When two samples of answers differ; see `rsqa.monitor.change`."""

    min_delta: float = 0.3
    confirmations: int = 3
    min_valid: float = 0.8
    """An observation with less valid ground says nothing about changes."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_delta <= 1:
            raise UsageError(f"min_delta is {self.min_delta:g}; it is a difference of probabilities, 0 to 1")
        if not 1 <= self.confirmations <= 100:
            raise UsageError(f"confirmations is {self.confirmations}; choose 1 to 100")
        _check_share("min_valid", self.min_valid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pass may take."""

    max_minutes: float = 0.0
    """0: until all is done."""
    tries: int = 5
    min_free_gb: float = 1.0
    keep_days: int = 0
    """Days of the dataset that are kept, back from the last acquisition; 0: all."""

    def __post_init__(self) -> None:
        if self.max_minutes < 0 or self.tries < 1 or self.min_free_gb < 0 or self.keep_days < 0:
            raise UsageError("max_minutes, min_free_gb and keep_days must not be negative, tries at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Who hears of it."""

    on_change: tuple[str, ...] = ()
    """A program and its arguments; the file of changes comes last. No shell."""
    timeout_s: float = 60.0
    webhook_env: str = ""
    """Variable of the environment that holds the address of a webhook."""
    ping_env: str = ""
    """Variable that holds the address of a check that pings are sent to."""
    metrics: str = ""
    heartbeat: str = ""
    log: str = ""
    log_mb: float = 10.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.log_mb <= 0:
            raise UsageError("timeout_s and log_mb must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A whole WATCH.toml."""

    file: Path
    """Absolute."""
    out: Path
    """The monitor's folder."""
    scenes: Scenes
    grid: Grid
    ask: Ask
    model: Model
    change: Rule
    limits: Limits
    tell: Tell

    def path(self, name: str) -> Path:
        """A path of the file, absolute."""
        return self.file.parent / name

    def place(self, name: str) -> str | None:
        """A model or card by its name, or by a path; None where nothing is said."""
        there = self.path(name)
        return (str(there) if name and there.exists() else name) or None

    @property
    def grid_facts(self) -> dict[str, Any]:
        """What makes a tile the tile it is: it must not change while the monitor lives."""
        facts = asdict(self.grid)
        return {name: facts[name] for name in ("crs", "origin", "pixel", "tile_px")}

    @property
    def settings_id(self) -> str:
        """Of all that can change an answer, as it is written here; a file of questions with its words."""
        file = self.ask.question_file
        words = self.path(file).read_bytes().hex() if file and self.path(file).is_file() else ""
        facts = [asdict(self.grid), asdict(self.ask), asdict(self.model), self.scenes.bands, words]
        return digest(facts)


def digest(facts: Any) -> str:
    """16 hexadecimal digits of plain values."""
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


SECTIONS: Mapping[str, type] = {
    "scenes": Scenes, "grid": Grid, "ask": Ask, "model": Model, "change": Rule, "limits": Limits, "tell": Tell,
}  # fmt: skip


def read_watch(file: Path) -> Watch:
    """The file's settings. UsageError that names the section and key for everything that is not understood."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no {str(file)!r}; rsqa monitor init writes one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(file)!r} can't be read: {error}") from error
    file = file.absolute()
    known = ("out", *SECTIONS)
    _check_keys(raw.keys(), known, file.name)
    for name in ("out", "scenes", "grid", "ask"):
        if name not in raw:
            raise UsageError(f"{file.name}: {name} is missing; rsqa monitor init shows how it is written")
    if not isinstance(raw["out"], str) or not raw["out"]:
        raise UsageError(f"{file.name}: out is {raw['out']!r}; name the monitor's folder")
    parts = {name: _section(kind, raw.get(name, {}), f"{file.name}, [{name}]") for name, kind in SECTIONS.items()}
    return Watch(file=file, out=file.parent / raw["out"], **parts)


def _section(kind: Callable[..., T], raw: Any, where: str) -> T:
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {raw!r}; it is a table of keys")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    _check_keys(raw.keys(), tuple(known), where)
    for name, found in known.items():
        if name not in raw and found.default is MISSING:
            raise UsageError(f"{where}: {name} is missing")
    try:
        return kind(**{name: _typed(value, str(known[name].type), name) for name, value in raw.items()})
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _check_keys(found: Any, known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
            raise UsageError(f"{where}: unknown key {key!r}; {hint}")


def _typed(value: Any, wanted: str, name: str) -> Any:
    """A value of TOML as a field of type `wanted` takes it."""
    single = wanted.removeprefix("tuple[").removesuffix(", ...]")
    if single != wanted:
        if not isinstance(value, list):
            raise UsageError(f"{name} is {value!r}; write a list, as [{value!r}]")
        return tuple(_typed(item, single, name) for item in value)
    if wanted == "float" and isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    if wanted == "float" or type(value).__name__ != wanted:
        words = {"str": "a text", "float": "a number", "int": "a whole number", "bool": "true or false"}
        raise UsageError(f"{name} is {value!r}; it must be {words[wanted]}")
    return value


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"{name} is {share:g}; it is a share from 0 to 1")


def name_pattern(acquired: str) -> re.Pattern[str] | None:
    """`*_%Y%m%dT%H%M%S*` -> what finds the time in a file's name; None for the file's own tag."""
    if acquired == FROM_TAG:
        return None
    pieces = re.split(r"(%.|\*|\?)", acquired)
    wild = {"*": ".*?", "?": "."}
    try:
        found = "".join(
            _DATE_FIELDS[piece[1:]] if piece.startswith("%") else wild.get(piece, re.escape(piece)) for piece in pieces
        )
        pattern = re.compile(found)
    except (KeyError, re.error):
        pattern = re.compile("")
    if not ({"Y", "m", "d"} <= pattern.groupindex.keys() or {"Y", "j"} <= pattern.groupindex.keys()):
        raise UsageError(
            f"acquired is {acquired!r}; write 'tag', or how the file's name tells the date, as '*_%Y%m%dT%H%M%S*' "
            "(%Y %m %d or %Y %j, and %H %M %S, each once)"
        )
    return pattern
