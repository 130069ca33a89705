"""Makes a scene: ground, roads, what stands on it, light and sensor."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rsqa.errors import UsageError
from rsqa.scenes.canvas import NOISE_PX, STRAIGHT, Canvas, Floats, Points, Region, Warp, rectangle
from rsqa.scenes.cars import car
from rsqa.scenes.furnish import furnish, paint_ground, sail
from rsqa.scenes.look import Look, draw_look
from rsqa.scenes.plan import Cell, Road, Urbanity, divide
from rsqa.scenes.scene import Scene, SceneObject
from rsqa.scenes.site import Site
from rsqa.scenes.solids import cast_shadow, paint_tree, tree_shadow
from rsqa.scenes.styles import HELD_OUT_STYLES, TRAIN_STYLES, Style
from rsqa.scenes.terrain import paint_open, paint_road, paint_water

RIVER_CHANCE = 0.3
COAST_CHANCE = 0.2


def make_scene(seed: int, height: int, width: int, *, gsd_m: float = 0.5, style: str = "train") -> Scene:
    """A scene of height x width pixels; the same arguments give the same bytes.

    Style is a name from TRAIN_STYLES or HELD_OUT_STYLES, or "train" or "held-out" for one of them by seed.
    """
    rng = np.random.default_rng(seed)
    name, chosen = _style(rng, style)
    flat = np.zeros((height, width), np.uint8)
    canvas = Canvas(np.zeros((3, height, width), np.uint8), flat, flat.copy(), gsd_m)
    look = draw_look(rng, chosen, gsd_m)
    site = Site(canvas, look, rng, _warp(rng, gsd_m))
    cells, roads = divide(rng, height, width, gsd_m, _urbanity(rng, gsd_m))
    _paint_below(site, cells)
    lanes = [_lay(site, road) for road in roads]
    for cell in cells:
        furnish(site, cell)
    sail(site)
    _traffic(site, roads, lanes)
    _paint_solids(site)
    _expose(canvas, look, rng)
    objects = tuple(
        SceneObject(solid.label, tuple((float(row), float(col)) for row, col in solid.corners))
        for solid in site.solids
        if solid.label is not None and canvas.region(solid.corners, 0) is not None
    )
    return Scene(canvas.pixels, canvas.cover, objects, gsd_m, seed, name)


def _style(rng: np.random.Generator, asked: str) -> tuple[str, Style]:
    groups = {"train": TRAIN_STYLES, "held-out": HELD_OUT_STYLES}
    known = TRAIN_STYLES | HELD_OUT_STYLES
    if asked in groups:
        name = str(rng.choice(list(groups[asked])))
    elif asked in known:
        name = asked
    else:
        raise UsageError(f"no scene style {asked!r}; choose 'train', 'held-out' or one of {sorted(known)}")
    return name, known[name]


def _warp(rng: np.random.Generator, gsd_m: float) -> Warp:
    """Gentle bends of fields and roads: their slope is at most 0.2."""
    wavelength = rng.uniform(350, 900, 2) / gsd_m
    return _bend(rng.uniform(0.0, 0.03, 2) * wavelength, wavelength, rng.uniform(0, 2 * np.pi, 2))


def _bend(amplitude: Points, wavelength: Points, phase: Points) -> Warp:
    frequency = 2 * np.pi / wavelength
    return Warp(
        (float(amplitude[0]), float(amplitude[1])),
        (float(frequency[0]), float(frequency[1])),
        (float(phase[0]), float(phase[1])),
    )


def _urbanity(rng: np.random.Generator, gsd_m: float) -> Urbanity:
    """Town and country take turns over 400 to 1500 m; each scene starts with its own lean."""
    wavelength = rng.uniform(400, 1500, 4) / gsd_m
    direction = rng.uniform(0, 2 * np.pi, 4)
    waves = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (2 * np.pi / wavelength)[:, None]
    phase = rng.uniform(0, 2 * np.pi, 4)

    def urbanity(point: Points) -> float:
        height = float(np.cos(waves @ point + phase).sum())
        return float(1 / (1 + np.exp(-2.5 * height)))

    return urbanity


def _paint_below(site: Site, cells: list[Cell]) -> None:
    """The ground of all cells; ragged ones last, so that woods and shores reach over their neighbours."""
    canvas, look, rng = site.canvas, site.look, site.rng
    height, width = canvas.cover.shape
    paint_open(canvas, look, rng, rectangle((height / 2, width / 2), height + 9, width + 9, 0.0), STRAIGHT, "grass")
    ragged = ("water", "forest")
    for cell in sorted(cells, key=lambda cell: ragged.index(cell.use) + 1 if cell.use in ragged else 0):
        paint_ground(site, cell)
    reach = 2 * float(np.hypot(height, width))
    if rng.random() < RIVER_CHANCE:
        through = (rng.uniform(0, height), rng.uniform(0, width))
        band = rectangle(through, reach, rng.uniform(16, 60) / look.gsd_m, rng.uniform(0, np.pi))
        paint_water(canvas, look, rng, band, _meander(rng, look.gsd_m), rng.uniform(1, 4))
    if rng.random() < COAST_CHANCE:
        angle = rng.uniform(0, 2 * np.pi)
        away = reach / 2 + rng.uniform(0.1, 0.45) * min(height, width)
        beyond = (height / 2 - away * np.sin(angle), width / 2 + away * np.cos(angle))
        paint_water(
            canvas, look, rng, rectangle(beyond, reach, reach, angle), _meander(rng, look.gsd_m), rng.uniform(4, 20)
        )


def _meander(rng: np.random.Generator, gsd_m: float) -> Warp:
    """Bends of a river or a coast, several times those of the land."""
    wavelength = rng.uniform(250, 700, 2) / gsd_m
    amplitude = rng.uniform(0.02, 0.09, 2) * wavelength
    phase = rng.uniform(0, 2 * np.pi, 2)
    return _bend(amplitude, wavelength, phase)


def _lay(site: Site, road: Road) -> Points:
    """Paint a road; the (N, 2) pixels it runs through."""
    length = float(np.hypot(*(road.ends[1] - road.ends[0])))
    shares = np.linspace(0, 1, max(2, int(length / 48)))[:, None]
    points = site.warp.to_pixels(road.ends[0] + (road.ends[1] - road.ends[0]) * shares)
    paint_road(site.canvas, site.look, site.rng, points, road.width_m, marked=road.marked)
    return points


def _traffic(site: Site, roads: list[Road], lanes: list[Points]) -> None:
    """Cars on the roads, trees along some."""
    rng, gsd = site.rng, site.look.gsd_m
    for road, points in zip(roads, lanes, strict=True):
        spacing = rng.uniform(30, 160) / gsd
        avenue = rng.random() < 0.3
        for start, end in pairwise(points):
            way = end - start
            length = float(np.hypot(*way))
            angle = float(np.arctan2(way[1], way[0]))
            aside = np.array([-way[1], way[0]]) / max(length, 1e-6)
            for _ in range(int(rng.poisson(length / spacing))):
                side = rng.choice([-1, 1])
                row, col = start + way * rng.random() + aside * side * road.width_m / gsd / 4
                if site.cover_at(row, col) == "road":
                    car(site.canvas, site.look, rng, (float(row), float(col)), angle)
            if avenue:
                for side in (-1, 1):
                    row, col = start + way * rng.random() + aside * side * (road.width_m / 2 + 4.5) / gsd
                    site.plant((float(row), float(col)), float(rng.uniform(2, 4)))


def _paint_solids(site: Site) -> None:
    """All shadows, then crowns, then bodies, so that no shadow falls on a neighbour's roof."""
    canvas, look = site.canvas, site.look
    for solid in site.solids:
        cast_shadow(canvas, look, solid)
    for tree in site.trees:
        tree_shadow(canvas, look, tree)
    height, width = canvas.cover.shape
    for row in range(0, height, NOISE_PX):
        band: Region = (row, 0, min(row + NOISE_PX, height), width)
        canvas.shade(band, 1 - canvas.shadow[row : row + NOISE_PX] * np.float32(look.shadow / 255))
    for tree in site.trees:
        paint_tree(canvas, look, tree)
    for solid in site.solids:
        solid.paint(canvas)


def _expose(canvas: Canvas, look: Look, rng: np.random.Generator) -> None:
    """What air and camera do: haze, colour cast, contrast, blur and noise; in bands, in place."""
    gain = np.exp(rng.normal(0, 0.08)) * (1 + rng.normal(0, 0.03, 3))
    haze = rng.uniform(0, 20) * (1 + rng.normal(0, 0.1, 3))
    gamma = np.exp(rng.normal(0, 0.1))
    colourful = rng.uniform(0.6, 1.15)
    noise = rng.uniform(0.8, 3.0)
    side = np.float32(rng.uniform(0.08, 0.24))
    curve = 255 * (np.linspace(0, 1, 256) ** gamma)
    curves = np.clip(curve[None, :] * gain[:, None] * (1 - haze[:, None] / 255) + haze[:, None], 0, 255).astype(
        np.float32
    )
    height, width = canvas.cover.shape
    last = canvas.pixels[:, :1].copy()
    for row in range(0, height, NOISE_PX):
        end = min(row + NOISE_PX, height)
        band = np.concatenate([last, canvas.pixels[:, row : min(end + 1, height)]], axis=1)
        if end == height:
            band = np.concatenate([band, band[:, -1:]], axis=1)
        last = canvas.pixels[:, end - 1 : end].copy()
        exposed = np.stack([curves[channel][band[channel]] for channel in range(3)])
        grey = exposed.mean(axis=0)
        exposed = grey + (exposed - grey) * np.float32(colourful)
        exposed = _blurred(exposed, side)
        for col in range(0, width, NOISE_PX):
            right = min(col + NOISE_PX, width)
            region: Region = (row, col, end, right)
            for channel in range(3):
                exposed[channel, :, col:right] += look.grain.at(region, 900 + channel) * np.float32(noise)
        canvas.pixels[:, row:end] = np.clip(exposed + 0.5, 0, 255)


def _blurred(band: Floats, side: np.float32) -> Floats:
    """(3, h + 2, w) -> (3, h, w), a kernel of (side, 1 - 2 side, side) both ways."""
    down = band[:, 1:-1] * (1 - 2 * side) + (band[:, :-2] + band[:, 2:]) * side
    wide = np.pad(down, ((0, 0), (0, 0), (1, 1)), mode="edge")
    blurred: Floats = down * (1 - 2 * side) + (wide[:, :, :-2] + wide[:, :, 2:]) * side
    return blurred
