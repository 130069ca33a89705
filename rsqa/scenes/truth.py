"""What is true of a window of a scene, and what is too close to call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsqa.scenes.scene import COVERS, LABELS, OBJECTS, Box, Scene

Window = tuple[int, int, int, int]
"""(row0, col0, row1, col1), whole pixels, half open, inside the scene."""

PRESENT_FROM = {"field": 0.08, "forest": 0.08, "water": 0.08, "road": 0.02, "parking lot": 0.03}
"""Share of the window from which a cover is present. Roads are thin: one across a window covers about 2 %."""
ABSENT_BELOW = {"field": 0.01, "forest": 0.01, "water": 0.004, "road": 0.002, "parking lot": 0.002}
"""Share of the window below which a cover is absent; in between nobody should be asked."""
BUILT = ("paved", "road", "building", "parking lot")
URBAN_FROM, RURAL_BELOW = 0.30, 0.12
"""Share of built ground that makes a window urban or rural."""
MAIN_FROM, MAIN_LEAD = 0.45, 1.4
"""Share of the window that a cover needs to be its theme, and how many times the next cover it must be."""
WORKS = (("harbour", "ship", 2), ("airfield", "plane", 2), ("tank farm", "storage tank", 3))
"""Themes that show by what stands in them: (theme, object, least number)."""
THEMES = ("farmland", "forest", "water", "open land", "built-up area", "harbour", "airfield", "tank farm")


@dataclass(frozen=True, slots=True)
class WindowTruth:
    """Answers about one window; None is "too close to call", never "no"."""

    present: dict[str, bool | None]
    """One entry for each of LABELS."""
    counts: dict[str, int | None]
    """One entry for each of OBJECTS; None when the border cuts one."""
    fractions: dict[str, float]
    """Share of the window under each of COVERS."""
    urban: bool | None
    main: str | None
    """One of THEMES."""
    boxes: tuple[tuple[str, float, float, float, float], ...]
    """(label, row0, col0, row1, col1) of the objects wholly inside, pixels from the window's corner."""


def truth(scene: Scene, window: Window) -> WindowTruth:
    """What a window of a scene shows."""
    row0, col0, row1, col1 = window
    height, width = scene.cover.shape
    if not (0 <= row0 < row1 <= height and 0 <= col0 < col1 <= width):
        raise ValueError(f"window {window} must be (row0, col0, row1, col1) inside {height} x {width} pixels")
    shares = np.bincount(scene.cover[row0:row1, col0:col1].ravel(), minlength=len(COVERS))
    fractions = {
        name: float(share) / ((row1 - row0) * (col1 - col0)) for name, share in zip(COVERS, shares, strict=True)
    }
    inside: list[tuple[str, float, float, float, float]] = []
    cut: set[str] = set()
    for thing in scene.objects:
        box = thing.box
        if box[0] >= row0 and box[1] >= col0 and box[2] <= row1 and box[3] <= col1:
            inside.append((thing.label, box[0] - row0, box[1] - col0, box[2] - row0, box[3] - col0))
        elif _touches(box, window):
            cut.add(thing.label)
    found = {label: sum(name == label for name, *_ in inside) for label in OBJECTS}
    counts = {label: None if label in cut else number for label, number in found.items()}
    present = {label: _present(label, fractions, found, cut) for label in LABELS}
    urban = _urban(fractions)
    return WindowTruth(present, counts, fractions, urban, _main(fractions, found, cut, urban), tuple(inside))


def _touches(box: Box, window: Window) -> bool:
    return box[0] < window[2] and box[1] < window[3] and box[2] > window[0] and box[3] > window[1]


def _present(label: str, fractions: dict[str, float], found: dict[str, int], cut: set[str]) -> bool | None:
    if label in OBJECTS:
        return True if found[label] else None if label in cut else False
    if fractions[label] >= PRESENT_FROM[label]:
        return True
    return False if fractions[label] < ABSENT_BELOW[label] else None


def _urban(fractions: dict[str, float]) -> bool | None:
    built = sum(fractions[name] for name in BUILT)
    if built >= URBAN_FROM:
        return True
    return False if built < RURAL_BELOW else None


def _main(fractions: dict[str, float], found: dict[str, int], cut: set[str], urban: bool | None) -> str | None:
    """The theme: works that show several of their objects, else the cover that rules the window."""
    works = [theme for theme, label, least in WORKS if found[label] >= least]
    if works:
        # Several ships on open water are no harbour.
        moored = fractions["paved"] >= 0.05 and fractions["water"] >= PRESENT_FROM["water"]
        return works[0] if len(works) == 1 and (works[0] != "harbour" or moored) else None
    if cut & {label for _, label, _ in WORKS}:
        return None
    if urban and found["building"] >= 4:
        return "built-up area"
    ground = {
        "farmland": fractions["field"], "forest": fractions["forest"], "water": fractions["water"],
        "open land": fractions["grass"] + fractions["bare"],
    }  # fmt: skip
    second, first = sorted(ground, key=ground.__getitem__)[-2:]
    ruled = ground[first] >= MAIN_FROM and ground[first] >= MAIN_LEAD * ground[second]
    built_on = first == "open land" and (found["building"] > 0 or "building" in cut)
    return first if ruled and not built_on and not urban else None


_NUMBERS = ("no", "one", "two", "three", "four", "five")
_OPENINGS = ("A view of", "An aerial view of", "This tile shows", "An orthophoto of")
_COVER_PHRASES = {
    "field": ("fields", "farm fields", "farmland"),
    "forest": ("forest", "woodland", "a stand of trees"),
    "water": ("water", "a water surface"),
    "road": ("a road", "roads"),
    "parking lot": ("a parking lot",),
}
_THEME_PHRASES = {
    "farmland": "farmland", "forest": "a forest", "water": "a water surface", "open land": "open land",
    "built-up area": "a built-up area", "harbour": "a harbour", "airfield": "an airfield", "tank farm": "a tank farm",
}  # fmt: skip


def describe(known: WindowTruth, rng: np.random.Generator) -> str:
    """One short sentence that says only what is present."""
    # The theme's own cover need not be said twice.
    said = {"farmland": "field", "forest": "forest", "water": "water"}.get(known.main or "")
    things = [_thing(label, known, rng) for label in LABELS if known.present[label] and label != said]
    kept = [things[index] for index in sorted(rng.permutation(len(things))[:4])]
    opening = str(rng.choice(_OPENINGS))
    if known.main is not None:
        sentence = f"{opening} {_THEME_PHRASES[known.main]}"
        return f"{sentence} with {_joined(kept)}." if kept else f"{sentence}."
    return f"{opening} {_joined(kept)}." if kept else f"{opening} mixed ground."


def _thing(label: str, known: WindowTruth, rng: np.random.Generator) -> str:
    if label not in OBJECTS:
        return str(rng.choice(_COVER_PHRASES[label]))
    number = known.counts[label]
    if number is None:
        # Some are cut by the border, so that at least one is certain and the number is not.
        return f"at least one {label}"
    if number == 1:
        return f"one {label}"
    return f"{_NUMBERS[number]} {label}s" if number < len(_NUMBERS) else f"many {label}s"


def _joined(things: list[str]) -> str:
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
