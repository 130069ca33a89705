"""What is decided about a file before GDAL sees it.

Regular files only; TIFF and other pictures by content, VRT by name and only as a plain mosaic of local TIFFs; /vsi
paths only when the user typed one. Masks, overviews and world files beside a TIFF are honoured, unless one of them
could make GDAL open something else; beside other pictures nothing is looked at.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from rsqa.errors import SourceMissing, SourceRefused
from rsqa.raster.tiff import MAGIC, MAX_BLOCKS, Directory, digest, read_directories
from rsqa.raster.vrt import vrt_sources

MAX_BANDS = 64
MAX_PIXELS = 10**12
MAX_FILE_BLOCK_BYTES = 256 << 20

PICTURES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WEBP",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}  # fmt: skip
"""First bytes of a picture that is no TIFF -> GDAL's driver for it."""

_REWRITE = "gdal_translate -of COG in.tif out.tif"
_SIDECARS = (".ovr", ".OVR", ".msk", ".MSK")
_WORLD_FILES = (".tfw", ".TFW", ".tifw", ".wld", ".WLD")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a source may be opened."""

    path: str
    """Absolute, or a /vsi path."""
    driver: str
    sidecars: tuple[str, ...]
    """Files beside it that GDAL may use."""
    pictures: tuple[tuple[str, Directory], ...]
    """(path, first directory) of each local TIFF whose pixels are read: one, or the sources of a VRT."""
    notes: tuple[str, ...]

    def fingerprint(self) -> str | None:
        """sha256 over headers, block tables, sizes and samples of all local files; None for a /vsi path."""
        if self.driver in PICTURES.values():
            return _file_digest(self.path)
        if not self.pictures:
            return None
        total = hashlib.sha256()
        for path, directory in self.pictures:
            total.update(digest(path, directory).encode())
        for path in (*self.sidecars, *([self.path] if self.driver == "VRT" else [])):
            total.update(_file_digest(path).encode())
        return total.hexdigest()


def inspect(path: str, name: str) -> Opening:
    """Decide how a file may be opened. SourceMissing or SourceRefused, with the reason and what to do."""
    is_vrt = path.lower().endswith(".vrt")
    if path.startswith("/vsi"):
        if is_vrt:
            raise SourceRefused(f"{name!r} is a VRT that can't be checked where it lies; copy it and its sources here")
        return Opening(path, "GTiff", (), (), ())
    require_file(path, name)
    path = os.path.abspath(path)
    if driver := _picture_driver(path, name):
        return Opening(path, driver, (), (), ())
    if not is_vrt:
        members = [path]
    else:
        try:
            members = vrt_sources(path)
        except ValueError as error:
            raise SourceRefused(
                f"the VRT {name!r} is not opened: {error}; write its pixels to a file first: "
                "gdal_translate -of COG in.vrt out.tif"
            ) from error
        for member in members:
            require_file(member, f"{os.path.basename(member)} of {name}")
    pictures = tuple((member, _first_picture(member, name)) for member in members)
    beside = [found for member in {path, *members} for found in _sidecars(member)]
    foreign = [found for found in beside if not _is_harmless(found)]
    if not foreign:
        return Opening(path, "VRT" if is_vrt else "GTiff", tuple(sorted(beside)), pictures, ())
    names = ", ".join(sorted(repr(os.path.basename(found)) for found in foreign))
    if is_vrt:  # its sources' masks can't be switched off one by one
        raise SourceRefused(
            f"the VRT {name!r} is not opened: {names} beside its sources is not a TIFF that can be used; remove it"
        )
    note = f"{name!r}: {names} beside it is not a TIFF that can be used, so no mask or overview beside it is used"
    return Opening(path, "GTiff", (), pictures, (note,))


def require_file(path: str, name: str) -> None:
    """Only a regular file with a name that GDAL can be given: a FIFO would hang, a device never end."""
    try:
        path.encode()
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        raise SourceRefused(f"the name {name!r} is not valid UTF-8; rename the file") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        hint = "; a remote file is named /vsicurl/https://…" if "://" in path else ""
        raise SourceMissing(f"there is no file {path!r}{hint}") from None
    except OSError as error:
        raise SourceRefused(f"{name!r} can't be read: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise SourceRefused(f"{name!r} is a folder; name the files in it, for example {os.path.join(path, '*.tif')!r}")
    if not stat.S_ISREG(mode):
        raise SourceRefused(f"{name!r} is not a regular file (a FIFO, socket or device); copy it to a file")


def _picture_driver(path: str, name: str) -> str | None:
    """The driver of a picture that is no TIFF, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(max(map(len, PICTURES)))
    except OSError as error:
        raise SourceRefused(f"{name!r} can't be read: {error.strerror}") from error
    return next((driver for magic, driver in PICTURES.items() if head.startswith(magic)), None)


def whole_png(path: str) -> bool:
    """Whether all chunks up to the last one are there and fit their checksums: GDAL shows what is missing as black."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], "big")
            if size > MAX_FILE_BLOCK_BYTES:
                return False
            body, check = file.read(size), file.read(4)
            if len(check) < 4 or crc32(body, crc32(head[4:])) != int.from_bytes(check, "big"):
                return False
            if head[4:] == b"IEND":
                return True
    return False


def _first_picture(path: str, name: str) -> Directory:
    where = name if os.path.basename(path) == os.path.basename(name) else f"{os.path.basename(path)} of {name}"
    try:
        directories = read_directories(path)
    except OSError as error:
        raise SourceRefused(f"{where!r} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceRefused(f"{where!r} is not a readable GeoTIFF: {error}") from None
    _check_directories(where, directories)
    return directories[0]


def _check_directories(name: str, directories: list[Directory]) -> None:
    """The limits of the picture, its overviews and its masks; other pages are never read."""
    for i, directory in enumerate(directories):
        if i == 0 or directory.subfile:
            check_limits(name, directory.samples, directory.width * directory.height, directory.block_bytes)
            planes, rows, cols = directory.block_shape
            if planes * rows * cols > MAX_BLOCKS:
                raise SourceRefused(f"{name!r} is cut in more than {MAX_BLOCKS} blocks; rewrite it: {_REWRITE}")


def check_limits(name: str, bands: int, pixels: int, block_bytes: int) -> None:
    """SourceRefused when what is declared could exhaust memory or time."""
    if bands > MAX_BANDS:
        raise SourceRefused(f"{name!r} declares {bands} bands, the limit is {MAX_BANDS}")
    if pixels > MAX_PIXELS:
        raise SourceRefused(f"{name!r} declares {pixels} pixels, the limit is {MAX_PIXELS}")
    if block_bytes > MAX_FILE_BLOCK_BYTES:
        raise SourceRefused(
            f"{name!r} is stored in blocks of {block_bytes >> 20} MB, the limit is {MAX_FILE_BLOCK_BYTES >> 20} MB; "
            f"rewrite it: {_REWRITE}"
        )


def _sidecars(path: str, depth: int = 2) -> Iterator[str]:
    """Files that GDAL would look at beside a TIFF, also beside its overviews and masks."""
    stem = os.path.splitext(path)[0]
    for found in (path + suffix for suffix in _SIDECARS):
        if os.path.lexists(found):
            yield found
            if depth:
                yield from _sidecars(found, depth - 1)
    yield from filter(os.path.lexists, (stem + suffix for suffix in (*_WORLD_FILES, ".aux", ".AUX")))
    yield from filter(os.path.lexists, (path + ".aux", path + ".AUX"))


def _is_harmless(sidecar: str) -> bool:
    """A TIFF within limits, or a text that places the picture; all else could make GDAL open other files."""
    try:
        if not stat.S_ISREG(os.stat(sidecar).st_mode):
            return False
        if sidecar.endswith(_WORLD_FILES):
            return True
        if sidecar.lower().endswith(".aux"):
            with open(sidecar, "rb") as file:
                return file.read(4) != b"EHFA"  # only GDAL's own kind of .aux is opened
        _check_directories(sidecar, read_directories(sidecar))
    except (OSError, ValueError, SourceRefused):
        return False
    return True


def _file_digest(path: str) -> str:
    """sha256 of a small file, or of a TIFF's header, size and samples."""
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            file.seek(0)
            return hashlib.sha256(file.read(64 << 20)).hexdigest()
    return digest(path, read_directories(path)[0])
