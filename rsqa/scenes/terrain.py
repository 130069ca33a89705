"""Paints the ground: grass, bare and paved ground, fields, forest, water and roads.

Every area is a convex outline in plan coordinates (see `canvas.Warp`), painted in pieces so that memory stays small.
"""

from __future__ import annotations

import numpy as np

from rsqa.scenes.canvas import Canvas, Floats, Points, Region, Warp, centres, inside_px, local_frame, rectangle, soft
from rsqa.scenes.look import Look
from rsqa.scenes.scene import COVERS
from rsqa.scenes.styles import varied


def paint_open(
    canvas: Canvas, look: Look, rng: np.random.Generator, corners: Points, warp: Warp, cover: str, edge_m: float = 2.0
) -> None:
    """Grass, bare ground or a paved yard, with a ragged edge of edge_m."""
    base = {"grass": look.grass, "bare": look.bare, "paved": look.paved}[cover] * np.exp(rng.normal(0, 0.06))
    other = (look.bare if cover == "grass" else look.grass if cover == "bare" else look.road) * 0.95
    patchy = rng.uniform(0.1, 0.45)
    shift = int(rng.integers(1 << 16))
    rough = {"grass": 0.055, "bare": 0.05, "paved": 0.025}[cover]
    edge_px = edge_m / look.gsd_m
    blur_px = 1.0 if cover == "paved" else rng.uniform(1.0, 6.0) / look.gsd_m
    for region in canvas.regions(warp.to_pixels(corners), 40 + edge_px):
        distance = inside_px(corners, region, warp) + look.mottle.at(region, shift) * np.float32(0.5 * edge_px)
        alpha = soft(distance, blur_px)
        light = 1 + (look.mottle.at(region, shift + 1) + look.grain.at(region, shift + 2)) * np.float32(rough)
        mix = np.clip(look.cloud.at(region, shift + 3) * 0.5 + look.mottle.at(region, shift + 4) * 0.25, 0, 1)
        mix *= np.float32(patchy)
        colour = _mixed(base, other, mix) * light
        canvas.blend(region, colour, alpha)
        canvas.mark(region, alpha > 0.5, cover)


def paint_field(canvas: Canvas, look: Look, rng: np.random.Generator, corners: Points, warp: Warp) -> None:
    """A field: sowing strips and tram lines along its longest side, soil patches, a grassy margin."""
    base = varied(rng, look.style.field)
    soil = varied(rng, look.style.field)
    sides = np.roll(corners, -1, axis=0) - corners
    longest = sides[np.argmax(np.hypot(*sides.T))]
    angle = float(np.arctan2(longest[1], longest[0])) + rng.choice([0.0, 0.0, 0.0, np.pi / 2])
    centre = (float(corners[:, 0].mean()), float(corners[:, 1].mean()))
    strip_px = rng.uniform(7, 18) / look.gsd_m
    row_px = max(3.0, rng.uniform(2.0, 6.0) / look.gsd_m)
    strips = rng.normal(0, rng.uniform(0.05, 0.12), 1024).astype(np.float32)
    rows_light = rng.uniform(0.04, 0.12)
    tram = rng.uniform(0.08, 0.25) * rng.choice([-1, 1])
    tram_every = int(rng.integers(1, 4))
    patchy = rng.uniform(0.1, 0.5)
    margin_px = rng.uniform(0.5, 4.0) / look.gsd_m
    shift = int(rng.integers(1 << 16))
    for region in canvas.regions(warp.to_pixels(corners), 40):
        distance = inside_px(corners, region, warp) - np.float32(margin_px)
        distance += look.mottle.at(region, shift) * np.float32(0.6 / look.gsd_m)
        _, across = local_frame(region, centre, angle)
        # The rows follow the same bend as the field's edge does, or they would run into it at an angle.
        rows, cols = centres(region)
        across += warp.plan_cols(rows)[:, None] * np.float32(np.cos(angle))
        across -= warp.plan_rows(cols)[None, :] * np.float32(np.sin(angle))
        across += look.cloud.at(region, shift + 1) * np.float32(0.3 / look.gsd_m)
        number = across * np.float32(1 / strip_px)
        index = np.floor(number)
        light = strips[index.astype(np.int32) % 1024]
        light += (
            np.cos(across * np.float32(2 * np.pi / row_px))
            * np.float32(rows_light)
            * (1 + np.float32(0.4) * look.mottle.at(region, shift + 2))
        )
        wheel = np.abs(number - index - np.float32(0.5)) * np.float32(strip_px * look.gsd_m)
        wheel_mark = np.clip(1.2 - np.abs(wheel - 1.0) * 1.6, 0, 1) * (index % tram_every == 0)
        light += wheel_mark * np.float32(tram)
        light += look.grain.at(region, shift + 3) * np.float32(0.035)
        light += look.mottle.at(region, shift + 5) * np.float32(0.03)
        mix = np.clip(0.3 + 0.45 * look.cloud.at(region, shift + 4), 0, 1) * np.float32(patchy)
        canvas.blend(region, _mixed(base, soil, mix) * (1 + light), soft(distance))
        canvas.mark(region, distance > 0, "field")


def paint_forest(canvas: Canvas, look: Look, rng: np.random.Generator, corners: Points, warp: Warp) -> None:
    """Closed tree crowns; the outline is eaten into by several metres and throws a shadow."""
    base = look.forest * np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    other = varied(rng, look.style.forest)
    contrast = rng.uniform(0.16, 0.28)
    shift = int(rng.integers(1 << 16))
    ragged = rng.uniform(1.5, 5.0) / look.gsd_m
    down, right = look.shadow_shift(rng.uniform(7, 14))
    for region in canvas.regions(warp.to_pixels(corners), 40 + abs(down) + abs(right)):
        ragged_edge = look.mottle.at(region, shift) * np.float32(ragged)
        distance = inside_px(corners, region, warp) + ragged_edge + look.canopy.at(region, shift) * np.float32(1.5)
        shadow = inside_px(corners + np.array([down, right]), region, warp) + ragged_edge
        canvas.shade(region, 1 - soft(shadow, 3) * np.float32(look.shadow * 0.8))
        light = (
            1
            + look.canopy.at(region, shift) * np.float32(contrast)
            + look.cloud.at(region, shift + 1) * np.float32(0.05)
        )
        mix = np.clip(0.3 + 0.5 * look.mottle.at(region, shift + 2), 0, 1) * np.float32(0.6)
        alpha = soft(distance, 2)
        canvas.blend(region, _mixed(base, other, mix) * np.clip(light, 0.2, 2), alpha)
        canvas.mark(region, alpha > 0.5, "forest")


def paint_water(
    canvas: Canvas, look: Look, rng: np.random.Generator, corners: Points, warp: Warp, ragged_m: float
) -> None:
    """Water with ripples, sediment and a bank; ragged_m 0 is a quay wall."""
    deep = look.water * np.exp(rng.normal(0, 0.02))
    shallow = 0.55 * look.water + 0.45 * look.shore
    ripple = rng.uniform(0.01, 0.045)
    sediment = rng.uniform(0.0, 0.6)
    shelf_px = rng.uniform(3, 18) / look.gsd_m
    shift = int(rng.integers(1 << 16))
    ragged = ragged_m / look.gsd_m
    for region in canvas.regions(warp.to_pixels(corners), 40 + 2.5 * ragged):
        distance = inside_px(corners, region, warp)
        if distance.max() < -3 * ragged - 4:
            continue
        if ragged > 0:
            distance += look.cloud.at(region, shift) * np.float32(ragged) + look.mottle.at(
                region, shift + 1
            ) * np.float32(0.1 * ragged)
            land = canvas.cover[region[0] : region[2], region[1] : region[3]] != COVERS.index("water")
            mud = _broad(look.shore) * (1 + look.mottle.at(region, shift + 2) * np.float32(0.06))
            canvas.blend(region, mud, soft(distance + np.float32(2 / look.gsd_m), 3) * land)
        near = np.exp(-np.clip(distance, 0, None) / np.float32(shelf_px)) * np.float32(0.8 if ragged > 0 else 0.15)
        mix = np.clip(near + np.clip(look.cloud.at(region, shift + 3), 0, 2) * np.float32(0.35 * sediment), 0, 1)
        light = (
            1
            + look.waves.at(region, shift + 4) * np.float32(ripple)
            + look.grain.at(region, shift + 5) * np.float32(0.008)
        )
        light += look.cloud.at(region, shift + 6) * np.float32(0.025)
        alpha = soft(distance)
        canvas.blend(region, _mixed(deep, shallow, mix) * light, alpha)
        canvas.mark(region, alpha > 0.5, "water")


def paint_road(
    canvas: Canvas, look: Look, rng: np.random.Generator, points: Points, width_m: float, *, marked: bool
) -> None:
    """A road along (N, 2) pixels: verge, surface, wheel tracks and, when marked, edge lines and a dashed centre."""
    surface = look.road * np.exp(rng.normal(0, 0.05))
    half = np.float32(width_m / look.gsd_m / 2)
    verge = np.float32(rng.uniform(0.8, 2.0) / look.gsd_m)
    verge_colour = look.bare if rng.random() < 0.5 else look.paved
    shift = int(rng.integers(1 << 16))
    dash_px = 9 / look.gsd_m
    line = np.float32(max(0.5, 0.15 / look.gsd_m))
    strength = np.float32(rng.uniform(0.35, 0.7))
    pieces = [
        (region, start, end, run)
        for start, end, run in _stretches(points)
        for region in canvas.regions(np.stack([start, end]), float(half + verge + 2))
    ]
    for region, start, end, _ in pieces:
        beside, _ = _to_segment(region, start, end)
        alpha = soft(half + verge * (1 + 0.4 * look.mottle.at(region, shift)) - beside, 2) * np.float32(0.6)
        canvas.blend(region, verge_colour, alpha)
    for region, start, end, run in pieces:
        beside, along = _to_segment(region, start, end)
        alpha = soft(half - beside)
        wheel = np.cos(beside * (4 * np.pi / half)) * np.float32(0.03)
        light = (
            1
            + wheel
            + look.mottle.at(region, shift + 1) * np.float32(0.03)
            + look.grain.at(region, shift + 2) * np.float32(0.025)
        )
        canvas.blend(region, _broad(surface) * light, alpha)
        canvas.mark(region, alpha > 0.5, "road")
        if marked:
            # The round end of a stretch lies on the next one, where its lines would draw loops.
            own = (along >= 0) & (along <= np.float32(np.hypot(*(end - start))))
            dashes = soft(line - beside) * (np.floor((along + np.float32(run)) / np.float32(dash_px)) % 2 == 0) * own
            edges = soft(line - np.abs(beside - (half - 2 * line))) * own
            canvas.blend(region, np.full(3, 215, np.float32), np.maximum(dashes, edges * 0.7) * strength)


def paint_strip(canvas: Canvas, corners: Points, colour: Floats, opacity: float, cover: str | None = None) -> None:
    """A plain convex mark: a line, a court, a pool. Changes the cover only when told to."""
    for region in canvas.regions(corners, 2):
        alpha = soft(inside_px(corners, region))
        canvas.blend(region, colour, alpha * np.float32(opacity))
        if cover is not None:
            canvas.mark(region, alpha > 0.5, cover)


def paint_line(
    canvas: Canvas, start: tuple[float, float], end: tuple[float, float], width_m: float, colour: Floats, opacity: float
) -> None:
    """A straight line of paint or a wall between two pixels."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    down, right = end[0] - start[0], end[1] - start[1]
    corners = rectangle(middle, float(np.hypot(down, right)), width_m / canvas.gsd_m, float(np.arctan2(right, down)))
    paint_strip(canvas, corners, np.asarray(colour, np.float32), opacity)


def _stretches(points: Points) -> list[tuple[Points, Points, float]]:
    """Consecutive points with the way run before each."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    runs = np.concatenate([[0.0], np.cumsum(steps)])
    return [(points[i], points[i + 1], float(runs[i])) for i in range(len(points) - 1)]


def _to_segment(region: Region, start: Points, end: Points) -> tuple[Floats, Floats]:
    """(h, w) distance to a segment and the way along it, pixels."""
    length = float(np.hypot(*(end - start)))
    angle = float(np.arctan2(end[1] - start[1], end[0] - start[0]))
    along, across = local_frame(region, (float(start[0]), float(start[1])), angle)
    beyond = along - np.clip(along, 0, np.float32(length))
    return np.hypot(across, beyond), along


def _mixed(first: Floats, second: Floats, share: Floats) -> Floats:
    """(3, h, w) from two colours and the share (h, w) of the second."""
    mixed: Floats = _broad(first) + _broad(second - first) * share
    return mixed


def _broad(colour: Floats) -> Floats:
    return np.asarray(colour, np.float32)[:, None, None]
