"""Which scenes are there: files, when each was taken, and which of them belong together."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rsqa.errors import InputError, SourceMissing, SourceRefused
from rsqa.monitor.watch import Scenes, Watch, digest, name_pattern
from rsqa.raster.addresses import is_remote, shown
from rsqa.raster.anchored import between, net
from rsqa.raster.folders import absolute, gather
from rsqa.raster.stac import NoItems, is_stac, resolved
from rsqa.raster.stac_search import Bounds, is_search

ENDINGS = ("*.tif", "*.tiff", "*.TIF", "*.TIFF")
"""Of the files that are looked for in a folder: pictures beside scenes are previews. A pattern may name others."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it lies there, or as a STAC item names it; not opened."""

    name: str
    """Relative to WATCH.toml's folder where it lies below it."""
    path: str
    size: int
    """Bytes; 0 of one on a server, which is taken to stay as it is."""
    mtime_ns: int
    acquired: datetime | None = None
    """What a STAC item says, UTC."""
    fault: str = ""
    """Why it can't be used."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A file that was opened once."""

    found: Found
    fingerprint: str
    acquired: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Files of one moment; looked at as one picture."""

    acquired: datetime
    scenes: tuple[Scene, ...]
    """No content twice, under the first of its names. By fingerprint, the first one on top: a copy that comes under
    another name must not turn the order."""

    @property
    def id(self) -> str:
        """`20260501T101500Z`."""
        return acquisition_id(self.acquired)

    @property
    def content(self) -> frozenset[str]:
        """Fingerprints of its files."""
        return frozenset(scene.fingerprint for scene in self.scenes)

    @property
    def content_id(self) -> str:
        """The same for the same content, whatever the files are called."""
        return digest(sorted(self.content))

    @property
    def label(self) -> str:
        """What the dataset calls its source."""
        return source_label(scene.found.name for scene in self.scenes)


def source_label(names: Iterable[str]) -> str:
    """`a.tif and 2 more`: the first one by name."""
    first, *more = sorted(names)
    return f"{first} and {len(more)} more" if more else first


def acquisition_id(acquired: datetime) -> str:
    """A name for a moment that sorts as the moments do."""
    fraction = f".{acquired.microsecond:06d}" if acquired.microsecond else ""
    return f"{acquired:%Y%m%dT%H%M%S}{fraction}Z"


def discover(watch: Watch, now: float) -> list[Found]:
    """The files that `paths` lead to, by name. `now`: seconds since 1970.

    InputError when a folder is not there, which may not be mounted, or a server does not answer.
    """
    found: dict[str, Found] = {}
    for entry in watch.scenes.paths:
        if is_stac(entry):
            there = _named_by_stac(watch, entry, now)
        else:
            there = _on_disk(watch, _below(str(watch.path(entry)), entry))
        found.update((file.name, file) for file in there)
    return [found[name] for name in sorted(found)]


def _on_disk(watch: Watch, paths: Iterable[str]) -> Iterator[Found]:
    for path in paths:
        try:
            facts = os.stat(path)
        except FileNotFoundError:  # gone since it was listed
            continue
        except OSError as error:
            raise InputError(f"{path!r} can't be looked at: {error.strerror}") from error
        yield Found(_name(path, watch.file.parent), path, facts.st_size, facts.st_mtime_ns)


def _named_by_stac(watch: Watch, entry: str, now: float) -> Iterator[Found]:
    """The files of STAC items that were taken within the window of time."""
    scenes = watch.scenes
    since = datetime.fromtimestamp(now - 86_400 * scenes.days, UTC) if scenes.days else None
    argument = entry if is_remote(entry) else str(watch.path(entry))
    if since is not None and is_search(entry) and "datetime=" not in entry:
        argument += f"{'&' if '?' in entry else '?'}datetime={since:%Y-%m-%dT%H:%M:%SZ}/.."
    try:
        named = resolved(argument, scenes.asset or None, _area(watch))
    except NoItems:
        return
    for item, reason in named.failed:
        yield Found(f"{shown(entry)}: {item}", "", 0, 0, fault=reason)
    for one in named.rasters:
        if since is not None and one.acquired is not None and one.acquired < since:
            continue
        if is_remote(one.argument):
            yield Found(shown(one.argument), absolute(one.argument), 0, 0, one.acquired)
        else:
            yield from (replace(file, acquired=one.acquired) for file in _on_disk(watch, [one.argument]))


def _area(watch: Watch) -> Bounds | None:
    """West, south, east, north of the area that is watched."""
    if not watch.grid.area:
        return None
    xmin, ymin, xmax, ymax = watch.grid.area
    lons, lats = between(watch.grid.crs, "OGC:CRS84").transform(*net((xmin, ymin, xmax, ymax)))
    return float(lons.min()), float(lats.min()), float(lons.max()), float(lats.max())


def _below(path: str, entry: str) -> Iterable[str]:
    if os.path.isdir(path):
        try:
            return [file for file, _ in gather([path], include=ENDINGS).files]
        except SourceMissing:  # nothing there yet
            return []
    fixed = path if not glob.has_magic(path) else _fixed_part(path)
    if not os.path.exists(fixed):
        raise InputError(f"paths names {entry!r}, and there is no {fixed!r}; is it mounted?")
    return [file for file in glob.glob(path, recursive=True) if os.path.isfile(file)]


def _fixed_part(pattern: str) -> str:
    """The folder above the first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:fixed]))


def _name(path: str, root: Path) -> str:
    relative = os.path.relpath(path, root)
    return (path if relative.startswith("..") else relative).replace(os.sep, "/")


def settled(found: Found, settle_s: float, now: float) -> bool:
    """Whether the file was last written some time ago. `now`: seconds since 1970.

    A time that lies in the future by more than that is a clock that was moved: it says as much as one in the past.
    """
    return abs(now - found.mtime_ns / 1e9) >= settle_s


def open_scene(found: Found, scenes: Scenes) -> Scene:
    """Look into the header. InputError when it can't be used, or is not whole yet."""
    from rsqa.raster.describe import open_source
    from rsqa.raster.source import damage

    if found.fault:
        raise SourceRefused(found.fault)
    source = open_source(found.path, name=found.name, bands=scenes.bands or None)
    if source.blocks is not None and source.blocks.past_end:
        raise SourceRefused(f"{damage(source)}; write it whole, or under another name and move it here")
    told = source.acquired if scenes.acquired == "tag" else _from_name(found, scenes.acquired)
    acquired = found.acquired or told
    if acquired is None:
        untold = "has no tag of its time" if scenes.acquired == "tag" else f"is not named as {scenes.acquired!r}"
        raise SourceRefused(
            f"{found.name!r} {untold}, so it does not tell when it was taken; let WATCH.toml say where its name does, "
            "the whole of it: acquired = '*_%Y%m%dT%H%M%S*'"
        )
    return Scene(found, source.fingerprint, acquired)


def _from_name(found: Found, acquired: str) -> datetime | None:
    pattern = name_pattern(acquired)
    assert pattern is not None  # it is not the tag
    match = pattern.fullmatch(Path(found.name).name)
    return None if match is None else _moment(match)


def _moment(match: re.Match[str]) -> datetime | None:
    told = {field: int(digits) for field, digits in match.groupdict().items()}
    try:
        day = datetime(told["Y"], told.get("m", 1), told.get("d", 1), tzinfo=UTC)
        if "j" in told:
            day += timedelta(days=told["j"] - 1)
        return day.replace(hour=told.get("H", 0), minute=told.get("M", 0), second=told.get("S", 0))
    except ValueError:
        return None


def gathered(scenes: Iterable[Scene]) -> list[Acquisition]:
    """Scenes of one moment together, oldest first; of copies the first by name."""
    moments: dict[datetime, dict[str, Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: scene.found.name):
        moments.setdefault(scene.acquired, {}).setdefault(scene.fingerprint, scene)
    return [
        Acquisition(acquired, tuple(moments[acquired][fingerprint] for fingerprint in sorted(moments[acquired])))
        for acquired in sorted(moments)
    ]
