"""Which bands of a raster become red, green and blue, or grey, and which one tells of clouds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rsqa.errors import UsageError

_NAMES = {"red": "b04", "green": "b03", "blue": "b02", "nir": "b08", "rededge": "b05"}
"""Colour -> Sentinel-2 band name. Names of other sensors mean other colours from mission to mission."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What --mask-band and --mask-values said: pixels whose mask band has one of the values are not valid."""

    band: str
    values: tuple[int, ...]


def asked_mask(band: str | None, values: str | None) -> Masked | None:
    """The words of both options; None without them. UsageError when they make no sense."""
    if band is None and values is None:
        return None
    if not band or not values:
        raise UsageError("--mask-band and --mask-values go together, as --mask-band SCL --mask-values 3,8,9,10")
    try:
        return Masked(band, tuple(sorted({int(value) for value in values.split(",")})))
    except ValueError:
        raise UsageError(f"--mask-values takes whole numbers, for example 3,8,9,10, got {values!r}") from None


def choose_bands(
    colours: Sequence[str],
    descriptions: Sequence[str | None],
    wanted: tuple[str, ...] | None,
    mask_band: int | None = None,
) -> tuple[int, ...]:
    """1-based indices of the bands to read: one (grey) or three (red, green, blue).

    colours: colour interpretation of each band; descriptions: band names, None where a band has none;
    wanted: numbers or names from --bands; mask_band: shown only when it is wanted. ValueError says what is missing.
    """
    if wanted is not None:
        if len(wanted) not in (1, 3):
            raise ValueError(f"--bands takes 1 or 3 bands, got {len(wanted)}")
        return tuple(named_band("--bands", word, colours, descriptions) for word in wanted)
    usable = [i for i, colour in enumerate(colours, start=1) if colour != "alpha" and i != mask_band]
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


def named_band(option: str, word: str, colours: Sequence[str], descriptions: Sequence[str | None]) -> int:
    """1-based index of the band that a word of an option means: a number, a colour or the band's name."""
    name = word.strip().lower()
    if name.isdecimal():
        if not 1 <= int(name) <= len(colours):
            raise ValueError(f"{option} asks for band {name}, it has {len(colours)}")
        return int(name)
    band = (_colour_band(name, colours, descriptions) or _coded_band(name, descriptions)) if name else None
    if band is None:
        has = ", ".join(f"{i} {band_name(i, colours, descriptions)}" for i in range(1, len(colours) + 1))
        raise ValueError(f"{option} asks for {word.strip()!r}, it has {has}; give numbers")
    return band


def _colour_band(colour: str, colours: Sequence[str], descriptions: Sequence[str | None]) -> int | None:
    """By colour interpretation first, then by the band's name."""
    if colours.count(colour) == 1:
        return colours.index(colour) + 1
    names = [(text or "").strip().lower() for text in descriptions]
    for name in (colour, _NAMES.get(colour)):
        if name in names:
            return names.index(name) + 1
    return None


def _coded_band(name: str, descriptions: Sequence[str | None]) -> int | None:
    """The only band with the same code: B04, B4 and "B4, central wavelength 665 nm" (as GDAL calls it) have one."""
    codes = [_code(text or "") for text in descriptions]
    code = _code(name)
    return codes.index(code) + 1 if code and codes.count(code) == 1 else None


def _code(name: str) -> str | None:
    found = re.match(r"b0*(\d{1,2}a?)\b", name.strip().lower())
    return found and found[1]
