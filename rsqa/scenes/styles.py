"""Named looks of a scene: palettes, season, light and families of object shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rsqa.scenes.canvas import Floats

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Kinds of objects that a look draws from."""

    ships: tuple[str, ...]
    planes: tuple[str, ...]
    tanks: tuple[str, ...]
    roofs: tuple[str, ...]
    hall_roofs: tuple[str, ...]
    """Roofs of buildings too wide for those of houses."""


@dataclass(frozen=True, slots=True)
class Style:
    """One look. Every palette is a list of anchors; a scene draws one or several and varies them."""

    field: tuple[Colour, ...]
    forest: tuple[Colour, ...]
    grass: tuple[Colour, ...]
    bare: tuple[Colour, ...]
    water: tuple[Colour, ...]
    asphalt: tuple[Colour, ...]
    roof: tuple[Colour, ...]
    conifers: bool
    crown_m: float
    """Mean distance of tree crowns."""
    shapes: Shapes
    sun_deg: tuple[float, float]
    """Range of the sun's height above the horizon."""
    shadow: tuple[float, float]
    """Range of the share of light that a shadow takes away."""


_TRAIN_SHAPES = Shapes(
    ships=("cargo", "container", "ferry", "yacht", "bulker", "carrier", "trawler", "supply", "navy"),
    planes=("airliner", "turboprop", "jet", "commuter", "freighter", "patrol", "trijet", "delta"),
    tanks=("floating", "cone", "flat", "dished", "spoked"),
    roofs=("gable", "hip", "flat", "ribbed"),
    hall_roofs=("flat", "ribbed", "sawtooth"),
)
_DULL_WATER = ((52, 72, 70), (30, 38, 42), (78, 92, 90), (70, 84, 98), (96, 96, 82), (46, 72, 66))

_PAINTED: dict[str, Style] = {
    "summer": Style(
        field=((96, 120, 62), (132, 140, 76), (178, 160, 100), (120, 98, 70), (76, 104, 58), (160, 150, 92)),
        forest=((41, 60, 34), (54, 71, 37), (32, 49, 37), (66, 76, 48)),
        grass=((100, 118, 66), (122, 126, 82), (84, 104, 58), (136, 132, 94)),
        bare=((150, 132, 104), (126, 112, 94), (164, 152, 130)),
        water=((44, 76, 86), (58, 88, 76), *_DULL_WATER),
        asphalt=((96, 96, 98), (122, 120, 116), (78, 80, 84), (142, 138, 132)),
        roof=((142, 84, 66), (118, 112, 108), (170, 166, 160), (90, 84, 82), (128, 100, 84), (196, 192, 188)),
        conifers=False,
        crown_m=3.6,
        shapes=_TRAIN_SHAPES,
        sun_deg=(35, 62),
        shadow=(0.45, 0.65),
    ),
    "autumn": Style(
        field=((120, 100, 76), (98, 82, 66), (150, 132, 92), (112, 116, 74), (84, 78, 64), (138, 116, 84)),
        forest=((94, 71, 39), (75, 68, 42), (107, 88, 49), (61, 56, 41), (88, 60, 37)),
        grass=((124, 118, 78), (104, 102, 66), (140, 128, 92), (98, 108, 70)),
        bare=((116, 98, 80), (138, 118, 98), (92, 80, 68)),
        water=((54, 62, 60), (74, 82, 84), *_DULL_WATER),
        asphalt=((88, 86, 86), (110, 106, 102), (70, 70, 74)),
        roof=((126, 74, 60), (104, 100, 98), (84, 78, 76), (150, 142, 134), (72, 88, 108)),
        conifers=False,
        crown_m=4.7,
        shapes=_TRAIN_SHAPES,
        sun_deg=(28, 42),
        shadow=(0.5, 0.7),
    ),
    "dry": Style(
        field=((176, 150, 108), (150, 122, 86), (110, 116, 70), (194, 172, 132), (132, 104, 76), (88, 104, 60)),
        forest=((70, 71, 49), (83, 82, 56), (56, 63, 44), (94, 87, 63)),
        grass=((170, 152, 112), (150, 138, 98), (186, 166, 126), (134, 124, 88)),
        bare=((196, 172, 136), (178, 148, 114), (206, 190, 160), (158, 122, 92)),
        water=((62, 110, 112), (84, 116, 110), (110, 110, 92), (40, 62, 76), (96, 122, 124)),
        asphalt=((120, 114, 108), (146, 138, 128), (98, 94, 92)),
        roof=((198, 188, 172), (168, 120, 88), (214, 210, 204), (140, 128, 116), (120, 136, 150)),
        conifers=False,
        crown_m=3.6,
        shapes=_TRAIN_SHAPES,
        sun_deg=(45, 70),
        shadow=(0.5, 0.65),
    ),
    "boreal": Style(
        field=((108, 116, 84), (134, 128, 100), (88, 90, 72), (150, 148, 116), (98, 84, 70)),
        forest=((31, 42, 34), (39, 51, 44), (51, 56, 44), (26, 36, 32)),
        grass=((96, 104, 78), (116, 116, 92), (82, 90, 72), (128, 122, 104)),
        bare=((120, 114, 106), (140, 132, 122), (104, 92, 82)),
        water=((28, 36, 40), (42, 52, 54), (62, 76, 88), (78, 88, 88), (44, 58, 54), (96, 108, 116)),
        asphalt=((86, 88, 92), (108, 108, 110), (128, 126, 122)),
        roof=((112, 56, 48), (78, 80, 84), (134, 134, 136), (60, 62, 66), (168, 164, 158), (70, 92, 84)),
        conifers=True,
        crown_m=3.1,
        shapes=_TRAIN_SHAPES,
        sun_deg=(28, 45),
        shadow=(0.4, 0.65),
    ),
    "overcast": Style(
        field=((104, 112, 88), (126, 120, 98), (92, 86, 76), (142, 140, 110), (84, 98, 72)),
        forest=((49, 60, 48), (61, 68, 53), (42, 49, 42), (73, 70, 56)),
        grass=((106, 114, 88), (90, 100, 76), (124, 122, 100), (112, 104, 86)),
        bare=((132, 124, 112), (112, 106, 98), (150, 142, 128)),
        water=((104, 116, 122), (80, 92, 94), (120, 128, 130), (66, 80, 80), (92, 102, 94)),
        asphalt=((104, 106, 110), (124, 124, 124), (88, 88, 92)),
        roof=((124, 92, 82), (110, 112, 116), (152, 152, 152), (92, 92, 96), (176, 174, 170)),
        conifers=True,
        crown_m=3.9,
        shapes=_TRAIN_SHAPES,
        sun_deg=(40, 60),
        shadow=(0.12, 0.3),
    ),
    "spring": Style(
        field=((92, 138, 60), (124, 156, 72), (198, 186, 70), (122, 96, 74), (146, 124, 98), (108, 132, 84)),
        forest=((58, 78, 42), (70, 92, 48), (48, 66, 40), (84, 96, 58)),
        grass=((104, 134, 66), (118, 142, 82), (92, 118, 62), (138, 144, 94)),
        bare=((140, 116, 92), (120, 100, 82), (160, 142, 118)),
        water=((50, 78, 84), (66, 92, 100), (88, 96, 78), (36, 50, 56), (104, 116, 108)),
        asphalt=((100, 100, 102), (84, 84, 88), (130, 126, 122)),
        roof=((154, 92, 70), (122, 118, 116), (182, 178, 174), (86, 82, 84), (140, 116, 96), (96, 110, 128)),
        conifers=False,
        crown_m=4.2,
        shapes=_TRAIN_SHAPES,
        sun_deg=(40, 60),
        shadow=(0.4, 0.6),
    ),
    "mediterranean": Style(
        field=((148, 126, 90), (172, 148, 112), (112, 118, 74), (92, 104, 66), (184, 166, 128), (136, 100, 78)),
        forest=((62, 72, 46), (74, 84, 58), (50, 60, 40), (86, 92, 66)),
        grass=((150, 142, 100), (126, 128, 84), (168, 154, 116), (110, 116, 76)),
        bare=((190, 172, 142), (168, 138, 108), (206, 192, 168), (150, 124, 100)),
        water=((40, 88, 104), (58, 112, 118), (30, 60, 80), (84, 118, 112), (72, 88, 84)),
        asphalt=((116, 114, 110), (140, 134, 126), (94, 92, 92)),
        roof=((176, 102, 74), (160, 90, 64), (196, 134, 98), (206, 200, 190), (132, 124, 116)),
        conifers=False,
        crown_m=3.3,
        shapes=_TRAIN_SHAPES,
        sun_deg=(42, 70),
        shadow=(0.5, 0.7),
    ),
    "highland": Style(
        field=((88, 84, 72), (106, 110, 78), (72, 66, 60), (122, 116, 92), (94, 100, 66)),
        forest=((38, 48, 40), (52, 58, 44), (64, 62, 50), (46, 44, 38)),
        grass=((98, 98, 70), (110, 96, 78), (84, 88, 62), (120, 114, 86)),
        bare=((84, 80, 78), (102, 96, 92), (70, 64, 62), (118, 108, 98)),
        water=((34, 44, 52), (26, 32, 36), (56, 68, 74), (80, 92, 96), (48, 60, 56)),
        asphalt=((76, 76, 80), (94, 94, 96), (112, 110, 108)),
        roof=((98, 100, 104), (74, 74, 78), (130, 126, 122), (116, 72, 60), (160, 158, 156)),
        conifers=True,
        crown_m=3.4,
        shapes=_TRAIN_SHAPES,
        sun_deg=(28, 50),
        shadow=(0.4, 0.65),
    ),
}

_MIXES = 24
_MIX_SEED = 7


def _mixed(rng: np.random.Generator, styles: tuple[Style, ...]) -> Style:
    """A look whose palettes come from several styles, each palette turned in hue and light."""

    def palette(name: str) -> tuple[Colour, ...]:
        chosen: tuple[Colour, ...] = getattr(styles[int(rng.integers(len(styles)))], name)
        gain = np.exp(rng.normal(0, 0.10)) * (1 + rng.normal(0, 0.06, 3))
        shifted = np.clip(np.array(chosen) * gain, 8, 245).astype(int)
        return tuple((int(red), int(green), int(blue)) for red, green, blue in shifted)

    colours: dict[str, Any] = {
        name: palette(name) for name in ("field", "forest", "grass", "bare", "water", "asphalt", "roof")
    }
    return replace(
        styles[int(rng.integers(len(styles)))],
        **colours,
        conifers=bool(rng.random() < 0.5),
        crown_m=float(rng.uniform(2.9, 5.2)),
    )


def _mixes() -> dict[str, Style]:
    rng = np.random.default_rng(_MIX_SEED)
    return {f"mix {number}": _mixed(rng, tuple(_PAINTED.values())) for number in range(_MIXES)}


TRAIN_STYLES = _PAINTED | _mixes()
"""Looks that the embedded model may learn from."""

_OTHER_SHAPES = Shapes(
    ships=("tanker", "barge"),
    planes=("heavy", "business"),
    tanks=("dome", "ringed"),
    roofs=("gable", "shed", "flat"),
    hall_roofs=("flat", "ribbed"),
)

HELD_OUT_STYLES: dict[str, Style] = {
    "tropic": Style(
        field=((86, 128, 58), (118, 152, 70), (142, 88, 58), (104, 74, 54), (70, 108, 64), (160, 156, 104)),
        forest=((29, 61, 31), (46, 78, 36), (61, 88, 49), (36, 53, 29)),
        grass=((98, 130, 62), (120, 140, 78), (80, 112, 56), (140, 134, 84)),
        bare=((168, 106, 72), (148, 88, 60), (186, 140, 104)),
        water=((116, 102, 80), (60, 100, 88), (48, 120, 130), (70, 92, 80), (36, 54, 54)),
        asphalt=((112, 106, 102), (90, 86, 86), (150, 120, 98)),
        roof=((150, 70, 54), (188, 186, 184), (112, 118, 122), (92, 120, 148), (164, 130, 104)),
        conifers=False,
        crown_m=5.1,
        shapes=_OTHER_SHAPES,
        sun_deg=(50, 75),
        shadow=(0.45, 0.65),
    ),
    "late winter": Style(
        field=((128, 118, 98), (110, 100, 88), (144, 138, 112), (96, 108, 82), (86, 78, 70)),
        forest=((82, 75, 68), (70, 66, 60), (92, 83, 73), (54, 58, 51)),
        grass=((130, 124, 98), (112, 112, 88), (142, 134, 112), (104, 98, 82)),
        bare=((124, 116, 108), (106, 98, 92), (142, 134, 126)),
        water=((72, 82, 88), (50, 58, 62), (88, 96, 96), (40, 48, 54), (108, 116, 118)),
        asphalt=((98, 98, 100), (118, 116, 114), (82, 82, 86)),
        roof=((108, 76, 68), (128, 126, 124), (88, 86, 86), (156, 152, 148), (80, 92, 104)),
        conifers=False,
        crown_m=3.7,
        shapes=_OTHER_SHAPES,
        sun_deg=(25, 38),
        shadow=(0.45, 0.7),
    ),
    "steppe": Style(
        field=((164, 148, 104), (120, 112, 76), (142, 118, 86), (186, 170, 124), (94, 96, 64)),
        forest=((60, 70, 48), (75, 78, 56), (48, 60, 46), (88, 85, 61)),
        grass=((152, 144, 104), (132, 130, 94), (168, 154, 116), (118, 116, 84)),
        bare=((176, 160, 132), (156, 136, 110), (192, 180, 154)),
        water=((70, 96, 108), (92, 108, 106), (44, 58, 62), (108, 118, 112), (78, 84, 76)),
        asphalt=((128, 124, 118), (106, 104, 102), (86, 86, 88)),
        roof=((176, 172, 166), (132, 88, 70), (104, 128, 120), (120, 116, 112), (92, 82, 78)),
        conifers=True,
        crown_m=3.7,
        shapes=_OTHER_SHAPES,
        sun_deg=(30, 55),
        shadow=(0.45, 0.65),
    ),
}
"""Looks that no training may see: other palettes, other shapes of ship, plane, tank and roof."""


def varied(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float = 0.09) -> Floats:
    """(3,) one anchor of a palette, its brightness and its hue varied."""
    anchor = np.array(palette[int(rng.integers(len(palette)))], np.float32)
    light = np.exp(rng.normal(0, spread))
    hue = 1 + rng.normal(0, spread / 3, 3)
    colour: Floats = np.clip(anchor * light * hue, 4, 250).astype(np.float32)
    return colour
