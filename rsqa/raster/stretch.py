"""From raw pixel values to uint8, once per collection: never per tile, or neighbours would not compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsqa.errors import UsageError
from rsqa.raster.gdal import GDAL_ERRORS, gdal_env
from rsqa.raster.grid import Window
from rsqa.raster.mosaic import read_window, touched_blocks
from rsqa.raster.raw import block_table
from rsqa.raster.source import RasterSource

MAX_SAMPLES = 512
MIN_SAMPLES = 16
SAMPLE_PX = 64 << 20
"""Pixels decoded for a fit, about: with large file blocks fewer of them are looked at."""
KEPT_PX = 4096
"""Pixels kept of each sampled block: 512 blocks then give two million values per band."""
LOW_PERCENT, HIGH_PERCENT = 2.0, 98.0

LEAST_SPAN = 1e-35
"""Values closer together than this are one value: 255 / span would not fit into float32."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A linear map per band: `low` becomes 0, `high` becomes 255. Without values: the identity, for uint8."""

    low: tuple[float, ...] = ()
    """One for each band that is read, or one for all of them."""
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not np.isfinite(self.low + self.high).all():
            raise ValueError(f"low and high must be finite and as many, got {self}")

    @property
    def identity(self) -> bool:
        return not self.low

    def apply(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """(C, H, W) raw, (H, W) valid or None -> (C, H, W) uint8; invalid pixels become 0.

        The identity wants uint8 and gives it back unchanged, not even copied, when all is valid.
        """
        if self.identity:
            if pixels.dtype != np.uint8:
                raise ValueError(f"{pixels.dtype} pixels need a stretch")
            scaled = pixels
        else:
            low = np.array(self.low, np.float32)[:, None, None]
            span = np.array(self.high, np.float32)[:, None, None] - low
            scale = 255 / np.where(span > LEAST_SPAN, span, np.float32(1))  # a constant picture is black, not NaN
            with np.errstate(over="ignore"):  # what is past float32's end is as good as infinite: 0 or 255
                values = pixels.astype(np.float32)
                if valid is not None:
                    values = np.where(valid, values, low)  # NaN and infinity are invalid: they may not reach the cast
                scaled = np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
        return scaled if valid is None else np.where(valid, scaled, np.uint8(0))

    def to_json(self) -> dict[str, list[float]]:
        """Plain values for json.dumps."""
        return {"low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_json(cls, values: dict[str, list[float]]) -> Stretch:
        """The inverse of to_json."""
        return cls(tuple(values["low"]), tuple(values["high"]))


BLIND = Stretch((1.0,), (0.0,))
"""What a collection gets in whose sample nothing was valid; no fit gives a low end above the high one."""


def fixed_stretch(text: str) -> Stretch:
    """The stretch that "0,3000" names: 0 becomes 0, 3000 becomes 255, in all bands. UsageError for anything else."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--scale takes LOW,HIGH, for example 0,3000, got {text!r}") from None
    if not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"--scale takes LOW,HIGH with LOW below HIGH, got {text!r}")
    return Stretch((low,), (high,))


def fit_stretch(sources: Sequence[RasterSource]) -> Stretch:
    """The stretch of a collection: percentiles 2 and 98 of each band over at most 512 of its file blocks.

    The blocks are spread evenly over all sources in their order; nodata, masked, NaN and infinite pixels do not count.
    uint8 and palettes are taken as they are; `BLIND` when the sample holds no valid pixel. UsageError when uint8 and
    other types, or grey and colour, are mixed.
    """
    raw = _stretched(sources)
    if not raw:
        return Stretch()
    if len(raw) < len(sources) or len({len(source.bands) for source in raw}) > 1:
        raise UsageError(
            "the sources mix 8-bit with other pixels, or grey with colour, and can't share one stretch; "
            "ask them separately or give --scale LOW,HIGH"
        )
    samples = [values for source, window in sample_windows(sources) if (values := _sample(source, window)) is not None]
    if not samples:  # nothing valid was found: whatever is valid after all must not be made up
        return BLIND
    values = np.concatenate(samples, axis=1).astype(np.float64)  # (C, n)
    low, high = np.percentile(values, [LOW_PERCENT, HIGH_PERCENT], axis=1)
    return Stretch(tuple(low.tolist()), tuple(high.tolist()))


def _stretched(sources: Sequence[RasterSource]) -> list[RasterSource]:
    """Those that are not taken as they are."""
    return [source for source in sources if source.dtype != "uint8" and not source.palette]


def sample_windows(sources: Sequence[RasterSource]) -> list[tuple[RasterSource, Window]]:
    """What a fit looks at: file blocks, spread evenly over those of all sources that the block tables do not declare
    absent; none of sources that are taken as they are.
    """
    sources = _stretched(sources)
    present = [_present_blocks(source) for source in sources]
    total = sum(map(len, present))
    if not total:
        return []
    largest = max(source.layout.block_height * source.layout.block_width for source in sources)
    n = min(total, max(MIN_SAMPLES, min(MAX_SAMPLES, SAMPLE_PX // largest)))
    ends = np.cumsum([len(blocks) for blocks in present])
    windows = []
    for i in range(n):
        at = (2 * i + 1) * total // (2 * n)
        k = int(np.searchsorted(ends, at, side="right"))
        windows.append((sources[k], _block_window(sources[k], present[k][at - int(ends[k])])))  # counted from its end
    return windows


def _present_blocks(source: RasterSource) -> Sequence[int]:
    """Numbers of the file blocks, row by row, that hold something."""
    rows = -(-source.height // source.layout.block_height)
    cols = -(-source.width // source.layout.block_width)
    if source.members:
        return touched_blocks(source, rows, cols)
    if source.blocks is None or source.blocks.sparse == 0:
        return range(rows * cols)
    table = block_table(source, 1)
    assert table is not None, "block facts come from the table"
    present: list[int] = np.flatnonzero(~table.sparse.all(axis=0)).tolist()
    return present


def _block_window(source: RasterSource, number: int) -> Window:
    height, width = source.layout.block_height, source.layout.block_width
    row, col = divmod(number, -(-source.width // width))
    top, left = row * height, col * width
    return Window(top, left, min(height, source.height - top), min(width, source.width - left))


def _sample(source: RasterSource, window: Window) -> NDArray[Any] | None:
    """(C, n) valid values of a window, at most 4096 a band; None when there are none."""
    try:
        with rasterio.Env(**gdal_env(sidecars=source.sidecars)):
            raw = read_window(source, window, factor=1)
    except GDAL_ERRORS:  # a broken block has no say; its tiles become error rows when they are read
        return None
    if raw is None:
        return None
    pixels = raw.pixels.reshape(len(raw.pixels), -1)
    if raw.valid is not None:
        pixels = pixels[:, raw.valid.ravel()]
    if not pixels.shape[1]:
        return None
    return pixels[:, :: -(-pixels.shape[1] // KEPT_PX)].copy()  # a copy lets the block go
