"""What all painters share: the canvas, convex outlines with soft edges, and noise that is cheap at any place.

Points are (row, col) in pixels; pixel (r, c) covers [r, r + 1) x [c, c + 1). h, w: the size of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from rsqa.scenes.scene import COVERS

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Region = tuple[int, int, int, int]
"""(row0, col0, row1, col1), whole pixels, inside the canvas."""

NOISE_PX = 512
"""Period of the noise tiles, and so the largest side of a region that is painted at once."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Periodic noise of mean 0 and deviation 1, stored twice in both directions so that any region is a plain view."""

    doubled: Floats
    """(2 * NOISE_PX, 2 * NOISE_PX)"""

    def at(self, region: Region, shift: int = 0) -> Floats:
        """(h, w) noise of a region; another shift is another, independent-looking noise."""
        row = (region[0] + shift * 197) % NOISE_PX
        col = (region[1] + shift * 331) % NOISE_PX
        return self.doubled[row : row + region[2] - region[0], col : col + region[3] - region[1]]


def fractal_noise(rng: np.random.Generator, exponent: float, smallest_px: float = 0.0) -> Noise:
    """Noise whose amplitude falls with frequency to the given exponent; nothing finer than smallest_px."""
    row_freq = np.fft.fftfreq(NOISE_PX)[:, None].astype(np.float32)
    col_freq = np.fft.rfftfreq(NOISE_PX)[None, :].astype(np.float32)
    freq = np.hypot(row_freq, col_freq)
    freq[0, 0] = np.inf  # no gain for the mean
    fine = np.where(np.isfinite(freq), freq, 0) * np.float32(smallest_px)
    return _periodic(rng, freq**-exponent * np.exp(-(fine**2)))


def wave_noise(rng: np.random.Generator, wavelength_px: float, direction: float) -> Noise:
    """Ripples of about one wavelength that run in one direction, as the wind makes them."""
    row_freq = np.fft.fftfreq(NOISE_PX)[:, None].astype(np.float32)
    col_freq = np.fft.rfftfreq(NOISE_PX)[None, :].astype(np.float32)
    freq = np.hypot(row_freq, col_freq) + 1e-6
    along = np.abs(row_freq * np.cos(direction) + col_freq * np.sin(direction)) / freq
    gain = np.exp(-(np.log(freq * wavelength_px) ** 2) / 0.5) * along**4
    return _periodic(rng, gain)


def _periodic(rng: np.random.Generator, gain: NDArray[np.floating]) -> Noise:
    white = np.fft.rfft2(rng.standard_normal((NOISE_PX, NOISE_PX), dtype=np.float32))
    tile = np.fft.irfft2(white * gain.astype(np.float32), s=(NOISE_PX, NOISE_PX)).astype(np.float32)
    tile -= tile.mean()
    tile /= tile.std()
    return Noise(np.tile(tile, (2, 2)))


@dataclass(frozen=True, slots=True)
class Warp:
    """Bends straight plans into the gentle curves of real ground.

    plan = pixel + (bend(col), bend(row)). Because the row's bend depends on the column alone and the other way round, a
    straight plan edge is still a sum of a row term and a column term, which is what makes outlines cheap.
    """

    amplitude: tuple[float, float]
    frequency: tuple[float, float]
    phase: tuple[float, float]

    def plan_rows(self, cols: Floats) -> Floats:
        """What is added to the row at these columns."""
        bend: Floats = np.float32(self.amplitude[0]) * np.sin(
            np.float32(self.frequency[0]) * cols + np.float32(self.phase[0])
        )
        return bend

    def plan_cols(self, rows: Floats) -> Floats:
        """What is added to the column at these rows."""
        bend: Floats = np.float32(self.amplitude[1]) * np.sin(
            np.float32(self.frequency[1]) * rows + np.float32(self.phase[1])
        )
        return bend

    def to_pixels(self, points: Points) -> Points:
        """(N, 2) plan points -> (N, 2) pixels, by fixed-point iteration (the bend's slope is well below 1)."""
        pixels = points.copy()
        for _ in range(8):
            rows = points[:, 0] - self.plan_rows(pixels[:, 1].astype(np.float32))
            cols = points[:, 1] - self.plan_cols(pixels[:, 0].astype(np.float32))
            pixels = np.stack([rows, cols], axis=1)
        return pixels


STRAIGHT = Warp((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


@dataclass(slots=True)
class Canvas:
    """The picture while it is painted."""

    pixels: NDArray[np.uint8]
    """(3, H, W)"""
    cover: NDArray[np.uint8]
    """(H, W)"""
    shadow: NDArray[np.uint8]
    """(H, W) shadows of standing things, 255 is full; kept apart because shadows that overlap are no darker."""
    gsd_m: float

    def region(self, points: Points, margin_px: float = 1.0) -> Region | None:
        """The part of the canvas around the points; None when all is outside."""
        height, width = self.cover.shape
        row0 = max(0, floor(points[:, 0].min() - margin_px))
        col0 = max(0, floor(points[:, 1].min() - margin_px))
        row1 = min(height, ceil(points[:, 0].max() + margin_px))
        col1 = min(width, ceil(points[:, 1].max() + margin_px))
        return (row0, col0, row1, col1) if row0 < row1 and col0 < col1 else None

    def regions(self, points: Points, margin_px: float = 1.0) -> Iterator[Region]:
        """The same in pieces of at most NOISE_PX a side."""
        whole = self.region(points, margin_px)
        if whole is None:
            return
        for row in range(whole[0], whole[2], NOISE_PX):
            for col in range(whole[1], whole[3], NOISE_PX):
                yield row, col, min(row + NOISE_PX, whole[2]), min(col + NOISE_PX, whole[3])

    def blend(self, region: Region, colour: Floats, alpha: Floats) -> None:
        """Lay a colour, (3,) or (3, h, w), over a region with an opacity (h, w) of 0 to 1."""
        row0, col0, row1, col1 = region
        patch = self.pixels[:, row0:row1, col0:col1]
        below = patch.astype(np.float32)
        above = colour[:, None, None] if colour.ndim == 1 else colour
        below += (above - below) * alpha
        np.clip(below, 0, 255, out=below)
        patch[...] = below + 0.5

    def shade(self, region: Region, factor: Floats) -> None:
        """Multiply the light of a region by (h, w) factors."""
        row0, col0, row1, col1 = region
        patch = self.pixels[:, row0:row1, col0:col1]
        patch[...] = np.minimum(patch * factor, 255)

    def cast(self, region: Region, shadow: Floats) -> None:
        """Note the shadow (h, w), 0 to 1, of a standing thing."""
        row0, col0, row1, col1 = region
        patch = self.shadow[row0:row1, col0:col1]
        np.maximum(patch, (shadow * np.float32(255)).astype(np.uint8), out=patch)

    def mark(self, region: Region, mask: NDArray[np.bool_], cover: str) -> None:
        """Note what covers the ground where mask (h, w) is true."""
        row0, col0, row1, col1 = region
        self.cover[row0:row1, col0:col1][mask] = COVERS.index(cover)


def inside_px(corners: Points, region: Region, warp: Warp = STRAIGHT) -> Floats:
    """(h, w) distance to the nearest edge of a convex outline, positive inside, at pixel centres."""
    centres_row, centres_col = centres(region)
    rows = centres_row[:, None], warp.plan_cols(centres_row)[:, None]
    cols = centres_col[None, :], warp.plan_rows(centres_col)[None, :]
    nxt = np.roll(corners, -1, axis=0)
    turn = float(np.sum(corners[:, 0] * nxt[:, 1] - corners[:, 1] * nxt[:, 0]))
    nearest: Floats | None = None
    for (row, col), (next_row, next_col) in zip(corners, nxt, strict=True):
        length = np.hypot(next_row - row, next_col - col)
        if length < 1e-6:
            continue
        normal_row = np.float32(np.sign(turn) * -(next_col - col) / length)
        normal_col = np.float32(np.sign(turn) * (next_row - row) / length)
        constant = np.float32(row * normal_row + col * normal_col)
        distance: Floats = (rows[0] * normal_row + rows[1] * normal_col - constant) + (
            cols[0] * normal_col + cols[1] * normal_row
        )
        nearest = distance if nearest is None else np.minimum(nearest, distance, out=nearest)
    if nearest is None:
        raise ValueError("an outline needs at least two different corners")
    return nearest


def soft(distance: Floats, width_px: float = 1.0) -> Floats:
    """Opacity 0 to 1 across an edge that is width_px wide."""
    opacity: Floats = np.clip(distance / np.float32(width_px) + np.float32(0.5), 0, 1)
    return opacity


def local_frame(region: Region, centre: tuple[float, float], angle: float) -> tuple[Floats, Floats]:
    """(h, w) pixels along and across a direction; angle 0 points down the rows, pi/2 along the columns."""
    rows, cols = centres(region)
    down = (rows - np.float32(centre[0]))[:, None]
    right = (cols - np.float32(centre[1]))[None, :]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return down * cos + right * sin, right * cos - down * sin


def placed(points: Points, centre: tuple[float, float], angle: float) -> Points:
    """(N, 2) points given as (along, across) a direction, pixels -> (N, 2) as (row, col)."""
    along, across = points[:, 0], points[:, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + along * cos - across * sin, centre[1] + along * sin + across * cos], axis=1)


def rectangle(centre: tuple[float, float], length: float, width: float, angle: float) -> Points:
    """(4, 2) corners; length lies along the angle."""
    half = np.array([[-length, -width], [length, -width], [length, width], [-length, width]]) / 2
    return placed(half, centre, angle)


def rounded(corners: Points, times: int = 2) -> Points:
    """The outline with its corners cut, which doubles their number each time (Chaikin)."""
    for _ in range(times):
        following = np.roll(corners, -1, axis=0)
        corners = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], axis=1).reshape(
            -1, 2
        )
    return corners


def convex_hull(points: Points) -> Points:
    """(M, 2) corners of the hull around (N, 2) points (monotone chain)."""
    ordered = sorted({(float(row), float(col)) for row, col in points})

    def chain(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for point in sequence:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
                kept.pop()
            kept.append(point)
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def centres(region: Region) -> tuple[Floats, Floats]:
    """(h,) rows and (w,) columns of the pixel centres."""
    rows = np.arange(region[0], region[2], dtype=np.float32) + np.float32(0.5)
    cols = np.arange(region[1], region[3], dtype=np.float32) + np.float32(0.5)
    return rows, cols
