"""What the model saw, kept on disk: new questions over an old mosaic need neither its pixels nor the vision tower.

    DIR/KEY/0-8_0-40.features   tile rows 0 to 7, tile columns 0 to 39 of one source

KEY is a digest of all that fixes the features (`Plan.features_id`); questions are no part of it. A file is whole or
absent: the sha256 of what follows; a line of JSON, padded with blanks; the features of its `ok` tiles, row by row.
Runs may cut a source differently: a block is found when files of any rectangles have all its tiles together.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies, SeeingSession, Session
from rsqa.errors import OutputError, UsageError
from rsqa.raster.grid import Block
from rsqa.run.plan import Parts, Plan, PlannedSource
from rsqa.run.report import size
from rsqa.sinks.whole import sweep, write_whole

_NAME = re.compile(r"(\d+)-(\d+)_(\d+)-(\d+)\.features")
_DIGEST_BYTES = 65
"""Hexadecimal digits and a line feed."""
_ALIGNED = 64
_DTYPES = ("<f4", "<f2", "<u2")
_STATUSES = {"ok", "nodata", "error"}


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What reading said of the N tiles of a block, row by row."""

    status: NDArray[np.object_]
    """(N,) of ok, nodata, error. Tiles with an error have to be read again: they count as not kept."""
    valid_frac: NDArray[np.float32]
    """(N,)"""


def features_folder(root: Path, plan: Plan, planned: PlannedSource) -> Path:
    """Where the features of a source lie."""
    return root / plan.features_id(planned)


def write_features(folder: Path, block: Block, looked: Looked, features: Sequence[NDArray[Any]]) -> None:
    """Keep a block: `features` are (n, S, D) of its ok tiles, piece after piece. OutputError as `write_whole`."""
    pieces = [np.ascontiguousarray(piece) for piece in features]
    facts = {
        "status": looked.status.tolist(),
        "valid_frac": [None if np.isnan(share) else share for share in looked.valid_frac.tolist()],
        "dtype": pieces[0].dtype.newbyteorder("<").str if pieces else _DTYPES[0],
        "shape": [sum(map(len, pieces)), *(pieces[0].shape[1:] if pieces else (0, 0))],
    }
    head = json.dumps(facts).encode()
    head += b" " * (-(_DIGEST_BYTES + len(head) + 1) % _ALIGNED) + b"\n"
    digest = sha256(head)
    for piece in pieces:
        digest.update(piece.data)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(digest.hexdigest().encode() + b"\n" + head)
            for piece in pieces:
                file.write(piece.data)

    write_whole(folder / f"{block.row0}-{block.row1}_{block.col0}-{block.col1}.features", write)


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """A verified file of R x C tiles."""

    path: Path
    status: NDArray[np.object_]
    """(R, C)"""
    valid_frac: NDArray[np.float32]
    """(R, C)"""
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte where the features begin."""

    def positions(self) -> NDArray[np.intp]:
        """(R, C) where the features of each ok tile lie."""
        return (np.cumsum(self.status == "ok") - 1).reshape(self.status.shape)

    def features(self) -> NDArray[Any]:
        """(n ok, S, D), mapped and not yet read."""
        return np.memmap(self.path, self.dtype, "r", self.start, self.shape)


def _verified(path: Path, n_rows: int, n_cols: int) -> _Stored | None:
    """The file if every byte of it is as it was written; else None."""
    try:
        with path.open("rb") as file:
            said = file.read(_DIGEST_BYTES)
            if said != f"{file_digest(file, 'sha256').hexdigest()}\n".encode():
                return None
            file.seek(_DIGEST_BYTES)
            facts = json.loads(file.readline())
            start = file.tell()
        status = np.array(facts["status"], object).reshape(n_rows, n_cols)
        valid_frac = np.array(facts["valid_frac"], np.float32).reshape(n_rows, n_cols)
        shape, dtype = tuple(map(int, facts["shape"])), facts["dtype"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if dtype not in _DTYPES or not set(facts["status"]) <= _STATUSES or shape[0] != np.sum(status == "ok"):
        return None
    return _Stored(path, status, valid_frac, dtype, shape, start)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A block of which every tile is kept."""

    looked: Looked
    files: tuple[_Stored, ...]
    where: NDArray[np.intp]
    """(n ok, 2) number of the file, position in it."""

    @property
    def n_ok(self) -> int:
        """Tiles with features."""
        return len(self.where)

    def features(self, first: int, end: int) -> NDArray[Any]:
        """(end - first, S, D) of the ok tiles `first` to `end` - 1."""
        wanted = self.where[first:end]
        sample = self.files[wanted[0, 0]]
        features = np.empty((len(wanted), *sample.shape[1:]), sample.dtype)
        for number in np.unique(wanted[:, 0]):
            mine = wanted[:, 0] == number
            features[mine] = self.files[number].features()[wanted[mine, 1]]
        return features


class Shelf:
    """The files of one source, as they lay there when it was made."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        self.folder = folder
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        self._paths = [folder / match[0] for match in matches]
        self._rects = np.array([match.groups() for match in matches], np.int64).reshape(-1, 4)
        """(files, 4) row0, row1, col0, col1."""
        self.damaged: set[Path] = set()
        """Files that were wanted and are not as they were written."""

    def n_tiles(self) -> int:
        """Tiles in all files; one that is in two counts twice."""
        return int(((self._rects[:, 1] - self._rects[:, 0]) * (self._rects[:, 3] - self._rects[:, 2])).sum())

    def find(self, block: Block) -> Found | None:
        """The block out of as few files as possible; None when a tile is in none of them."""
        shape = block.row1 - block.row0, block.col1 - block.col0
        files: list[_Stored] = []
        status, valid_frac = np.full(shape, "error", object), np.full(shape, np.nan, np.float32)
        where = np.zeros((*shape, 2), np.intp)
        for number, inside, within in self._overlaps(block):
            missing = status[inside] == "error"
            if not missing.any():
                continue
            row0, row1, col0, col1 = self._rects[number].tolist()
            stored = _verified(self._paths[number], row1 - row0, col1 - col0)
            if stored is None:
                self.damaged.add(self._paths[number])
                continue
            status[inside][missing] = stored.status[within][missing]
            valid_frac[inside][missing] = stored.valid_frac[within][missing]
            where[inside][missing, 0] = len(files)
            where[inside][missing, 1] = stored.positions()[within][missing]
            files.append(stored)
        if (status == "error").any():
            return None
        return Found(Looked(status.ravel(), valid_frac.ravel()), tuple(files), where[status == "ok"])

    def _overlaps(self, block: Block) -> list[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """(file, its tiles within the block, the same within the file) with the largest share first.

        None at all when a tile of the block lies outside all rectangles: then no file need be looked into.
        """
        starts = np.maximum(self._rects[:, [0, 2]], (block.row0, block.col0))
        ends = np.minimum(self._rects[:, [1, 3]], (block.row1, block.col1))
        areas = np.prod(np.clip(ends - starts, 0, None), axis=1)
        covered, overlaps = np.zeros((block.row1 - block.row0, block.col1 - block.col0), bool), []
        for number in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)].tolist():
            inside = _slices(starts[number] - (block.row0, block.col0), ends[number] - (block.row0, block.col0))
            origin = self._rects[number, [0, 2]]
            overlaps.append((number, inside, _slices(starts[number] - origin, ends[number] - origin)))
            covered[inside] = True
        return overlaps if covered.all() else []


def _slices(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[slice, slice]:
    return slice(int(start[0]), int(end[0])), slice(int(start[1]), int(end[1]))


class PartCache:
    """The features of one part: all of its tiles are kept already, or all are seen now and then kept.

    Never some of both, or the batches would be others than without a cache and so would be the last digits.
    """

    def __init__(self, root: Path, plan: Plan, parts: Parts, number: int) -> None:
        of_part = parts[number].blocks
        self._shelves = {source: Shelf(features_folder(root, plan, plan.sources[source])) for source, _ in of_part}
        self._found: dict[tuple[int, int], Found] = {}
        self._seen: deque[NDArray[Any]] = deque()
        self._blocks: deque[tuple[Path, Block, Looked]] = deque()
        self.complete = all(self._find(parts, source, block) for source, blocks in of_part for block in blocks)
        """Whether nothing need be read or seen."""
        self.unkept = ""
        """Why nothing more is kept: a full disk, say. The answers do not depend on it."""

    def _find(self, parts: Parts, source: int, block: int) -> bool:
        found = self._shelves[source].find(parts.block(source, block))
        if found is not None:
            self._found[source, block] = found
        return found is not None

    @property
    def damaged(self) -> frozenset[Path]:
        """Files that were wanted and are not as they were written."""
        return frozenset().union(*(shelf.damaged for shelf in self._shelves.values()))

    def recall(self, source: int, block: int) -> Found:
        """A block of a complete part."""
        return self._found[source, block]

    def answer(self, session: Session, tiles: NDArray[Any], valid: NDArray[np.bool_] | None) -> list[Replies]:
        """Answer features that were recalled; or see chips, answer, and remember what was seen if there was room."""
        assert isinstance(session, SeeingSession)  # the driver has asked
        if self.complete:
            return session.answer_seen(tiles)
        features = session.see(tiles, valid)
        replies = session.answer_seen(features)
        self._seen.append(features)
        return replies

    def expect(self, source: int, block: Block, looked: Looked) -> None:
        """The ok tiles of this block are seen next, behind those that were expected before."""
        self._blocks.append((self._shelves[source].folder, block, looked))

    def write(self) -> None:
        """Write the blocks of which all is seen, and hold them no longer."""
        while self._blocks:
            folder, block, looked = self._blocks[0]
            n_ok = int((looked.status == "ok").sum())
            if n_ok > sum(map(len, self._seen)):
                return
            self._blocks.popleft()
            features = self._take(n_ok)
            if not self.unkept:
                try:
                    write_features(folder, block, looked, features)
                except OutputError as error:
                    self.unkept = str(error)

    def _take(self, n: int) -> list[NDArray[Any]]:
        """The next n tiles, in pieces."""
        taken = []
        while n:
            piece = self._seen.popleft()
            if len(piece) > n:
                self._seen.appendleft(piece[n:])
                piece = piece[:n]
            taken.append(piece)
            n -= len(piece)
        return taken


@dataclass(frozen=True, slots=True)
class CacheCost:
    """What a run adds to the folder of features."""

    root: Path
    n_tiles: int
    """Not kept yet; those without valid pixels will cost nothing."""
    n_bytes: int
    """At most, for all of them."""
    free_bytes: int
    """On that disk."""


def cache_cost(root: Path, plan: Plan, engine: Engine) -> CacheCost:
    """Price of `--cache-features`, before anything is written.

    UsageError for an engine that can't look and be asked later, OutputError when the disk has not enough room.
    """
    shapes = {planned.chip_shape for planned in plan.sources}
    tile_bytes = {shape: _feature_bytes(plan, engine, shape) for shape in shapes}
    n_tiles = n_bytes = 0
    for planned in plan.sources:
        missing = max(0, planned.n_tiles - Shelf(features_folder(root, plan, planned)).n_tiles())
        n_tiles, n_bytes = n_tiles + missing, n_bytes + missing * tile_bytes[planned.chip_shape]
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    cost = CacheCost(root, n_tiles, n_bytes, shutil.disk_usage(there).free)
    if cost.n_bytes > cost.free_bytes:
        raise OutputError(
            f"--cache-features would take {size(cost.n_bytes)} for {n_tiles:,} tiles, {size(cost.free_bytes)} are free "
            f"at {str(there)!r}; choose another disk, or ask without it"
        )
    return cost


def _feature_bytes(plan: Plan, engine: Engine, chip_shape: tuple[int, int]) -> int:
    session = engine.prepare((), chip_shape, 1)
    if not isinstance(session, SeeingSession):
        raise UsageError(
            f"--cache-features asked, the engine {plan.model.name!r} can't keep what it saw; ask without it"
        )
    return session.feature_bytes


def open_cache(root: Path, plan: Plan) -> None:
    """Make the folders, and remove what killed runs of this host left in them. OutputError when that can't be done."""
    for folder in {features_folder(root, plan, planned) for planned in plan.sources}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"can't write --cache-features {str(root)!r}: {error.strerror}; choose another folder"
            ) from error
        sweep(folder)
