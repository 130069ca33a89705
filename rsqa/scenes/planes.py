"""Planes on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsqa.scenes.canvas import Canvas, Floats, Points, inside_px, local_frame, placed, rectangle, soft
from rsqa.scenes.look import Look
from rsqa.scenes.solids import Solid, Spot, lit

Outline = list[tuple[float, float]]
"""(along, across) the plane, shares of its length; the nose is at 0.5, the tail at -0.5."""


@dataclass(frozen=True, slots=True)
class PlaneShape:
    """A kind of plane; lengths are shares of the plane's length."""

    span: float
    body: float
    """Width of the fuselage."""
    wing: float
    """From the nose to the root of the wings."""
    chord: float
    """Depth of a wing at its root."""
    sweep: float
    """How far the tips lie behind the root."""
    tail: float
    """Span of the tail."""
    engines: int
    """Under the wings."""


PLANE_SHAPES = {
    "airliner": PlaneShape(span=0.96, body=0.105, wing=0.38, chord=0.19, sweep=0.20, tail=0.36, engines=2),
    "turboprop": PlaneShape(span=1.08, body=0.11, wing=0.38, chord=0.12, sweep=0.02, tail=0.36, engines=2),
    "jet": PlaneShape(span=0.78, body=0.10, wing=0.50, chord=0.26, sweep=0.26, tail=0.34, engines=0),
    "commuter": PlaneShape(span=1.24, body=0.10, wing=0.36, chord=0.13, sweep=0.0, tail=0.42, engines=2),
    "freighter": PlaneShape(span=1.30, body=0.13, wing=0.35, chord=0.15, sweep=0.02, tail=0.48, engines=4),
    "patrol": PlaneShape(span=0.86, body=0.10, wing=0.36, chord=0.16, sweep=0.05, tail=0.38, engines=4),
    "trijet": PlaneShape(span=0.84, body=0.11, wing=0.44, chord=0.22, sweep=0.22, tail=0.36, engines=2),
    "delta": PlaneShape(span=0.62, body=0.09, wing=0.42, chord=0.42, sweep=0.36, tail=0.12, engines=0),
    "heavy": PlaneShape(span=1.0, body=0.125, wing=0.34, chord=0.20, sweep=0.16, tail=0.40, engines=4),
    "business": PlaneShape(span=0.88, body=0.115, wing=0.50, chord=0.17, sweep=0.13, tail=0.32, engines=0),
}
_ENGINE_LIGHT = 0.72


def plane(look: Look, rng: np.random.Generator, centre: Spot, length_m: float, angle: float, kind: str) -> Solid:
    """A plane whose nose points along the angle."""
    shape = PLANE_SHAPES[kind]
    length = length_m / look.gsd_m
    colour, fin_colour = _paint_job(rng)

    def place(outline: Outline) -> Points:
        return placed(np.array(outline) * length, centre, angle)

    surfaces = [(place(outline), light) for outline, light in _surfaces(shape)]
    fuselage = place(_fuselage(shape.body / 2))
    fin = place([(-0.34, 0.008), (-0.5, 0.014), (-0.5, -0.014), (-0.34, -0.008)])

    def paint(canvas: Canvas) -> None:
        for outline, light in surfaces:
            for region in canvas.regions(outline, 2):
                canvas.blend(region, colour * np.float32(light), soft(inside_px(outline, region)))
        for region in canvas.regions(fuselage, 2):
            _, across = local_frame(region, centre, angle)
            slope = np.float32(lit(look, angle + np.pi / 2, 0.22) - 1)
            sunward = across / np.float32(shape.body / 2 * length) * slope
            canvas.blend(region, colour[:, None, None] * (1 + sunward), soft(inside_px(fuselage, region)))
        for region in canvas.regions(fin, 2):
            canvas.blend(region, fin_colour, soft(inside_px(fin, region)))

    height_m = 0.09 * length_m
    hulls = tuple((outline, height_m) for outline, light in surfaces if light > _ENGINE_LIGHT)
    corners = rectangle(centre, length, length * shape.span, angle)
    return Solid("plane", corners, (*hulls, (fuselage, height_m)), paint)


def _paint_job(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Colours of the body, mostly white, and of the fin."""
    light = rng.choice([rng.uniform(205, 248), rng.uniform(120, 190), rng.uniform(60, 110)], p=[0.75, 0.2, 0.05])
    colour = np.full(3, light, np.float32)
    colour *= (1 + rng.normal(0, 0.03, 3)).astype(np.float32)
    fin = colour * 0.9 if rng.random() < 0.4 else rng.uniform(40, 210, 3).astype(np.float32)
    return colour, fin


def _surfaces(shape: PlaneShape) -> list[tuple[Outline, float]]:
    """Wings, tail and engines of both sides, each with its light."""
    root, chord, span, tail = 0.5 - shape.wing, shape.chord, shape.span / 2, shape.tail / 2
    tip = root - shape.sweep
    found: list[tuple[Outline, float]] = []
    for side in (-1, 1):
        found.append(([(root, 0), (tip, side * span), (tip - 0.3 * chord, side * span), (root - chord, 0)], 0.94))
        found.append(([(-0.40, 0), (-0.48, side * tail), (-0.5, side * tail), (-0.49, 0)], 0.9))
        for engine in range(shape.engines // 2):
            out = side * (0.15 + 0.12 * engine)
            front = root - shape.sweep * abs(out) / span + 0.055
            back = front - 0.1
            nacelle = [(front, out - 0.022), (front, out + 0.022), (back, out + 0.018), (back, out - 0.018)]
            found.append((nacelle, _ENGINE_LIGHT))
    return found


def _fuselage(half: float) -> Outline:
    side = [(0.475, half * 0.6), (0.42, half), (-0.25, half), (-0.5, half * 0.18)]
    return [(0.5, 0), *side, *[(along, -across) for along, across in side[::-1]]]
