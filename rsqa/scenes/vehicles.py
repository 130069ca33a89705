"""What drives, flies and swims: cars on roads and in lots, planes, ships."""

from __future__ import annotations

import numpy as np

from rsqa.scenes.canvas import Canvas, Floats, Points, inside_px, local_frame, placed, rectangle, soft
from rsqa.scenes.look import Look
from rsqa.scenes.scene import COVERS
from rsqa.scenes.solids import Solid, Spot, lit, paint_block
from rsqa.scenes.styles import varied

PLANE_SHAPES: dict[str, dict[str, float]] = {
    # Shares of the length: span, fuselage width, wing root position and chord, sweep of the tip, tail span, engines.
    "airliner": {"span": 0.96, "body": 0.105, "wing": 0.38, "chord": 0.19, "sweep": 0.20, "tail": 0.36, "engines": 2},
    "turboprop": {"span": 1.08, "body": 0.11, "wing": 0.38, "chord": 0.12, "sweep": 0.02, "tail": 0.36, "engines": 2},
    "jet": {"span": 0.78, "body": 0.10, "wing": 0.50, "chord": 0.26, "sweep": 0.26, "tail": 0.34, "engines": 0},
    "heavy": {"span": 1.0, "body": 0.125, "wing": 0.34, "chord": 0.20, "sweep": 0.16, "tail": 0.40, "engines": 4},
    "business": {"span": 0.88, "body": 0.115, "wing": 0.50, "chord": 0.17, "sweep": 0.13, "tail": 0.32, "engines": 0},
}


def plane(look: Look, rng: np.random.Generator, centre: Spot, length_m: float, angle: float, kind: str) -> Solid:
    """A plane on the ground; its nose points along the angle."""
    shape = PLANE_SHAPES[kind]
    length = length_m / look.gsd_m
    colour = np.full(
        3,
        rng.choice([rng.uniform(205, 248), rng.uniform(120, 190), rng.uniform(60, 110)], p=[0.6, 0.28, 0.12]),
        np.float32,
    )
    colour *= (1 + rng.normal(0, 0.03, 3)).astype(np.float32)
    tail_colour = colour * 0.9 if rng.random() < 0.4 else rng.uniform(40, 210, 3).astype(np.float32)

    def place(points: list[tuple[float, float]]) -> Points:
        return placed(np.array(points) * length, centre, angle)

    parts: list[tuple[Points, float]] = []
    body, nose = shape["body"] / 2, 0.5
    root, chord, span = nose - shape["wing"], shape["chord"], shape["span"] / 2
    for side in (-1, 1):
        tip_front = root - shape["sweep"]
        parts.append(
            (
                place([(root, 0), (tip_front, side * span), (tip_front - 0.3 * chord, side * span), (root - chord, 0)]),
                0.94,
            )
        )
        tail, tail_front = shape["tail"] / 2, -0.40
        parts.append((place([(tail_front, 0), (tail_front - 0.08, side * tail), (-0.5, side * tail), (-0.49, 0)]), 0.9))
        for engine in range(int(shape["engines"]) // 2):
            out = side * (0.15 + 0.12 * engine)
            front = root - shape["sweep"] * abs(out) / span + 0.055
            parts.append(
                (
                    place(
                        [
                            (front, out - 0.022),
                            (front, out + 0.022),
                            (front - 0.1, out + 0.018),
                            (front - 0.1, out - 0.018),
                        ]
                    ),
                    0.72,
                )
            )
    fuselage = place(
        [
            (0.5, 0),
            (0.475, body * 0.6),
            (0.42, body),
            (-0.25, body),
            (-0.5, body * 0.18),
            (-0.5, -body * 0.18),
            (-0.25, -body),
            (0.42, -body),
            (0.475, -body * 0.6),
        ]
    )
    fin = place([(-0.34, 0.008), (-0.5, 0.014), (-0.5, -0.014), (-0.34, -0.008)])
    corners = rectangle(centre, length, length * shape["span"], angle)

    def paint(canvas: Canvas) -> None:
        for outline, light in parts:
            for region in canvas.regions(outline, 2):
                canvas.blend(region, colour * np.float32(light), soft(inside_px(outline, region)))
        for region in canvas.regions(fuselage, 2):
            inside = inside_px(fuselage, region)
            _, across = local_frame(region, centre, angle)
            sunward = across / np.float32(body * length) * np.float32(lit(look, angle + np.pi / 2, 0.22) - 1)
            canvas.blend(region, colour[:, None, None] * (1 + sunward), soft(inside))
        for region in canvas.regions(fin, 2):
            canvas.blend(region, tail_colour, soft(inside_px(fin, region)))

    height_m = 0.09 * length_m
    hulls = tuple((outline, height_m) for outline, light in parts if light > 0.8)
    return Solid("plane", corners, (*hulls, (fuselage, height_m)), paint)


SHIP_WIDTH = {"cargo": 0.16, "container": 0.15, "ferry": 0.22, "yacht": 0.27, "tanker": 0.17, "barge": 0.2}
"""Beam as a share of the length."""
_HULLS = ((46, 50, 60), (122, 58, 48), (70, 74, 78), (178, 178, 176), (56, 74, 100), (60, 88, 76), (24, 26, 28))
_DECKS = ((126, 70, 56), (92, 104, 94), (142, 140, 134), (84, 96, 110), (168, 150, 120), (110, 110, 112))


def ship(
    look: Look, rng: np.random.Generator, centre: Spot, length_m: float, angle: float, kind: str, *, under_way: bool
) -> Solid:
    """A ship whose bow points along the angle; under way it draws a wake."""
    length = length_m / look.gsd_m
    width = length * SHIP_WIDTH[kind]
    white = np.array([226, 228, 228], np.float32) * np.float32(rng.uniform(0.85, 1.05))
    hull = white if kind in ("yacht", "ferry") and rng.random() < 0.7 else varied(rng, _HULLS)
    deck = varied(rng, _DECKS) if kind != "yacht" else white * 0.9
    bow = {"barge": 0.46, "ferry": 0.36}.get(kind, 0.30)
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
    """What stands on deck: (outline along and across the ship, colour, height in metres)."""

    def box(along: float, long: float, across: float, wide: float) -> list[tuple[float, float]]:
        row, col, high, broad = along * length, across * width, long * length / 2, wide * width / 2
        return [
            (row - high, col - broad),
            (row + high, col - broad),
            (row + high, col + broad),
            (row - high, col + broad),
        ]

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
    blocks = [(box(-0.38, 0.11, 0, 0.82), white, 6.0), (box(-0.44, 0.04, 0, 0.22), varied(rng, _HULLS), 4.0)]
    if kind == "container":
        for stack in range(7):
            for lane in (-0.25, 0.0, 0.25):
                if rng.random() < 0.85:
                    colour = rng.choice(
                        [[150, 60, 48], [60, 84, 124], [200, 196, 190], [70, 104, 84], [168, 120, 60]]
                    ).astype(np.float32)
                    blocks.append(
                        (box(-0.27 + 0.095 * stack, 0.085, lane, 0.24), colour * np.float32(rng.uniform(0.8, 1.1)), 2.0)
                    )
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
        cargo = varied(rng, ((60, 56, 54), (150, 134, 104), (120, 74, 58), (96, 104, 92), (172, 168, 160)))
        blocks.append((box(0.07, 0.68, 0, 0.74), cargo, -1.0))
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


CAR_TINTS = (
    (1, 1, 1),
    (1, 1, 1),
    (1, 1, 1),
    (1, 1, 1),
    (1.1, 0.5, 0.45),
    (0.55, 0.75, 1.15),
    (0.95, 0.9, 0.75),
    (0.6, 0.8, 0.7),
)
"""Most cars are white, grey or black."""


def paint_parking(
    canvas: Canvas, look: Look, rng: np.random.Generator, centre: Spot, size_m: tuple[float, float], angle: float
) -> None:
    """A parking lot: stall lines and rows of cars, all computed from each pixel's place in the lot."""
    corners = rectangle(centre, size_m[0] / look.gsd_m, size_m[1] / look.gsd_m, angle)
    surface = look.road * np.float32(rng.uniform(0.85, 1.15))
    fullness = rng.uniform(0.35, 0.95)
    stall, bay = 2.7, 16.0  # a bay is two rows of 5 m stalls and a 6 m aisle
    taken = rng.random((512, 64)) < fullness
    grey = rng.choice([30.0, 60.0, 110.0, 165.0, 205.0, 235.0], (512, 64)) * rng.uniform(0.9, 1.1, (512, 64))
    tint = np.array(CAR_TINTS)[rng.integers(len(CAR_TINTS), size=(512, 64))]
    paints = np.clip(grey[..., None] * tint, 12, 245).astype(np.float32)
    jitter = rng.normal(0, 0.18, (512, 64)).astype(np.float32)
    line_light = rng.uniform(0.15, 0.5)
    start = (size_m[1] % bay) / 2
    shift = int(rng.integers(1 << 16))
    turn = np.array([np.cos(angle), np.sin(angle)])
    sun_local = np.array(
        [look.sun[0] * turn[0] + look.sun[1] * turn[1], -look.sun[0] * turn[1] + look.sun[1] * turn[0]]
    )
    shade_m = sun_local * look.shadow_per_m * look.gsd_m * 1.3

    def car_at(along_m: Floats, across_m: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Opacity of a car, stall and row numbers, and the place along the car, of (h, w) lot coordinates in metres."""
        place = np.clip(np.floor(along_m / stall), 0, 511).astype(np.int32)
        number = np.floor((across_m - start) / bay)
        within = across_m - start - number * bay
        second = within > 8
        row = np.clip(number * 2 + second, 0, 63).astype(np.int32)
        # Rows stand back to back across the border of two bays, noses to the aisle in the middle.
        from_front = np.where(second, within - 11.0, within) - 2.5 - jitter[place, row]
        beside = along_m - (place + np.float32(0.5)) * stall - jitter[place, row] * 0.4
        edge = np.minimum(0.95 - np.abs(beside), 2.25 - np.abs(from_front)) / np.float32(look.gsd_m)
        inside_lot = (
            (number >= 0)
            & (across_m - start < np.floor(size_m[1] / bay) * bay)
            & (along_m > 1)
            & (along_m < size_m[0] - 1)
        )
        return soft(edge) * (taken[place, row] & inside_lot), place, row, from_front

    for region in canvas.regions(corners, 2):
        inside = inside_px(corners, region)
        alpha = soft(inside)
        light = (
            1 + look.mottle.at(region, shift) * np.float32(0.03) + look.grain.at(region, shift + 1) * np.float32(0.02)
        )
        canvas.blend(region, surface[:, None, None] * light, alpha)
        along, across = local_frame(region, centre, angle)
        along_m = along * np.float32(look.gsd_m) + np.float32(size_m[0] / 2)
        across_m = across * np.float32(look.gsd_m) + np.float32(size_m[1] / 2)
        within = (across_m - start) % bay
        beside = np.abs(along_m / stall - np.round(along_m / stall)) * np.float32(stall / look.gsd_m)
        lines = soft(0.5 - beside + 0.3) * ((within < 5) | (within > 11)) * np.float32(line_light)
        canvas.blend(region, np.full(3, 225, np.float32), lines * (inside > 2))
        shadow = car_at(along_m + np.float32(shade_m[0]), across_m + np.float32(shade_m[1]))[0]
        canvas.shade(region, 1 - shadow * np.float32(look.shadow) * alpha)
        car, place, row, from_front = car_at(along_m, across_m)
        colours = np.moveaxis(paints[place, row], -1, 0)
        glass = np.abs(np.abs(from_front) - 0.95) < 0.33
        canvas.blend(region, np.where(glass, np.float32(46), colours), car * alpha)
        canvas.mark(region, alpha > 0.5, "parking lot")


def car(canvas: Canvas, look: Look, rng: np.random.Generator, spot: Spot, angle: float) -> None:
    """One car or lorry on a road."""
    length = 4.5 if rng.random() < 0.85 else rng.uniform(8, 15)
    outline = rectangle(spot, length / look.gsd_m, (1.85 if length < 5 else 2.5) / look.gsd_m, angle)
    colour = np.full(3, rng.choice([30, 70, 120, 180, 225, 240]), np.float32)
    colour *= np.array(CAR_TINTS[int(rng.integers(len(CAR_TINTS)))], np.float32)
    paint_block(canvas, look, outline, colour, 1.4 if length < 5 else 3.0)
