"""Opening pictures: 8-bit RGB out, one kind of error for whatever is wrong with a file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsqa.errors import SourceMissing, SourceRefused
from rsqa.evaluate.items import Picture

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def file_picture(name: str, path: Path) -> Picture:
    """A picture in a file, which need not be there."""
    return Picture(name, partial(read_picture, path), name)


def bytes_picture(name: str, content: bytes, group: str = "") -> Picture:
    """A picture whose compressed bytes are in memory."""
    return Picture(name, partial(decode, content, name), group or name)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """-> (3, H, W). SourceMissing, SourceRefused."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceMissing(
            f"no picture {path.name!r} ({error.strerror}); put it where the benchmark has it"
        ) from error
    return decode(content, path.name)


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """-> (3, H, W). SourceRefused for what is no 8-bit picture of a known format."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.mode not in _EIGHT_BITS:
                raise SourceRefused(f"picture {name!r} has pixels of mode {image.mode}; convert it to 8 bits")
            return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    except SourceRefused:
        raise
    except Exception as error:  # Pillow raises nearly anything over broken bytes
        raise SourceRefused(f"picture {name!r} can't be decoded ({error}); fetch it again") from error


def picture_index(folder: Path) -> dict[str, Path]:
    """File names and their stems, in small letters -> pictures anywhere below a folder; the first in order wins."""
    found: dict[str, Path] = {}
    for path in _walk(folder):
        found.setdefault(path.name.lower(), path)
        found.setdefault(path.stem.lower(), path)
    return found


def _walk(folder: Path) -> Iterable[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(where) / name for name in sorted(names) if name.lower().endswith(SUFFIXES))


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """(3, H, W) -> bytes that `decode` gives back, lightly compressed."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
