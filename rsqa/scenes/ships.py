"""Ships, moored or under way."""

from __future__ import annotations

import numpy as np

from rsqa.scenes.canvas import Canvas, Floats, Points, inside_px, local_frame, placed, rectangle, soft
from rsqa.scenes.look import Look
from rsqa.scenes.scene import COVERS
from rsqa.scenes.solids import Solid, Spot, paint_block
from rsqa.scenes.styles import varied

SHIP_WIDTH = {
    "cargo": 0.16, "container": 0.15, "ferry": 0.22, "yacht": 0.27, "bulker": 0.17, "carrier": 0.19, "trawler": 0.26,
    "supply": 0.22, "navy": 0.13, "tanker": 0.17, "barge": 0.2,
}  # fmt: skip
"""Beam as a share of the length."""
_HULLS = ((46, 50, 60), (122, 58, 48), (70, 74, 78), (178, 178, 176), (56, 74, 100), (60, 88, 76), (24, 26, 28))
_DECKS = ((126, 70, 56), (92, 104, 94), (142, 140, 134), (84, 96, 110), (168, 150, 120), (110, 110, 112))
_CONTAINERS = ((150, 60, 48), (60, 84, 124), (200, 196, 190), (70, 104, 84), (168, 120, 60))
_CARGO = ((60, 56, 54), (150, 134, 104), (120, 74, 58), (96, 104, 92), (172, 168, 160))
_WHITE: Floats = np.array([226, 228, 228], np.float32)


def ship(
    look: Look, rng: np.random.Generator, centre: Spot, length_m: float, angle: float, kind: str, *, under_way: bool
) -> Solid:
    """A ship whose bow points along the angle; under way it draws a wake."""
    length = length_m / look.gsd_m
    width = length * SHIP_WIDTH[kind]
    white = _WHITE * np.float32(rng.uniform(0.85, 1.05))
    hull = white if kind in ("yacht", "ferry") and rng.random() < 0.7 else varied(rng, _HULLS)
    deck = varied(rng, _DECKS) if kind != "yacht" else white * 0.9
    bow = {"barge": 0.46, "ferry": 0.36, "carrier": 0.42, "navy": 0.12}.get(kind, 0.30)
    half = width / 2

    def place(points: list[tuple[float, float]]) -> Points:
        return placed(np.array(points), centre, angle)

    outline = place(
        [(0.5 * length, 0), ((0.5 + bow) / 2 * length, 0.62 * half), (bow * length, half), (-0.44 * length, half),
         (-0.5 * length, 0.72 * half), (-0.5 * length, -0.72 * half), (-0.44 * length, -half), (bow * length, -half),
         ((0.5 + bow) / 2 * length, -0.62 * half)]
    )  # fmt: skip
    blocks = _ship_blocks(rng, kind, length, width, white)
    corners = rectangle(centre, length, width, angle)
    wake = int(rng.integers(1 << 16)) if under_way else None

    def paint(canvas: Canvas) -> None:
        if wake is not None:
            _paint_wake(canvas, look, centre, length, width, angle, wake)
        for region in canvas.regions(outline, 2):
            inside = inside_px(outline, region)
            canvas.blend(region, hull, soft(inside))
            texture = 1 + look.mottle.at(region, 77) * np.float32(0.05)
            canvas.blend(region, deck[:, None, None] * texture, soft(inside - np.float32(max(1.0, 0.07 * width))))
        for points, colour, height_m in blocks:
            paint_block(canvas, look, place(points), colour, height_m)

    return Solid("ship", corners, ((outline, 0.05 * length_m),), paint)


def _ship_blocks(
    rng: np.random.Generator, kind: str, length: float, width: float, white: Floats
) -> list[tuple[list[tuple[float, float]], Floats, float]]:
    """What stands on deck: (outline along and across the ship, colour, height in metres; a hold's is negative)."""

    def box(along: float, long: float, across: float, wide: float) -> list[tuple[float, float]]:
        u, v, half_u, half_v = along * length, across * width, long * length / 2, wide * width / 2
        return [(u - half_u, v - half_v), (u + half_u, v - half_v), (u + half_u, v + half_v), (u - half_u, v + half_v)]

    if kind == "ferry":
        return [
            (box(-0.05, 0.68, 0, 0.74), white, 3.0),
            (box(0.05, 0.3, 0, 0.5), white * 0.9, 2.0),
            (box(-0.2, 0.07, 0, 0.2), white * 0.5, 3.0),
        ]
    if kind == "yacht":
        return [
            (box(-0.08, 0.42, 0, 0.6), white * 0.8, 1.5),
            (box(0.02, 0.14, 0, 0.5), np.full(3, 50, np.float32), 0.2),
        ]
    if kind == "carrier":
        return [
            (box(0.27, 0.10, 0, 0.86), white, 4.0),
            *((box(-0.36 + 0.12 * number, 0.03, 0.3, 0.12), white * 0.8, 2.0) for number in range(5)),
        ]
    if kind == "trawler":
        return [(box(0.12, 0.2, 0, 0.62), white, 4.0), (box(-0.2, 0.26, 0, 0.55), varied(rng, _CARGO), -1.0)]
    if kind == "supply":
        return [(box(0.27, 0.17, 0, 0.78), white, 6.0), (box(0.14, 0.05, 0.25, 0.16), varied(rng, _HULLS), 4.0)]
    if kind == "navy":
        grey = np.full(3, rng.uniform(120, 170), np.float32)
        return [
            (box(0.1, 0.18, 0, 0.6), grey, 6.0),
            (box(-0.13, 0.14, 0, 0.55), grey * 0.92, 5.0),
            (box(-0.38, 0.16, 0, 0.7), grey * 0.7, 0.2),
        ]
    blocks = [(box(-0.38, 0.11, 0, 0.82), white, 6.0), (box(-0.44, 0.04, 0, 0.22), varied(rng, _HULLS), 4.0)]
    if kind == "container":
        for stack in range(7):
            for lane in (-0.25, 0.0, 0.25):
                if rng.random() < 0.85:
                    colour = rng.choice(_CONTAINERS).astype(np.float32) * np.float32(rng.uniform(0.8, 1.1))
                    blocks.append((box(-0.27 + 0.095 * stack, 0.085, lane, 0.24), colour, 2.0))
    if kind == "bulker":
        hatch = varied(rng, _CARGO)
        blocks += [(box(-0.25 + 0.12 * number, 0.075, 0, 0.5), hatch, 1.5) for number in range(6)]
    if kind == "cargo":
        hatch = varied(rng, _DECKS)
        blocks += [(box(-0.22 + 0.155 * number, 0.125, 0, 0.62), hatch, 1.5) for number in range(4)]
        blocks += [(box(-0.145 + 0.31 * number, 0.014, 0, 0.5), white * 0.85, 5.0) for number in range(2)]
    if kind == "tanker":
        blocks += [(box(0.03, 0.62, 0, 0.07), white * 0.8, 1.0), (box(0.0, 0.02, 0, 0.7), white * 0.7, 1.0)]
        blocks += [
            (box(-0.2 + 0.14 * number, 0.018, side, 0.12), white * 0.75, 1.0)
            for number in range(5)
            for side in (-0.25, 0.25)
        ]
    if kind == "barge":
        blocks.append((box(0.07, 0.68, 0, 0.74), varied(rng, _CARGO), -1.0))
    return blocks


def _paint_wake(
    canvas: Canvas, look: Look, centre: Spot, length: float, width: float, angle: float, shift: int
) -> None:
    """Churned water behind the stern and a bow wave to both sides."""
    around = rectangle(centre, 4.5 * length, 2 * length, angle)
    for region in canvas.regions(around):
        along, across = local_frame(region, centre, angle)
        behind = -(along + np.float32(0.45 * length))
        spread = np.float32(0.42 * width) + np.clip(behind, 0, None) * np.float32(0.05)
        fade = np.exp(-np.clip(behind, 0, None) / np.float32(0.8 * length)) * (behind > 0)
        foam = np.clip(1 - np.abs(across) / spread, 0, 1) * fade
        from_bow = np.float32(0.46 * length) - along
        arm = np.abs(np.abs(across) - np.float32(0.25 * width) - from_bow * np.float32(0.2))
        bow_fade = np.exp(-np.clip(from_bow, 0, None) / np.float32(0.7 * length)) * (from_bow > 0)
        foam += np.clip(1 - arm / np.float32(0.1 * width + 1), 0, 1) * bow_fade * np.float32(0.6)
        foam *= np.clip(0.75 + 0.35 * look.mottle.at(region, shift), 0, 1.2)
        water = canvas.cover[region[0] : region[2], region[1] : region[3]] == COVERS.index("water")
        canvas.blend(region, np.array([214, 222, 222], np.float32), np.clip(foam * 0.75, 0, 0.9) * water)
