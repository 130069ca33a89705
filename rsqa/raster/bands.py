"""Which bands of a raster become red, green and blue, or grey."""

from __future__ import annotations

from collections.abc import Sequence

_NAMES = {"red": "b04", "green": "b03", "blue": "b02", "nir": "b08", "rededge": "b05"}
"""Colour -> Sentinel-2 band name. Names of other sensors mean other colours from mission to mission."""


def choose_bands(
    colours: Sequence[str], descriptions: Sequence[str | None], wanted: tuple[str, ...] | None
) -> tuple[int, ...]:
    """1-based indices of the bands to read: one (grey) or three (red, green, blue).

    colours: colour interpretation of each band; descriptions: band names, None where a band has none;
    wanted: numbers or colour names from --bands. ValueError says what is missing.
    """
    if wanted is not None:
        if len(wanted) not in (1, 3):
            raise ValueError(f"--bands takes 1 or 3 bands, got {len(wanted)}")
        return tuple(_wanted_band(word, colours, descriptions) for word in wanted)
    usable = [i for i, colour in enumerate(colours, start=1) if colour != "alpha"]
    if len(usable) == 1:
        return (usable[0],)
    if len(usable) == 2:
        raise ValueError("it has 2 bands, neither grey nor colour; choose with --bands, for example --bands 1")
    if "cyan" in colours:
        raise ValueError("its bands are cyan, magenta, yellow and black; convert it to RGB first")
    named = [_colour_band(colour, colours, descriptions) for colour in ("red", "green", "blue")]
    found = tuple(band for band in named if band is not None)
    return found if len(found) == 3 else tuple(usable[:3])


def band_name(band: int, colours: Sequence[str], descriptions: Sequence[str | None]) -> str:
    """What a band is called in messages and in the plan."""
    colour = colours[band - 1]
    return descriptions[band - 1] or (colour if colour not in ("undefined", "gray", "palette") else f"band {band}")


def _colour_band(colour: str, colours: Sequence[str], descriptions: Sequence[str | None]) -> int | None:
    """By colour interpretation first, then by the band's name."""
    if colours.count(colour) == 1:
        return colours.index(colour) + 1
    names = [(text or "").strip().lower() for text in descriptions]
    for name in (colour, _NAMES.get(colour)):
        if name in names:
            return names.index(name) + 1
    return None


def _wanted_band(word: str, colours: Sequence[str], descriptions: Sequence[str | None]) -> int:
    word = word.strip().lower()
    if word.isdecimal():
        if not 1 <= int(word) <= len(colours):
            raise ValueError(f"--bands asks for band {word}, it has {len(colours)}")
        return int(word)
    band = _colour_band(word, colours, descriptions) if word else None
    if band is None:
        has = ", ".join(f"{i} {band_name(i, colours, descriptions)}" for i in range(1, len(colours) + 1))
        raise ValueError(f"--bands asks for {word!r}, it has {has}; give numbers")
    return band
