"""The directories of a TIFF, read without GDAL.

What a file declares is checked before GDAL opens it (a header of a few hundred bytes can make GDAL work for half a
minute), and the block table tells which blocks are absent or lie past the end of the file without decoding any.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rsqa.raster.grid import Window

MAX_DIRECTORIES = 64
MAX_BLOCKS = 1 << 24
SAMPLES, SAMPLE_BYTES = 16, 4096
"""Pieces of file content that join the fingerprint: an uncompressed file can change without changing its header."""

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First four bytes of a TIFF: classic and BigTIFF, either byte order."""

_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u8", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i8", 11: "f4"}
_TYPES |= {12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS = 254, 256, 257, 258, 273, 277, 278
_STRIP_COUNTS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 279, 284, 322, 323, 324, 325


@dataclass(frozen=True, slots=True)
class _Entry:
    type: int
    count: int
    start: int
    """Where the values begin in the file, bytes."""

    @property
    def n_bytes(self) -> int:
        return self.count * int(_TYPES[self.type][1:])


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF: the picture itself, an overview, a mask or another page."""

    width: int
    height: int
    samples: int
    bits: int
    planar: bool
    """Each band has its own blocks."""
    block_height: int
    block_width: int
    subfile: int
    """TIFF's NewSubfileType: bit 0 overview, bit 2 mask."""
    entries: dict[int, _Entry]
    byte_order: str

    @property
    def block_bytes(self) -> int:
        """Decoded size of one block."""
        bands = 1 if self.planar else self.samples
        return self.block_height * self.block_width * bands * -(-self.bits // 8)

    @property
    def block_shape(self) -> tuple[int, int, int]:
        """(planes, rows, cols) of blocks."""
        rows, cols = -(-self.height // self.block_height), -(-self.width // self.block_width)
        return (self.samples if self.planar else 1), rows, cols


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """Where each block of one image lies. Arrays are (planes, rows, cols) of blocks; planes = 1 unless planar."""

    offsets: NDArray[np.uint64]
    counts: NDArray[np.uint64]
    block_height: int
    block_width: int
    file_bytes: int
    row0: int = 0
    """Block row and column of the table's first block in the image."""
    col0: int = 0

    @property
    def sparse(self) -> NDArray[np.bool_]:
        """Blocks declared absent: offset and size are 0."""
        flags: NDArray[np.bool_] = (self.offsets == 0) & (self.counts == 0)
        return flags

    @property
    def odd(self) -> NDArray[np.bool_]:
        """Offset without size or size without offset; GDAL reads such a block as zeros and says nothing."""
        flags: NDArray[np.bool_] = (self.offsets == 0) ^ (self.counts == 0)
        return flags

    @property
    def past_end(self) -> NDArray[np.bool_]:
        """Blocks that end behind the end of the file."""
        size = np.uint64(self.file_bytes)
        room = size - np.minimum(self.offsets, size)  # never a sum: a hostile offset would overflow
        flags: NDArray[np.bool_] = (self.offsets != 0) & (self.counts > room)
        return flags

    def touched(self, window: Window) -> BlockTable:
        """The table of only those blocks that a window touches."""
        row, row_end = window.row // self.block_height, -(-window.row_end // self.block_height)
        col, col_end = window.col // self.block_width, -(-window.col_end // self.block_width)
        cut = (slice(None), slice(row, row_end), slice(col, col_end))
        return replace(self, offsets=self.offsets[cut], counts=self.counts[cut], row0=row, col0=col)

    def spread(self, flags: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
        """(rows, cols) flags of this table's blocks -> (H, W) flags of the window's pixels."""
        rows = np.arange(window.row, window.row_end) // self.block_height - self.row0
        cols = np.arange(window.col, window.col_end) // self.block_width - self.col0
        return flags[np.ix_(rows, cols)]


def read_directories(path: str) -> list[Directory]:
    """The directories of a local TIFF, at most 64. ValueError with the reason when it is no TIFF or is cut short."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(16)
        if not size:
            raise ValueError("the file is empty")
        if magic[:4] not in MAGIC:
            raise ValueError(f"it begins with {magic[:12]!r}, not as a TIFF does")
        order = "<" if magic[:2] == b"II" else ">"
        big = magic[2:4] in (b"+\0", b"\0+")
        if len(magic) < (16 if big else 8):
            raise ValueError("the file is truncated in its header")
        (at,) = struct.unpack(order + ("Q" if big else "I"), magic[8:16] if big else magic[4:8])
        directories: list[Directory] = []
        seen: set[int] = set()
        while at and at not in seen and len(directories) < MAX_DIRECTORIES:
            seen.add(at)
            try:
                entries, at = _read_entries(file, at, size, order, big)
                directories.append(_directory(file, entries, order))
            except ValueError:
                if not directories:  # a broken overview or page is GDAL's to judge, a broken picture is not read
                    raise
                break
    if not directories:
        raise ValueError("it holds no image")
    return directories


def _read_entries(file: BinaryIO, at: int, size: int, order: str, big: bool) -> tuple[dict[int, _Entry], int]:
    """The entries of the directory at byte `at`, and where the next directory begins (0 = none)."""
    count_format, entry_size, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    word = "Q" if big else "I"
    file.seek(at)
    head = file.read(struct.calcsize(order + count_format))
    if len(head) < struct.calcsize(order + count_format):
        raise ValueError("the file is truncated: its directory lies past the end")
    (n,) = struct.unpack(order + count_format, head)
    if n > 4096:
        raise ValueError(f"its directory claims {n} entries")
    body = file.read(n * entry_size + inline)
    if len(body) < n * entry_size:
        raise ValueError("the file is truncated inside its directory")
    entries: dict[int, _Entry] = {}
    for i in range(n):
        tag, kind, count = struct.unpack_from(order + "HH" + word, body, i * entry_size)
        if kind not in _TYPES:
            continue
        value_at = i * entry_size + (entry_size - inline)
        entry = _Entry(kind, count, at + len(head) + value_at)
        if entry.n_bytes > inline:
            entry = _Entry(kind, count, struct.unpack_from(order + word, body, value_at)[0])
        if entry.start + entry.n_bytes > size:
            raise ValueError(f"the file is truncated: tag {tag} of its directory lies past the end")
        entries.setdefault(tag, entry)
    tail = body[n * entry_size :]
    return entries, struct.unpack(order + word, tail)[0] if len(tail) == inline else 0


def _values(file: BinaryIO, entry: _Entry, order: str) -> NDArray[np.generic]:
    file.seek(entry.start)
    return np.frombuffer(file.read(entry.n_bytes), dtype=np.dtype(order + _TYPES[entry.type]))


def _directory(file: BinaryIO, entries: dict[int, _Entry], order: str) -> Directory:
    def first(tag: int, default: int) -> int:
        return int(_values(file, entries[tag], order)[0]) if tag in entries and entries[tag].count else default

    width, height, samples = first(_WIDTH, 0), first(_HEIGHT, 0), first(_SAMPLES, 1)
    tiled = _TILE_WIDTH in entries
    block_width = first(_TILE_WIDTH, 0) if tiled else width
    block_height = first(_TILE_HEIGHT, 0) if tiled else min(first(_STRIP_ROWS, height), height)
    if min(width, height, samples, block_width, block_height) < 1:
        raise ValueError(f"it declares {width} x {height} pixels in blocks of {block_width} x {block_height}")
    return Directory(
        width=width,
        height=height,
        samples=samples,
        bits=first(_BITS, 1),
        planar=first(_PLANAR, 1) == 2 and samples > 1,
        block_height=block_height,
        block_width=block_width,
        subfile=first(_SUBFILE, 0),
        entries=entries,
        byte_order=order,
    )


def read_block_table(path: str, directory: Directory) -> BlockTable | None:
    """The block table of one image; None when the file has none that can be used (very old TIFFs lack sizes)."""
    tiled = _TILE_OFFSETS in directory.entries
    tags = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_STRIP_OFFSETS, _STRIP_COUNTS)
    n = int(np.prod(directory.block_shape))
    if any(tag not in directory.entries or directory.entries[tag].count < n for tag in tags):
        return None
    with open(path, "rb") as file:
        offsets, counts = (
            _values(file, directory.entries[tag], directory.byte_order)[:n]
            .astype(np.uint64)
            .reshape(directory.block_shape)
            for tag in tags
        )
        size = os.fstat(file.fileno()).st_size
    return BlockTable(offsets, counts, directory.block_height, directory.block_width, size)


def digest(path: str, directory: Directory) -> str:
    """sha256 of the file's size, all tags of its first image (the block table is among them) and a few samples."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        total.update(str(size).encode())
        for tag, entry in sorted(directory.entries.items()):
            total.update(f"{tag} {entry.type} {entry.count} ".encode())
            file.seek(entry.start)
            total.update(file.read(entry.n_bytes))
        for i in range(SAMPLES):
            file.seek(i * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
            total.update(file.read(SAMPLE_BYTES))
    return total.hexdigest()
