"""Picture files of training sets: their size from the header, their pixels when they are needed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsqa.errors import InputError

_DEEP_MODES = ("I", "F")
"""Pillow's modes of more than 8 bits begin with these."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the header of a picture tells."""

    height: int = 0
    """Pixels; 0 when the picture can't be used."""
    width: int = 0
    fault: str = ""
    """Why it can't be used, in words that do not name the file; empty when it can."""
    form: str = ""
    """The file format as Pillow names it."""


def look(source: Path | bytes) -> Look:
    """Read the header of a file, or of a file's bytes. Total: what is wrong is said in `fault`."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            # 16-bit RGB is offered as 8-bit RGB with half of its bits gone; only the decoder's raw mode tells.
            if image.mode.startswith(_DEEP_MODES) or ";16" in str(image.tile):
                return Look(fault="picture of more than 8 bits a band")
            return Look(image.height, image.width, "", image.format or "")
    except FileNotFoundError:
        return Look(fault="no such picture")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow's readers raise
        return Look(fault="picture can't be read")


def inside(folder: Path, name: str) -> Path | None:
    """The file of a record's picture; None when the name leads out of the folder."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        return None
    return folder / relative


def decode(source: Path | bytes, name: str) -> NDArray[np.uint8]:
    """-> (3, H, W). Raises InputError that names the picture when it is missing, cut off or no picture."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(
            f"can't decode picture {name} ({reason}); replace or remove it, then go on with --resume"
        ) from error
