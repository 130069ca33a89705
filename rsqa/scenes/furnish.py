"""The ground of a cell by its use, and what stands on it: houses, halls, lots, tanks, ships, planes, trees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rsqa.scenes.canvas import STRAIGHT, Floats, Points, rectangle, rounded
from rsqa.scenes.cars import paint_parking
from rsqa.scenes.plan import Cell
from rsqa.scenes.planes import plane
from rsqa.scenes.ships import SHIP_WIDTH, ship
from rsqa.scenes.site import FREE, Frame, Site
from rsqa.scenes.solids import block, building, storage_tank
from rsqa.scenes.styles import varied
from rsqa.scenes.terrain import paint_field, paint_forest, paint_line, paint_open, paint_strip, paint_water

_TANKS = ((232, 232, 228), (214, 212, 204), (176, 178, 176), (190, 174, 150), (150, 160, 152), (236, 226, 204))
_COURTS = ((160, 86, 62), (70, 100, 140), (74, 110, 84))
_CONTAINERS = ((150, 62, 50), (62, 86, 126), (190, 188, 182), (70, 104, 84), (168, 128, 70), (90, 90, 92))
_POOLS = ((84, 150, 170), (70, 120, 130), (130, 160, 150))
_LOT_WIDTHS_M = (34, 50, 66)
"""Two to four bays of 16 m, with a rim."""


def paint_ground(site: Site, cell: Cell) -> None:
    """The ground of a cell, before roads are laid."""
    canvas, look, rng, warp = site.canvas, site.look, site.rng, site.warp
    match cell.use:
        case "field" | "farm":
            paint_field(canvas, look, rng, cell.corners, warp)
        case "forest":
            paint_forest(canvas, look, rng, rounded(cell.corners, int(rng.integers(2))), warp)
        case "water":
            paint_water(canvas, look, rng, rounded(cell.corners), warp, rng.uniform(4, 14))
        case "works" | "harbour" | "tanks":
            cover = str(rng.choice(FREE, p=[0.25, 0.25, 0.5]))
            paint_open(canvas, look, rng, cell.corners, warp, cover)
        case _:
            paint_open(canvas, look, rng, cell.corners, warp, "grass" if rng.random() < 0.8 else "bare")


def furnish(site: Site, cell: Cell) -> None:
    """Everything on the ground of a cell, after rivers and roads are laid."""
    frame = site.frame(cell)
    if cell.use in ("airfield", "harbour", "farm") and site.share_of(frame, ("water", "road")) > 0.02:
        return  # a river took its place
    match cell.use:
        case "town":
            _town(site, cell, frame)
        case "works":
            _works(site, frame)
        case "parking":
            _shops(site, frame)
        case "tanks":
            _tank_farm(site, frame)
        case "harbour":
            _harbour(site, frame)
        case "airfield":
            _airfield(site, frame)
        case "farm":
            _farm(site, frame)
        case "field":
            _hedge(site, cell)
        case "open":
            _open(site, frame)


def sail(site: Site) -> None:
    """Ships under way or at anchor, wherever there is water enough."""
    rng, gsd = site.rng, site.look.gsd_m
    height, width = site.canvas.cover.shape
    for _ in range(int(rng.poisson(70 * height * width * gsd**2 / 1e6))):
        length_m = float(rng.choice([rng.uniform(24, 45), rng.uniform(40, 100)]))
        spot = (float(rng.uniform(0, height)), float(rng.uniform(0, width)))
        kind = _ship_kind(site, length_m)
        angle = rng.uniform(0, 2 * np.pi)
        site.place(ship(site.look, rng, spot, length_m, angle, kind, under_way=rng.random() < 0.6), ("water",), 4)


def _town(site: Site, cell: Cell, inner: Frame) -> None:
    """Houses in rows, or blocks of flats, all over a cell."""
    rng, gsd = site.rng, site.look.gsd_m
    frame = replace(inner, length=inner.length * 1.6, width=inner.width * 1.6)
    colours = [varied(rng, site.look.style.roof, 0.1) for _ in range(3)]
    flats = rng.random() < 0.3
    deep_m = rng.uniform(24, 34) if flats else rng.uniform(15, 24)
    wide_m = deep_m * (rng.uniform(1.3, 2.2) if flats else rng.uniform(0.9, 1.2))
    rows, columns = max(1, int(frame.width * gsd / deep_m)), max(1, int(frame.length * gsd / wide_m))
    for row in range(rows):
        for column in range(columns):
            spot = frame.at(_place(rng, column, columns, 0.08), _place(rng, row, rows, 0.08))
            if rng.random() < 0.05 or not site.inside(cell, spot):
                continue
            size = (max(9.0, wide_m * rng.uniform(0.5, 0.8)), max(8.0, deep_m * rng.uniform(0.38, 0.55)))
            turn = frame.angle + rng.normal(0, 0.03)
            colour = colours[int(rng.integers(3))] * np.float32(rng.uniform(0.85, 1.15))
            site.place(
                building(site.look, rng, spot, size, turn, rng.uniform(9, 16) if flats else rng.uniform(4, 9), colour)
            )
            if rng.random() < 0.06:
                pool = frame.at(_place(rng, column, columns, 0.4), _place(rng, row, rows, 0.4))
                if site.cover_at(*pool) in FREE:
                    paint_strip(site.canvas, rectangle(pool, 8 / gsd, 4 / gsd, turn), varied(rng, _POOLS), 0.9)
    _scatter_trees(site, inner, int(inner.length * inner.width * gsd**2 / rng.uniform(400, 1200)))


def _farm(site: Site, frame: Frame) -> None:
    rng, gsd = site.rng, site.look.gsd_m
    spot = frame.at(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
    yard = rectangle(spot, 54 / gsd, 44 / gsd, frame.angle)
    paint_open(site.canvas, site.look, rng, yard, STRAIGHT, "grass" if rng.random() < 0.6 else "bare", 5)
    inner = Frame(spot, frame.angle, 44 / gsd, 36 / gsd)
    _halls(site, inner, int(rng.integers(2, 6)), (10, 30), (8, 15))
    _scatter_trees(site, inner, int(rng.integers(3, 14)))


def _works(site: Site, frame: Frame) -> None:
    rng = site.rng
    if rng.random() < 0.4:
        _lot(site, frame)
    _halls(site, frame, 24, (22, 60), (16, 34))
    _clutter(site, frame, int(frame.length * frame.width * site.look.gsd_m**2 / 1200))
    _scatter_trees(site, frame, int(rng.integers(0, 12)))


def _shops(site: Site, frame: Frame) -> None:
    _lot(site, frame)
    _halls(site, frame, int(site.rng.choice([0, 10])), (20, 55), (16, 32))
    _scatter_trees(site, frame, int(site.rng.integers(4, 20)))


def _halls(site: Site, frame: Frame, tries: int, length_m: tuple[float, float], width_m: tuple[float, float]) -> None:
    """Buildings of their own colours wherever there is room."""
    rng = site.rng
    for _ in range(tries):
        spot = frame.at(rng.uniform(-0.85, 0.85), rng.uniform(-0.85, 0.85))
        turn = frame.angle + rng.choice([0.0, np.pi / 2])
        size = (rng.uniform(*length_m), rng.uniform(*width_m))
        colour = varied(rng, site.look.style.roof)
        site.place(building(site.look, rng, spot, size, turn, rng.uniform(5, 13), colour), gap_m=3)


def _lot(site: Site, frame: Frame) -> None:
    """One parking lot, where the ground is free."""
    rng, gsd = site.rng, site.look.gsd_m
    for _ in range(6):
        length_m = min(frame.length * gsd, rng.uniform(40, 95))
        width_m = min(frame.width * gsd, float(rng.choice(_LOT_WIDTHS_M)))
        if min(length_m, width_m) < _LOT_WIDTHS_M[0]:
            return
        room = (1 - length_m / gsd / frame.length, 1 - width_m / gsd / frame.width)
        lot = Frame(
            frame.at(rng.uniform(-1, 1) * room[0], rng.uniform(-1, 1) * room[1]),
            frame.angle,
            length_m / gsd,
            width_m / gsd,
        )
        if site.share_of(lot, FREE) == 1:
            paint_parking(site.canvas, site.look, rng, lot.centre, (length_m, width_m), lot.angle)
            return


def _tank_farm(site: Site, frame: Frame) -> None:
    rng, gsd = site.rng, site.look.gsd_m
    kind = str(rng.choice(site.look.style.shapes.tanks))
    colour = varied(rng, _TANKS, 0.08)
    diameter_m = rng.uniform(20, 38)
    pitch = diameter_m * rng.uniform(1.35, 1.8) / gsd
    rows, columns = min(4, max(1, int(frame.width / pitch))), min(5, max(1, int(frame.length / pitch)))
    # A farm keeps its spacing when the cell has more room than tanks.
    shares = (min(1.0, columns * pitch / frame.length), min(1.0, rows * pitch / frame.width))
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.15:
                continue
            spot = frame.at(_place(rng, column, columns) * shares[0], _place(rng, row, rows) * shares[1])
            size_m = max(11, diameter_m * (1 if rng.random() < 0.7 else rng.uniform(0.6, 1.0)))
            tank = storage_tank(site.look, rng, spot, size_m, kind, colour * np.float32(rng.uniform(0.92, 1.06)))
            if site.place(tank, gap_m=1):
                _outline(site, rectangle(spot, pitch * 0.95, pitch * 0.95, frame.angle), 1.2, site.look.bare * 1.1, 0.5)
    _clutter(site, frame, int(rng.integers(2, 8)))


def _harbour(site: Site, frame: Frame) -> None:
    """A basin with quay walls in the yard, ships along both sides, sheds on the rest."""
    rng, gsd = site.rng, site.look.gsd_m
    share = rng.uniform(0.45, 0.7)
    middle = 1 - share
    basin = rectangle(frame.at(0, middle), frame.length, frame.width * share, frame.angle)
    paint_water(site.canvas, site.look, rng, basin, STRAIGHT, 0.0)
    _outline(site, basin, 1.5, site.look.paved * 1.25, 0.8)
    half_m = frame.length * gsd / 2
    for side in (-1, 1):
        cursor_m = 6 - half_m
        while cursor_m < half_m - 20:
            length_m = float(min(rng.uniform(26, 95), half_m - cursor_m - 4, 2.2 * share * frame.width * gsd))
            kind = _ship_kind(site, length_m)
            # The side almost touches the wall.
            off_wall = (SHIP_WIDTH[kind] * length_m / 2 + 1.8) / gsd * 2 / frame.width
            spot = frame.at((cursor_m + length_m / 2) / half_m, middle + side * (share - off_wall))
            heading = frame.angle + rng.choice([0.0, np.pi])
            if rng.random() < 0.75 and off_wall < share:
                site.place(ship(site.look, rng, spot, length_m, heading, kind, under_way=False), ("water",), 0.3)
            cursor_m += length_m + rng.uniform(3, 25)
    quay = Frame(frame.at(0, -share), frame.angle, frame.length, frame.width * (1 - share))
    _halls(site, quay, int(rng.choice([0, 6])), (18, 50), (12, 24))
    _clutter(site, quay, int(rng.integers(2, 16)))


def _ship_kind(site: Site, length_m: float) -> str:
    kinds = site.look.style.shapes.ships
    if "yacht" in kinds and length_m < 32:
        return "yacht"
    return str(site.rng.choice([kind for kind in kinds if kind != "yacht"]))


def _airfield(site: Site, frame: Frame) -> None:
    """An apron of slabs with planes on stands, a taxi line and hangars."""
    rng, gsd = site.rng, site.look.gsd_m
    share = rng.uniform(0.6, 0.9)
    middle = 1 - share
    apron = rectangle(frame.at(0, middle), frame.length, frame.width * share, frame.angle)
    paint_open(site.canvas, site.look, rng, apron, STRAIGHT, "paved", 0.3)
    for number in range(1, int(frame.length * gsd / 8)):
        along = -1 + 16 * number / (frame.length * gsd)
        paint_line(site.canvas, frame.at(along, 1), frame.at(along, middle - share), 0.4, site.look.road * 0.8, 0.25)
    line = np.array([210, 180, 70], np.float32) if rng.random() < 0.7 else np.full(3, 220, np.float32)
    paint_line(site.canvas, frame.at(-1, 0.9), frame.at(1, 0.9), 0.5, line, 0.6)
    kind = str(rng.choice(site.look.style.shapes.planes))
    length_m = max(24.0, min(rng.uniform(28, 56), 0.45 * frame.width * gsd))
    heading = frame.angle + np.pi / 2 + rng.choice([0.0, np.pi]) + rng.choice([0.0, 0.0, 0.5])
    stands = max(1, int(frame.length * gsd / (length_m * 1.25)))
    rows = max(1, min(2, int(frame.width * share * gsd / (length_m * 1.35))))
    for row in range(rows):
        for stand in range(stands):
            if rng.random() < 0.3:
                continue
            spot = frame.at(_place(rng, stand, stands), middle + 0.9 * share * _place(rng, row, rows))
            here = kind if rng.random() < 0.7 else str(rng.choice(site.look.style.shapes.planes))
            site.place(
                plane(site.look, rng, spot, length_m * rng.uniform(0.9, 1.0), heading + rng.normal(0, 0.03), here),
                gap_m=1,
            )
    _halls(site, frame, int(rng.choice([0, 3])), (25, 55), (20, 36))
    _clutter(site, frame, int(rng.integers(0, 8)))


def _open(site: Site, frame: Frame) -> None:
    """Meadow or waste land: trees, a pond, tennis courts."""
    rng, gsd = site.rng, site.look.gsd_m
    if rng.random() < 0.2:
        spot = frame.at(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
        pond = rectangle(spot, rng.uniform(25, 60) / gsd, rng.uniform(20, 40) / gsd, rng.uniform(0, np.pi))
        paint_water(site.canvas, site.look, rng, rounded(pond), STRAIGHT, 4.0)
    elif rng.random() < 0.2:
        _courts(site, frame)
    _scatter_trees(site, frame, int(rng.integers(0, 30)))


def _courts(site: Site, frame: Frame) -> None:
    """Tennis courts: red, blue or green with white lines, like roofs and pools in colour."""
    rng, gsd = site.rng, site.look.gsd_m
    colour = varied(rng, _COURTS)
    across = rng.uniform(-0.2, 0.2)
    for number in range(int(rng.integers(1, 4))):
        spot = frame.at((number - 1) * 40 / gsd / frame.length, across)
        if site.share_of(Frame(spot, frame.angle, 18 / gsd, 36 / gsd), FREE) < 1:
            continue
        court = rectangle(spot, 18 / gsd, 36 / gsd, frame.angle)
        paint_strip(site.canvas, court, colour, 0.95, cover="paved")
        site.keep_clear(court)
        for length_m in (24, 12):
            _outline(
                site, rectangle(spot, 11 / gsd, length_m / gsd, frame.angle), 0.3, np.full(3, 225, np.float32), 0.7
            )


def _clutter(site: Site, frame: Frame, count: int) -> None:
    """Containers and lorries on a yard."""
    rng = site.rng
    for _ in range(count):
        spot = frame.at(rng.uniform(-1, 1), rng.uniform(-1, 1))
        size = (6.1, 2.5) if rng.random() < 0.6 else (12.2, 2.5)
        turn = frame.angle + rng.choice([0.0, np.pi / 2])
        site.place(block(site.look, spot, size, turn, varied(rng, _CONTAINERS)), gap_m=0.3)


def _outline(site: Site, corners: Points, width_m: float, colour: Floats, opacity: float) -> None:
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        paint_line(site.canvas, (start[0], start[1]), (end[0], end[1]), width_m, colour, opacity)


def _hedge(site: Site, cell: Cell) -> None:
    """Trees along one side of a field, now and then."""
    rng, gsd = site.rng, site.look.gsd_m
    if rng.random() > 0.3:
        return
    corner = int(rng.integers(len(cell.corners)))
    start, end = cell.corners[corner], cell.corners[(corner + 1) % len(cell.corners)]
    count = max(2, int(np.hypot(*(end - start)) * gsd / rng.uniform(4, 12)))
    points = site.warp.to_pixels(start + (end - start) * rng.uniform(0, 1, (count, 1)))
    for row, col in points:
        site.plant((float(row), float(col)), float(rng.uniform(1.5, 4)))


def _scatter_trees(site: Site, frame: Frame, count: int) -> None:
    for _ in range(count):
        spot = frame.at(site.rng.uniform(-1.1, 1.1), site.rng.uniform(-1.1, 1.1))
        site.plant(spot, float(site.rng.uniform(1.6, 4.5)))


def _place(rng: np.random.Generator, index: int, count: int, jitter: float = 0.0) -> float:
    """-1 to 1: the middle of one of several equal places, moved by a share of one."""
    return float(2 * (index + 0.5 + rng.uniform(-jitter, jitter)) / count - 1)
