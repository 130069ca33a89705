"""Which files a run is about, and what it calls them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from rsqa.errors import SourceMissing, UsageError
from rsqa.raster.stac_search import is_search, search_name

ENDINGS = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".webp", ".jp2", ".j2k")
"""Of the rasters that are looked for in a folder, in small letters; what is in a file decides how it is opened."""
PREFIX = "GTI:"
"""As GDAL takes it before a tile index of any name."""
OWN = ".rsqa.lock"
"""A folder that holds this is an output of ours."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a run."""

    files: tuple[tuple[str, str], ...]
    """(path, name), each path once."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read."""
    failed: tuple[tuple[str, str], ...] = ()
    """(name, why) of what names no file that could be read."""
    acquired: Mapping[str, datetime] = field(default_factory=dict)
    """Path -> when it was taken, where something beside the file tells."""


def expand(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Command-line arguments -> (path, name) of each file, in order; the same file twice counts once.

    A name is the file's own, with as many of its folders as tell it from the others. UsageError for a folder.
    """
    paths = list(dict.fromkeys(map(absolute, arguments)))
    for path in paths:
        if os.path.isdir(path):
            raise UsageError(
                f"{path!r} is a folder; name the files in it, for example {os.path.join(path, '*.tif')}, "
                "or make them one source with --mosaic"
            )
    return _named(dict.fromkeys(paths, 1))


def gather(
    arguments: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    endings: tuple[str, ...] = ENDINGS,
) -> Listing:
    """As `expand`, and of each folder all rasters below it, in the order of their names.

    A file of a folder is called by its path below it. include, exclude: patterns of what is taken and left out below
    folders, see `_wanted`; endings: of the names that are looked at, in small letters. SourceMissing when a folder
    holds no raster that is wanted.
    """
    shown: dict[str, int] = {}
    """Path -> parts of it that its name has at least."""
    faults = Counter[str]()
    for argument in arguments:
        path = absolute(argument)
        if not os.path.isdir(path):
            shown.setdefault(path, 1)
            continue
        below = [found for found in _below(path, include, exclude, faults) if found.lower().endswith(endings)]
        if not below:
            asked = " that --include and --exclude leave" if include or exclude else ""
            raise SourceMissing(f"no raster below {argument!r}{asked}; the endings looked for are {', '.join(endings)}")
        for relative in below:
            shown.setdefault(os.path.join(path, relative), relative.count("/") + 1)
    notes = tuple(f"{what}: {n:,}" for what, n in faults.items())
    return Listing(tuple(_named(shown)), notes)


def common_folder(arguments: Sequence[str]) -> str:
    """The name of the folder that holds all files and folders named; "mosaic" where it has none that can be shown.

    Of a search its own name.
    """
    if is_search(arguments[0]):
        return search_name(arguments[0])
    paths = [path if os.path.isdir(path) else os.path.dirname(path) for path in map(absolute, arguments)]
    name = os.path.basename(os.path.commonpath(paths))
    return name if re.fullmatch(r"\w[\w .-]*", name) else "mosaic"


def absolute(argument: str) -> str:
    """An absolute path; a URL as the path by which GDAL reads it."""
    if argument.startswith(("https://", "http://")):
        return f"/vsicurl/{argument}"
    if argument.startswith("s3://"):
        return f"/vsis3/{argument.removeprefix('s3://')}"
    if argument.startswith(PREFIX):
        return PREFIX + absolute(argument.removeprefix(PREFIX))
    return argument if argument.startswith("/vsi") else os.path.abspath(argument)


def _below(folder: str, include: Sequence[str], exclude: Sequence[str], faults: Counter[str]) -> list[str]:
    """-> paths of the rasters below a folder, relative to it, in order; what else was there is counted in `faults`.

    Linked folders are not entered: they may lead anywhere, also in circles. Neither are hidden folders and our outputs.
    """
    root = os.path.join(os.path.realpath(folder), "")
    found = []

    def closed(_: OSError) -> None:
        faults["folders that can't be read, left out"] += 1

    for where, folders, names in os.walk(folder, onerror=closed):
        if OWN in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(where, name)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            if name.startswith(".") or not name.lower().endswith(ENDINGS) or not _wanted(relative, include, exclude):
                continue
            if os.path.islink(path) and not os.path.realpath(path).startswith(root):
                faults["links that lead out of their folder, not read"] += 1
                continue
            found.append(relative)
    return sorted(found, key=lambda relative: relative.split("/"))


def _wanted(relative: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether one of `include`, if there are any, and none of `exclude` fits a path or its last part.

    `*` stands for any characters, slashes too; letters' case makes a difference.
    """
    name = relative.rpartition("/")[2]

    def fits(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(relative, pattern) or fnmatchcase(name, pattern) for pattern in patterns)

    return (not include or fits(include)) and not fits(exclude)


def _named(shown: Mapping[str, int]) -> list[tuple[str, str]]:
    """Path -> least number of its last parts in its name; -> (path, name), no name twice."""
    # what could be a credential in a URL stays out of names: they are written to every output
    parts = [re.sub(r"//[^/@]*@", "//", path.split("?")[0]).strip("/").split("/") for path in shown]
    times = Counter(tuple(own[-n:]) for own in parts for n in range(1, len(own) + 1))
    return [(path, _shortest_name(own, least, times)) for (path, least), own in zip(shown.items(), parts, strict=True)]


def _shortest_name(own: list[str], least: int, times: Mapping[tuple[str, ...], int]) -> str:
    """`times`: path ends -> paths that end so."""
    ends = (own[-n:] for n in range(least, len(own)))
    return "/".join(next((end for end in ends if times[tuple(end)] == 1), own))
