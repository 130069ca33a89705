"""Quick-looks of the sources within a budget of pixels: the page cuts the pictures of tiles out of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from rsqa.errors import InputError
from rsqa.raster.describe import check_unchanged
from rsqa.raster.quicklook import Quicklook, quicklook
from rsqa.raster.source import RasterSource
from rsqa.raster.stretch import Stretch

MOST_PICTURES = 10_000
"""Sources that get one; more would be too many for a browser to draw at once."""
LEAST_PX = 32 * 32
MOST_SIDE = 8192
"""Pixels; browsers draw larger pictures slowly or not at all."""
QUALITY = 72
"""Of WEBP."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A quick-look as a file."""

    webp: bytes
    step: int
    """Source pixels per pixel, along one side."""


def take_quicklooks(
    sources: Sequence[RasterSource], stretch: Stretch, most_px: int, on_note: Callable[[str], None]
) -> list[Quicklook | None]:
    """-> a quick-look of each source, together `most_px` pixels; None and a note where a source is gone or changed."""
    shown = sources[:MOST_PICTURES]
    if len(sources) > len(shown):
        on_note(f"{len(sources):,} sources: the pictures of the first {len(shown):,} are shown")
    looks: list[Quicklook | None] = [None] * len(sources)
    total = sum(source.width * source.height for source in shown)
    for number, source in enumerate(shown):
        share = int(most_px * source.width * source.height / total)
        try:
            check_unchanged(source)
            looks[number] = quicklook(source, stretch, max(LEAST_PX, share), MOST_SIDE)
        except InputError as error:
            on_note(f"no picture of {source.name}: {error}")
    return looks


def encode(look: Quicklook) -> Picture:
    """-> the picture as lossy WEBP; what is transparent stays so."""
    file = io.BytesIO()
    Image.fromarray(look.pixels).save(file, "WEBP", quality=QUALITY, method=2)
    return Picture(file.getvalue(), look.step)
