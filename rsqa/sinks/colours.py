"""The colours of answers, the same in the report, in maps and in rasters; told apart by the colour-blind too."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from math import log1p

from rsqa.tasks.question import YES_NO, Question

RGB = tuple[int, int, int]

YES: RGB = (0, 114, 178)
NONE: RGB = (232, 223, 200)
"""Of "no" and of the count 0: there, but quiet. Unknown has no colour at all: it is hatched, or left out."""

CHOICES: tuple[RGB, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167),
    (86, 180, 233), (213, 94, 0), (240, 228, 66), (120, 120, 120),
)  # fmt: skip
"""Of Okabe and Ito, Color Universal Design, 2008; grey for their black, which pictures hide."""
OBJECTS: tuple[RGB, ...] = tuple(CHOICES[number] for number in (5, 6, 3, 2, 1, 4, 0, 7))
"""Of outlines, so that the first ones are not the colour of a "yes" below them."""
SHADES = (1.0, 0.62, 1.35)
"""Longer lists go through the colours again, darker and then lighter …"""
GOLDEN = 0.618034
"""… and then around the wheel of colours by this part of a turn: neighbours in the list look different."""

RAMP: tuple[RGB, ...] = ((253, 217, 118), (253, 141, 60), (227, 26, 28), (128, 0, 38))
"""Of counts from 1 on, few to many: lightness falls all the way."""


def option_colours(question: Question) -> tuple[RGB, ...]:
    """-> a colour for each option, in their order."""
    if question.options == YES_NO:
        return YES, NONE
    if question.kind == "count":
        last = len(question.options) - 1
        # Most counts are small: by the logarithm, 1 and 5 differ as 20 and 100 do.
        return NONE, *(_ramp(log1p(i - 1) / log1p(max(last - 1, 1))) for i in range(1, last + 1))
    return choice_colours(len(question.options))


def choice_colours(n: int) -> tuple[RGB, ...]:
    """-> colours of `n` labels."""
    return tuple(_choice(code) for code in range(n))


def _ramp(share: float) -> RGB:
    """0 to 1 -> a colour of the ramp."""
    at = min(share * (len(RAMP) - 1), len(RAMP) - 1 - 1e-9)
    low, part = RAMP[int(at)], at - int(at)
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(low, RAMP[int(at) + 1], strict=True))
    return red, green, blue


def _choice(code: int) -> RGB:
    if code < len(CHOICES) * len(SHADES):
        shade = SHADES[code // len(CHOICES)]
        red, green, blue = (min(255, round(part * shade)) for part in CHOICES[code % len(CHOICES)])
    else:
        turned = hsv_to_rgb(code * GOLDEN % 1, 0.75 - 0.25 * (code % 3), 0.95 - 0.2 * (code % 2))
        red, green, blue = (round(255 * part) for part in turned)
    return red, green, blue
