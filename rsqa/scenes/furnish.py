"""What stands in a cell of each use: houses, halls, parking lots, tanks, quays and ships, aprons and planes, trees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rsqa.scenes.canvas import Canvas, Floats, Points, Warp, inside_px, rectangle
from rsqa.scenes.look import Look
from rsqa.scenes.plan import Cell
from rsqa.scenes.scene import COVERS
from rsqa.scenes.solids import Solid, Spot, building, paint_parking, plane, ship, storage_tank
from rsqa.scenes.styles import varied
from rsqa.scenes.terrain import paint_field, paint_forest, paint_open, paint_strip, paint_water

_FREE = tuple(COVERS.index(name) for name in ("grass", "bare", "paved"))
_WATER = (COVERS.index("water"),)


@dataclass(slots=True)
class Site:
    """A scene in the making."""

    canvas: Canvas
    look: Look
    rng: np.random.Generator
    warp: Warp
    solids: list[Solid] = field(default_factory=list)
    footprints: list[tuple[float, float, float]] = field(default_factory=list)
    """(row, col, radius) of what stands already, pixels."""
    trees: list[tuple[Spot, float]] = field(default_factory=list)
    """(spot, radius in metres)"""

    def place(self, solid: Solid, ground: tuple[int, ...] = _FREE, gap_m: float = 1.5) -> bool:
        """Keep a solid when it stands wholly on the wanted ground and clear of all others."""
        centre = solid.corners.mean(axis=0)
        radius = float(np.hypot(*(solid.corners[0] - centre)))
        height, width = self.canvas.cover.shape
        if not (-radius < centre[0] < height + radius and -radius < centre[1] < width + radius):
            return False
        for row, col, other in self.footprints:
            if np.hypot(row - centre[0], col - centre[1]) < 0.86 * (radius + other) + gap_m / self.look.gsd_m:
                return False
        region = self.canvas.region(solid.corners, 2)
        if region is not None:
            cover = self.canvas.cover[region[0] : region[2], region[1] : region[3]]
            within = inside_px(solid.corners, region) > -gap_m / self.look.gsd_m
            if not np.isin(cover[within], ground).all():
                return False
        self.footprints.append((float(centre[0]), float(centre[1]), radius))
        self.solids.append(solid)
        return True

    def frame(self, cell: Cell) -> tuple[Spot, float, float, float]:
        """Centre, angle, length and width in pixels of the largest upright box that surely lies in a cell."""
        corners = self.warp.to_pixels(cell.corners)
        sides = np.roll(corners, -1, axis=0) - corners
        longest = sides[np.argmax(np.hypot(*sides.T))]
        angle = float(np.arctan2(longest[1], longest[0]))
        centre = corners.mean(axis=0)
        turned = (corners - centre) @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        span = turned.max(axis=0) - turned.min(axis=0)
        return (float(centre[0]), float(centre[1])), angle, float(span[0] * 0.86), float(span[1] * 0.82)

    def at(self, frame: tuple[Spot, float, float, float], along: float, across: float) -> Spot:
        """(row, col) of a place in a frame, given as shares of its half length and half width."""
        (row, col), angle, length, width = frame
        u, v = along * length / 2, across * width / 2
        return row + u * np.cos(angle) - v * np.sin(angle), col + u * np.sin(angle) + v * np.cos(angle)


def paint_ground(site: Site, cell: Cell) -> None:
    """The ground of a cell, before roads are laid."""
    canvas, look, rng, warp = site.canvas, site.look, site.rng, site.warp
    if cell.use in ("field", "farm"):
        paint_field(canvas, look, rng, cell.corners, warp)
    elif cell.use == "forest":
        paint_forest(canvas, look, rng, cell.corners, warp)
    elif cell.use == "water":
        paint_water(canvas, look, rng, cell.corners, warp, rng.uniform(3, 12))
    elif cell.use in ("works", "harbour", "tanks"):
        paint_open(canvas, look, rng, cell.corners, warp, str(rng.choice(["paved", "bare", "grass"], p=[0.5, 0.25, 0.25])))
    else:
        paint_open(canvas, look, rng, cell.corners, warp, "grass" if rng.random() < 0.8 else "bare")


def furnish(site: Site, cell: Cell) -> None:
    """Everything on the ground of a cell, after roads are laid."""
    work = {
        "town": _town, "works": _works, "parking": _parking, "tanks": _tanks, "harbour": _harbour,
        "airfield": _airfield, "farm": _farm, "water": _lake, "open": _open,
    }.get(cell.use)  # fmt: skip
    if work is not None:
        work(site, site.frame(cell))


Frame = tuple[Spot, float, float, float]


def _town(site: Site, frame: Frame) -> None:
    rng, gsd = site.rng, site.look.gsd_m
    _, angle, length, width = frame
    colours = [varied(rng, site.look.style.roof, 0.1) for _ in range(3)]
    plot = rng.uniform(17, 30) / gsd
    rows = max(1, int(width / plot))
    columns = max(1, int(length / plot))
    size = rng.uniform(0.42, 0.6) * plot * gsd
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.12:
                continue
            spot = site.at(frame, _share(column, columns, rng, 0.12), _share(row, rows, rng, 0.12))
            long = size * rng.uniform(0.9, 1.45)
            turn = angle + rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.04)
            colour = colours[int(rng.integers(3))] * np.float32(rng.uniform(0.85, 1.15))
            site.place(building(site.look, rng, spot, (max(8, long), max(7, size * rng.uniform(0.65, 0.9))), turn, rng.uniform(4, 9), colour))
    _scatter_trees(site, frame, int(length * width * gsd**2 / rng.uniform(180, 700)))


def _farm(site: Site, frame: Frame) -> None:
    rng = site.rng
    spot = site.at(frame, rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
    yard = rectangle(spot, 50 / site.look.gsd_m, 42 / site.look.gsd_m, frame[1])
    paint_open(site.canvas, site.look, rng, yard, Warp((0, 0), (0, 0), (0, 0)), "grass" if rng.random() < 0.6 else "bare", 5)
    inner = (spot, frame[1], 44 / site.look.gsd_m, 36 / site.look.gsd_m)
    for _ in range(int(rng.integers(2, 6))):
        colour = varied(rng, site.look.style.roof)
        size = (rng.uniform(10, 30), rng.uniform(8, 14))
        turn = frame[1] + rng.choice([0.0, np.pi / 2])
        site.place(building(site.look, rng, site.at(inner, rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)), size, turn, rng.uniform(4, 8), colour))
    _scatter_trees(site, inner, int(rng.integers(3, 14)))


def _works(site: Site, frame: Frame) -> None:
    rng, gsd = site.rng, site.look.gsd_m
    _, angle, length, width = frame
    if rng.random() < 0.45:
        _lot(site, frame)
    for _ in range(14):
        size = (rng.uniform(22, 60), rng.uniform(16, 34))
        spot = site.at(frame, rng.uniform(-0.85, 0.85), rng.uniform(-0.85, 0.85))
        turn = angle + rng.choice([0.0, np.pi / 2])
        site.place(building(site.look, rng, spot, size, turn, rng.uniform(6, 14), varied(rng, site.look.style.roof)), gap_m=4)
    _clutter(site, frame, int(length * width * gsd**2 / 500))
    _scatter_trees(site, frame, int(rng.integers(0, 12)))


def _parking(site: Site, frame: Frame) -> None:
    _lot(site, frame)
    for _ in range(6):
        spot = site.at(frame, site.rng.uniform(-0.8, 0.8), site.rng.uniform(-0.8, 0.8))
        size = (site.rng.uniform(20, 55), site.rng.uniform(16, 32))
        site.place(building(site.look, site.rng, spot, size, frame[1], site.rng.uniform(5, 10), varied(site.rng, site.look.style.roof)), gap_m=3)
    _scatter_trees(site, frame, int(site.rng.integers(4, 20)))


def _lot(site: Site, frame: Frame) -> None:
    """One parking lot, on ground that is still free."""
    rng, gsd = site.rng, site.look.gsd_m
    _, angle, length, width = frame
    for _ in range(6):
        size_m = (float(min(length * gsd, rng.uniform(28, 90))), float(min(width * gsd, rng.choice([18, 34, 50, 66]))))
        if min(size_m) < 17:
            return
        room = (1 - size_m[0] / gsd / length, 1 - size_m[1] / gsd / width)
        spot = site.at(frame, rng.uniform(-room[0], room[0]) if room[0] > 0 else 0, rng.uniform(-room[1], room[1]) if room[1] > 0 else 0)
        corners = rectangle(spot, size_m[0] / gsd, size_m[1] / gsd, angle)
        region = site.canvas.region(corners)
        if region is None:
            continue
        cover = site.canvas.cover[region[0] : region[2], region[1] : region[3]]
        if np.isin(cover[inside_px(corners, region) > -2], _FREE).all():
            paint_parking(site.canvas, site.look, rng, spot, size_m, angle)
            return


def _tanks(site: Site, frame: Frame) -> None:
    rng, gsd = site.rng, site.look.gsd_m
    _, _, length, width = frame
    kind = str(rng.choice(site.look.style.tanks))
    colour = varied(rng, ((232, 232, 228), (206, 204, 196), (150, 152, 150), (168, 150, 126), (110, 122, 112), (236, 226, 204)), 0.08)
    diameter = rng.uniform(14, 36)
    pitch = diameter * rng.uniform(1.35, 1.8) / gsd
    rows, columns = min(4, max(1, int(width / pitch))), min(5, max(1, int(length / pitch)))
    # A farm keeps its spacing when the cell has more room than tanks.
    shares = (min(1.0, columns * pitch / length), min(1.0, rows * pitch / width))
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.15:
                continue
            spot = site.at(frame, _share(column, columns, rng, 0.0) * shares[0], _share(row, rows, rng, 0.0) * shares[1])
            size = diameter * (1 if rng.random() < 0.7 else rng.uniform(0.6, 1.0))
            bund = rectangle(spot, pitch * 0.95, pitch * 0.95, frame[1])
            tank = storage_tank(site.look, rng, spot, max(11, size), kind, colour * np.float32(rng.uniform(0.92, 1.06)))
            if site.place(tank, gap_m=1):
                for start, end in zip(bund, np.roll(bund, -1, axis=0), strict=True):
                    _line(site, start, end, 1.2, site.look.bare * 1.1, 0.5)
    _clutter(site, frame, int(rng.integers(2, 8)))


def _line(site: Site, start: Points, end: Points, width_m: float, colour: Floats, opacity: float) -> None:
    middle = (start + end) / 2
    way = end - start
    corners = rectangle((float(middle[0]), float(middle[1])), float(np.hypot(*way)), width_m / site.look.gsd_m, float(np.arctan2(way[1], way[0])))
    paint_strip(site.canvas, corners, np.asarray(colour, np.float32), opacity)


def _harbour(site: Site, frame: Frame) -> None:
    """A basin with quay walls in the middle of the yard, ships along them."""
    rng, gsd = site.rng, site.look.gsd_m
    _, angle, length, width = frame
    share = rng.uniform(0.45, 0.7)
    basin = rectangle(site.at(frame, 0, 1 - share), length * 1.0, width * share, angle)
    paint_water(site.canvas, site.look, rng, basin, Warp((0, 0), (0, 0), (0, 0)), 0.0)
    for start, end in zip(basin, np.roll(basin, -1, axis=0), strict=True):
        _line(site, start, end, 1.5, site.look.paved * 1.25, 0.8)
    kinds = site.look.style.ships
    for side in (-1, 1):
        cursor = -length / 2 + 6 / gsd
        while cursor < length / 2 - 20 / gsd:
            size = float(min(rng.uniform(18, 95), (length / 2 - cursor) * gsd - 4))
            if size < 15:
                break
            kind = _ship_kind(rng, kinds, size)
            # Half a beam off the wall, so that the side touches the fenders.
            across = 1 - share + side * (share - (ship_beam_m(kind, size) / 2 + 1.8) / gsd * 2 / width)
            spot = site.at(frame, (cursor + size / gsd / 2) / (length / 2), across)
            heading = angle + (np.pi if rng.random() < 0.5 else 0.0)
            if rng.random() < 0.75:
                site.place(ship(site.look, rng, spot, size, heading, kind, under_way=False), _WATER, 0.3)
            cursor += (size + rng.uniform(3, 25)) / gsd
    for _ in range(6):
        spot = site.at(frame, rng.uniform(-0.8, 0.8), rng.uniform(-0.9, 1 - 2 * share))
        site.place(building(site.look, rng, spot, (rng.uniform(18, 50), rng.uniform(12, 24)), angle, rng.uniform(6, 12), varied(rng, site.look.style.roof)), gap_m=2)
    _clutter(site, frame, int(rng.integers(6, 40)))


def ship_beam_m(kind: str, length_m: float) -> float:
    """Beam of a ship of a kind."""
    from rsqa.scenes.solids import SHIP_WIDTH

    return SHIP_WIDTH[kind] * length_m


def _ship_kind(rng: np.random.Generator, kinds: tuple[str, ...], length_m: float) -> str:
    if "yacht" in kinds and length_m < 32:
        return "yacht"
    return str(rng.choice([kind for kind in kinds if kind != "yacht"]))


def _lake(site: Site, frame: Frame) -> None:
    """Now and then ships under way."""
    rng = site.rng
    if rng.random() < 0.5:
        return
    for _ in range(int(rng.integers(1, 5))):
        size = float(rng.uniform(16, 70))
        spot = site.at(frame, rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8))
        kind = _ship_kind(rng, site.look.style.ships, size)
        site.place(ship(site.look, rng, spot, size, rng.uniform(0, 2 * np.pi), kind, under_way=rng.random() < 0.7), _WATER, 3)


def _airfield(site: Site, frame: Frame) -> None:
    """An apron with planes on stands, a taxiway and a hangar."""
    rng, gsd = site.rng, site.look.gsd_m
    _, angle, length, width = frame
    straight = Warp((0, 0), (0, 0), (0, 0))
    share = rng.uniform(0.6, 0.9)
    apron = rectangle(site.at(frame, 0, 1 - share), length, width * share, angle)
    paint_open(site.canvas, site.look, rng, apron, straight, "paved", 0.3)
    slab = rng.uniform(6, 12) / gsd
    for number in range(int(length / slab)):
        ends = np.array([site.at(frame, -1 + 2 * number * slab / length, v) for v in (1, 1 - 2 * share)])
        _line(site, ends[0], ends[1], 0.4, site.look.road * 0.8, 0.25)
    taxi = np.array([site.at(frame, u, 0.88) for u in (-1, 1)])
    _line(site, taxi[0], taxi[1], 0.5, np.array([210, 180, 70], np.float32), 0.6)
    kind = str(rng.choice(site.look.style.planes))
    size = float(np.clip(rng.uniform(18, 50), 18, 0.42 * width * gsd))
    heading = angle + np.pi / 2 + (np.pi if rng.random() < 0.5 else 0) + rng.choice([0.0, 0.0, 0.5])
    stands = max(1, int(length / (size * 1.25 / gsd)))
    rows = max(1, min(2, int(width * share * gsd / (size * 1.35))))
    for row in range(rows):
        for stand in range(stands):
            if rng.random() < 0.3:
                continue
            across = 1 - 2 * share + 2 * share * (row + 0.5) / rows
            spot = site.at(frame, _share(stand, stands, rng, 0.0), across * 0.9)
            here = kind if rng.random() < 0.7 else str(rng.choice(site.look.style.planes))
            site.place(plane(site.look, rng, spot, size * rng.uniform(0.85, 1.0), heading + rng.normal(0, 0.03), here), gap_m=1)
    for _ in range(3):
        spot = site.at(frame, rng.uniform(-0.8, 0.8), rng.uniform(-1.0, 0.6))
        site.place(building(site.look, rng, spot, (rng.uniform(25, 55), rng.uniform(20, 36)), angle, rng.uniform(8, 14), varied(rng, site.look.style.roof)), gap_m=2)
    _clutter(site, frame, int(rng.integers(0, 8)))


def _open(site: Site, frame: Frame) -> None:
    """Meadow or waste land: trees, a pond, a tennis court."""
    rng, gsd = site.rng, site.look.gsd_m
    if rng.random() < 0.2:
        spot = site.at(frame, rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
        pond = rectangle(spot, rng.uniform(25, 60) / gsd, rng.uniform(20, 40) / gsd, rng.uniform(0, np.pi))
        paint_water(site.canvas, site.look, rng, pond, Warp((0, 0), (0, 0), (0, 0)), 5.0)
    if rng.random() < 0.35:
        _courts(site, frame)
    _scatter_trees(site, frame, int(rng.integers(0, 50)))


def _courts(site: Site, frame: Frame) -> None:
    """Tennis courts: red, blue or green with white lines, like roofs and pools in colour."""
    rng, gsd = site.rng, site.look.gsd_m
    colour = varied(rng, ((160, 86, 62), (70, 100, 140), (74, 110, 84)))
    for number in range(int(rng.integers(1, 4))):
        u = (number - 1) * 38 / gsd / frame[2]
        spot = site.at(frame, u, rng.uniform(-0.1, 0.1))
        paint_strip(site.canvas, rectangle(spot, 18 / gsd, 36 / gsd, frame[1]), colour, 0.95)
        for share in (1.0, 0.5):
            court = rectangle(spot, 11 / gsd, 24 / gsd * share, frame[1])
            for start, end in zip(court, np.roll(court, -1, axis=0), strict=True):
                _line(site, start, end, 0.3, np.full(3, 225, np.float32), 0.7)
        site.footprints.append((spot[0], spot[1], 20 / gsd))


def _clutter(site: Site, frame: Frame, count: int) -> None:
    """Containers, skips and stacks on a yard."""
    rng = site.rng
    for _ in range(count):
        spot = site.at(frame, rng.uniform(-1, 1), rng.uniform(-1, 1))
        colour = varied(rng, ((150, 62, 50), (62, 86, 126), (190, 188, 182), (70, 104, 84), (168, 128, 70), (90, 90, 92)))
        size = (6.1, 2.5) if rng.random() < 0.6 else (12.2, 2.5)
        turn = frame[1] + rng.choice([0.0, np.pi / 2])
        site.place(block(site.look, spot, size, turn, colour), gap_m=0.3)


def block(look: Look, spot: Spot, size_m: tuple[float, float], angle: float, colour: Floats) -> Solid:
    """A plain box such as a container."""
    corners = rectangle(spot, size_m[0] / look.gsd_m, size_m[1] / look.gsd_m, angle)
    return Solid(None, corners, ((corners, 2.6),), lambda canvas: paint_strip(canvas, corners, colour, 1.0))


def _scatter_trees(site: Site, frame: Frame, count: int) -> None:
    for _ in range(count):
        radius_m = float(site.rng.uniform(1.6, 4.5))
        site.trees.append((site.at(frame, site.rng.uniform(-1.1, 1.1), site.rng.uniform(-1.1, 1.1)), radius_m))


def _share(index: int, count: int, rng: np.random.Generator, jitter: float) -> float:
    """-1 to 1: the middle of one of several equal places, moved a little."""
    return float((2 * (index + 0.5 + rng.uniform(-jitter, jitter)) / count) - 1)
