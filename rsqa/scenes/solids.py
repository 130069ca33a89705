"""Things that stand on the ground: buildings, storage tanks, containers and trees.

A `Solid` is made first and painted later, when the shadows of all of them lie on the ground.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rsqa.scenes.canvas import (
    Canvas,
    Floats,
    Points,
    Region,
    convex_hull,
    inside_px,
    local_frame,
    placed,
    rectangle,
    soft,
)
from rsqa.scenes.look import Look

Spot = tuple[float, float]
"""(row, col), pixels."""


@dataclass(frozen=True, slots=True)
class Solid:
    """One thing with a height."""

    label: str | None
    """What it counts as; None for things that nobody counts."""
    corners: Points
    """(4, 2) oriented box, pixels."""
    hulls: tuple[tuple[Points, float], ...]
    """Convex outlines that throw shadows, each with its height in metres."""
    paint: Callable[[Canvas], None]


def cast_shadow(canvas: Canvas, look: Look, solid: Solid) -> None:
    """Note where the sun does not reach the ground."""
    for outline, height_m in solid.hulls:
        swept = convex_hull(np.concatenate([outline, outline + np.array(look.shadow_shift(height_m))]))
        for region in canvas.regions(swept, 3):
            canvas.cast(region, soft(inside_px(swept, region), 1.5))


def lit(look: Look, direction: float, slope: float) -> float:
    """Light on a surface that falls off towards a direction, relative to flat ground."""
    return 1 + slope * float(look.sun[0] * np.cos(direction) + look.sun[1] * np.sin(direction))


def building(
    look: Look,
    rng: np.random.Generator,
    centre: Spot,
    size_m: tuple[float, float],
    angle: float,
    height_m: float,
    colour: Floats,
) -> Solid:
    """A house or hall of one of the style's roof kinds, some with a wing; size is (length, width) of the whole."""
    kinds = look.style.shapes.roofs if size_m[1] < 18 else look.style.shapes.hall_roofs
    corners = rectangle(centre, size_m[0] / look.gsd_m, size_m[1] / look.gsd_m, angle)
    with_wing = min(size_m) > 13 and rng.random() < 0.35
    wings = _wings(rng, size_m) if with_wing else [(0.0, 0.0, size_m[0], size_m[1])]
    roofs = []
    for along, across, length_m, width_m in wings:
        row, col = placed(np.array([[along, across]]) / look.gsd_m, centre, angle)[0]
        # A roof's ridge runs along its longer side.
        turn, longer, shorter = (
            (angle, length_m, width_m) if length_m >= width_m else (angle + np.pi / 2, width_m, length_m)
        )
        roofs.append(
            Roof(str(rng.choice(kinds)), (float(row), float(col)), (longer / look.gsd_m, shorter / look.gsd_m), turn)
        )
    style = roofs[0].kind
    roofs = [replace(roof, kind=style) for roof in roofs]
    extras = [extra for roof in roofs for extra in _roof_extras(look, rng, roof)]
    shift = int(rng.integers(1 << 16))
    slope, rib_px, rim = rng.uniform(0.15, 0.32), max(2.5, rng.uniform(2, 5) / look.gsd_m), rng.uniform(0.85, 1.3)

    def paint(canvas: Canvas) -> None:
        for roof in roofs:
            outline = rectangle(roof.centre, *roof.size_px, roof.angle)
            for region in canvas.regions(outline, 2):
                inside = inside_px(outline, region)
                light = _roof_light(look, roof, region, inside, slope, rib_px, rim)
                light += look.grain.at(region, shift) * np.float32(0.035) + look.mottle.at(
                    region, shift + 1
                ) * np.float32(0.045)
                alpha = soft(inside)
                canvas.blend(region, colour[:, None, None] * light, alpha)
                canvas.mark(region, alpha > 0.5, "building")
        for outline, extra_colour, height in extras:
            paint_block(canvas, look, outline, extra_colour, height)

    return Solid("building", corners, tuple((rectangle(r.centre, *r.size_px, r.angle), height_m) for r in roofs), paint)


@dataclass(frozen=True, slots=True)
class Roof:
    """One rectangular roof; its ridge runs along the angle."""

    kind: str
    centre: Spot
    size_px: tuple[float, float]
    angle: float


def _wings(rng: np.random.Generator, size_m: tuple[float, float]) -> list[tuple[float, float, float, float]]:
    """An L or T within a box, metres: (along, across, length, width) of the main part and the wing."""
    length, width = size_m
    main, wing = width * rng.uniform(0.45, 0.62), length * rng.uniform(0.28, 0.5)
    place = rng.choice([-1.0, 0.0, 1.0]) * (length - wing) / 2
    return [(0.0, (main - width) / 2, length, main), (place, main / 2, wing, width - main)]


def _roof_light(
    look: Look, roof: Roof, region: Region, inside: Floats, slope: float, rib_px: float, rim: float
) -> Floats:
    """(h, w) light on a roof by its kind."""
    along, across = local_frame(region, roof.centre, roof.angle)
    length, width = roof.size_px
    one_side, other_side = roof.angle + np.pi / 2, roof.angle - np.pi / 2
    light = np.ones_like(inside)
    if roof.kind in ("gable", "hip"):
        light = np.where(across > 0, np.float32(lit(look, one_side, slope)), np.float32(lit(look, other_side, slope)))
        light += soft(1 - np.abs(across)) * np.float32(0.08)
    if roof.kind == "hip":
        end = np.abs(along) - np.float32((length - width) / 2) > np.abs(across)
        ends = np.where(
            along > 0, np.float32(lit(look, roof.angle, slope)), np.float32(lit(look, roof.angle + np.pi, slope))
        )
        light = np.where(end, ends, light)
    if roof.kind == "shed":
        light *= np.float32(lit(look, one_side, slope))
    if roof.kind == "ribbed":
        light += np.float32(0.07) * np.cos(along * np.float32(2 * np.pi / rib_px))
        light *= np.where(across > 0, np.float32(lit(look, one_side, 0.06)), np.float32(lit(look, other_side, 0.06)))
    if roof.kind == "sawtooth":
        along_m = along * np.float32(look.gsd_m)
        light *= np.where(along_m % 7 < 4.5, np.float32(lit(look, roof.angle, 0.12)), np.float32(0.78))
    if roof.kind == "flat":
        light = np.where(inside < 1.2, np.float32(rim), light)
    return light


def _roof_extras(look: Look, rng: np.random.Generator, roof: Roof) -> list[tuple[Points, Floats, float]]:
    """Chimneys, air conditioners and skylights: (outline, colour, height in metres)."""
    length, width = roof.size_px
    area_m2 = length * width * look.gsd_m**2
    if roof.kind in ("gable", "hip", "shed"):
        count, side = int(rng.integers(0, 2)), rng.uniform(0.8, 1.4)
    else:
        count, side = min(24, int(rng.integers(0, 3 + int(area_m2 / 150)))), rng.uniform(1.5, 3.5)
    aligned = rng.random() < 0.5
    line = rng.uniform(-0.3, 0.3)
    extras = []
    for _ in range(count):
        spot = np.array([[rng.uniform(-0.42, 0.42) * length, (line if aligned else rng.uniform(-0.4, 0.4)) * width]])
        row, col = placed(spot, roof.centre, roof.angle)[0]
        outline = rectangle((row, col), side / look.gsd_m, side * rng.uniform(0.6, 1.6) / look.gsd_m, roof.angle)
        extras.append((outline, np.full(3, rng.uniform(60, 225), np.float32), float(rng.uniform(0.8, 2.0))))
    return extras


def paint_block(canvas: Canvas, look: Look, outline: Points, colour: Floats, height_m: float) -> None:
    shadow = outline + np.array(look.shadow_shift(height_m))
    for region in canvas.regions(np.concatenate([outline, shadow]), 2):
        canvas.shade(region, 1 - soft(inside_px(shadow, region)) * np.float32(look.shadow))
        canvas.blend(region, colour, soft(inside_px(outline, region)))


def storage_tank(
    look: Look, rng: np.random.Generator, centre: Spot, diameter_m: float, kind: str, colour: Floats
) -> Solid:
    """A round tank of one of the style's tank kinds."""
    radius = diameter_m / look.gsd_m / 2
    height_m = min(14.0, diameter_m * rng.uniform(0.25, 0.5))
    fill = rng.uniform(0.1, 0.8)
    roof = colour * rng.uniform(0.6, 0.9) if kind == "floating" else colour
    angle = rng.uniform(0, 2 * np.pi)
    shift = int(rng.integers(1 << 16))
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([centre[0] + radius * np.cos(turns), centre[1] + radius * np.sin(turns)], axis=1)
    corners = rectangle(centre, 2 * radius, 2 * radius, 0.0)

    def paint(canvas: Canvas) -> None:
        for region in canvas.regions(corners, 2):
            down, right = local_frame(region, centre, 0.0)
            distance = np.hypot(down, right)
            light = 1 + look.mottle.at(region, shift) * np.float32(0.03)
            towards = (down * np.float32(look.sun[0]) + right * np.float32(look.sun[1])) / np.float32(radius)
            if kind == "cone":
                light *= 1 + np.float32(0.16) * towards / np.maximum(distance / np.float32(radius), 0.1)
            if kind == "dished":
                light *= 1 - np.float32(0.25) * towards
            if kind == "spoked":
                light *= 1 + np.float32(0.09) * np.sign(np.cos(6 * np.arctan2(down, right)))
            if kind == "dome":
                light *= 1 + np.float32(0.3) * towards
            if kind == "ringed":
                light *= np.where(np.abs(distance - 0.62 * radius) < 0.09 * radius, 0.7, 1)
            pixels = roof[:, None, None] * light
            if kind == "floating":
                # The wall on the sun's side throws a crescent on the sunken roof.
                drop = np.array(look.shadow_shift(height_m * fill * 0.6))
                lit_part = soft(np.float32(radius) - np.hypot(down - np.float32(drop[0]), right - np.float32(drop[1])))
                pixels = pixels * (1 - (1 - lit_part) * np.float32(look.shadow))
                pixels = np.where(
                    distance > radius - max(1.0, 0.5 / look.gsd_m), (colour * 1.12)[:, None, None], pixels
                )
            canvas.blend(region, pixels, soft(np.float32(radius) - distance))
        if kind != "floating":
            middle = rectangle(centre, max(2.0, 0.16 * radius), max(2.0, 0.16 * radius), angle)
            paint_block(canvas, look, middle, colour * 0.72, 0.5)

    return Solid("storage tank", corners, ((ring, height_m),), paint)


def block(look: Look, spot: Spot, size_m: tuple[float, float], angle: float, colour: Floats) -> Solid:
    """A plain box such as a container; nobody counts it."""
    corners = rectangle(spot, size_m[0] / look.gsd_m, size_m[1] / look.gsd_m, angle)

    def paint(canvas: Canvas) -> None:
        for region in canvas.regions(corners, 2):
            canvas.blend(region, colour, soft(inside_px(corners, region)))

    return Solid(None, corners, ((corners, 2.6),), paint)


@dataclass(frozen=True, slots=True)
class Tree:
    """A single crown."""

    spot: Spot
    radius_m: float
    light: float
    """Brightness relative to the scene's forest."""


def tree_shadow(canvas: Canvas, look: Look, tree: Tree) -> None:
    """Note where a crown keeps the sun off the ground."""
    down, right = look.shadow_shift(tree.radius_m * 1.6)
    spot = (tree.spot[0] + down, tree.spot[1] + right)
    region, inside = _crown(canvas, look, spot, tree)
    if region is not None:
        canvas.cast(region, soft(inside, 2))


def paint_tree(canvas: Canvas, look: Look, tree: Tree) -> None:
    """A crown, bright on the sun's side."""
    region, inside = _crown(canvas, look, tree.spot, tree)
    if region is None:
        return
    down, right = local_frame(region, tree.spot, 0.0)
    sunward = (down * np.float32(look.sun[0]) + right * np.float32(look.sun[1])) * np.float32(
        look.gsd_m / tree.radius_m
    )
    leaves = look.canopy.at(region, int(tree.spot[1]))
    light = np.float32(tree.light) * (1 + np.float32(0.28) * sunward + np.float32(0.10) * leaves)
    canvas.blend(region, look.forest[:, None, None] * light, soft(inside, 1.5))


def _crown(canvas: Canvas, look: Look, spot: Spot, tree: Tree) -> tuple[Region | None, Floats]:
    """The region of a crown at a spot and its ragged (h, w) distance to the edge, pixels."""
    radius = tree.radius_m / look.gsd_m
    region = canvas.region(np.array([spot]), 1.4 * radius + 2)
    if region is None:
        return None, np.zeros((0, 0), np.float32)
    down, right = local_frame(region, spot, 0.0)
    ragged = look.mottle.at(region, int(tree.spot[0])) * np.float32(0.13 * radius)
    return region, np.float32(radius) + ragged - np.hypot(down, right)
