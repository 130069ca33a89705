"""Cars: rows of them in parking lots, single ones on roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsqa.scenes.canvas import Canvas, Floats, inside_px, local_frame, rectangle, soft
from rsqa.scenes.look import Look
from rsqa.scenes.solids import Spot, paint_block

_PLAIN = (1.0, 1.0, 1.0)
_TINTS = (_PLAIN, _PLAIN, _PLAIN, _PLAIN, (1.1, 0.5, 0.45), (0.55, 0.75, 1.15), (0.95, 0.9, 0.75), (0.6, 0.8, 0.7))
"""Most cars are white, grey or black."""
_STALL_M, _BAY_M = 2.7, 16.0
"""A bay is two rows of 5 m stalls and the 6 m aisle between them."""
_STALLS, _ROWS = 512, 64
"""More than any lot has."""


@dataclass(frozen=True, slots=True)
class _Lot:
    """Who stands where. Lot coordinates are metres along the rows and across them, from a corner."""

    size_m: tuple[float, float]
    rim_m: float
    """Before the first bay and behind the last."""
    taken: NDArray[np.bool_]
    """(_STALLS, _ROWS)"""
    paints: Floats
    """(_STALLS, _ROWS, 3)"""
    jitter: Floats
    """(_STALLS, _ROWS) how far a car is off the middle of its stall, metres."""

    def cars(self, along_m: Floats, across_m: Floats, gsd_m: float) -> tuple[Floats, Floats]:
        """Opacity (h, w) and colour (3, h, w) of the cars at places in the lot."""
        stall = np.clip(np.floor(along_m / _STALL_M), 0, _STALLS - 1).astype(np.int32)
        bay = np.floor((across_m - self.rim_m) / _BAY_M)
        within = across_m - self.rim_m - bay * _BAY_M
        second = within > 8
        row = np.clip(bay * 2 + second, 0, _ROWS - 1).astype(np.int32)
        jitter = self.jitter[stall, row]
        # Rows stand back to back across the border of two bays, noses to the aisle in the middle.
        ahead = np.where(second, within - 11.0, within) - 2.5 - jitter
        beside = along_m - (stall + np.float32(0.5)) * _STALL_M - jitter * 0.4
        edge = np.minimum(0.95 - np.abs(beside), 2.25 - np.abs(ahead)) / np.float32(gsd_m)
        in_bay = (bay >= 0) & (across_m - self.rim_m < np.floor(self.size_m[1] / _BAY_M) * _BAY_M)
        in_lot = in_bay & (along_m > 1) & (along_m < self.size_m[0] - 1)
        glass = np.abs(np.abs(ahead) - 0.95) < 0.33
        colours = np.where(glass, np.float32(46), np.moveaxis(self.paints[stall, row], -1, 0))
        return soft(edge) * (self.taken[stall, row] & in_lot), colours

    def lines(self, along_m: Floats, across_m: Floats, gsd_m: float) -> Floats:
        """Opacity (h, w) of the painted lines between stalls."""
        within = (across_m - self.rim_m) % _BAY_M
        beside = np.abs(along_m / _STALL_M - np.round(along_m / _STALL_M)) * np.float32(_STALL_M / gsd_m)
        return soft(0.5 - beside + 0.3) * ((within < 5) | (within > 11))


def _filled_lot(rng: np.random.Generator, size_m: tuple[float, float]) -> _Lot:
    places = (_STALLS, _ROWS)
    fullness = rng.uniform(0.35, 0.95)
    taken = rng.random(places) < fullness
    grey = rng.choice([30.0, 60.0, 110.0, 165.0, 205.0, 235.0], places) * rng.uniform(0.9, 1.1, places)
    paints = np.clip(grey[..., None] * np.array(_TINTS)[rng.integers(len(_TINTS), size=places)], 12, 245)
    jitter = rng.normal(0, 0.18, places)
    rim_m = (size_m[1] % _BAY_M) / 2
    return _Lot(size_m, rim_m, taken, paints.astype(np.float32), jitter.astype(np.float32))


def paint_parking(
    canvas: Canvas, look: Look, rng: np.random.Generator, centre: Spot, size_m: tuple[float, float], angle: float
) -> None:
    """A parking lot: asphalt, lines and rows of cars, all computed from each pixel's place in the lot."""
    gsd = look.gsd_m
    corners = rectangle(centre, size_m[0] / gsd, size_m[1] / gsd, angle)
    surface = look.road * np.float32(rng.uniform(0.85, 1.15))
    lot = _filled_lot(rng, size_m)
    line_light = rng.uniform(0.15, 0.5)
    shift = int(rng.integers(1 << 16))
    cos, sin = np.cos(angle), np.sin(angle)
    shade_m = 1.3 * look.shadow_per_m * gsd
    sun_along, sun_across = look.sun[0] * cos + look.sun[1] * sin, look.sun[1] * cos - look.sun[0] * sin
    for region in canvas.regions(corners, 2):
        inside = inside_px(corners, region)
        alpha = soft(inside)
        rough = look.mottle.at(region, shift) * np.float32(0.03) + look.grain.at(region, shift + 1) * np.float32(0.02)
        canvas.blend(region, surface[:, None, None] * (1 + rough), alpha)
        along, across = local_frame(region, centre, angle)
        along_m = along * np.float32(gsd) + np.float32(size_m[0] / 2)
        across_m = across * np.float32(gsd) + np.float32(size_m[1] / 2)
        lines = lot.lines(along_m, across_m, gsd) * np.float32(line_light)
        canvas.blend(region, np.full(3, 225, np.float32), lines * (inside > 2))
        towards_sun = along_m + np.float32(sun_along * shade_m), across_m + np.float32(sun_across * shade_m)
        canvas.shade(region, 1 - lot.cars(*towards_sun, gsd)[0] * np.float32(look.shadow) * alpha)
        opacity, colours = lot.cars(along_m, across_m, gsd)
        canvas.blend(region, colours, opacity * alpha)
        canvas.mark(region, alpha > 0.5, "parking lot")


def car(canvas: Canvas, look: Look, rng: np.random.Generator, spot: Spot, angle: float) -> None:
    """One car or lorry on a road."""
    length = 4.5 if rng.random() < 0.85 else rng.uniform(8, 15)
    outline = rectangle(spot, length / look.gsd_m, (1.85 if length < 5 else 2.5) / look.gsd_m, angle)
    colour = np.full(3, rng.choice([30, 70, 120, 180, 225, 240]), np.float32)
    colour *= np.array(_TINTS[int(rng.integers(len(_TINTS)))], np.float32)
    paint_block(canvas, look, outline, colour, 1.4 if length < 5 else 3.0)
