"""The answers to one question as a picture, for an e-mail or a slide."""

from __future__ import annotations

import warnings
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageChops

from rsqa.errors import UsageError
from rsqa.report.answers import TABLE_STATUSES, Answers
from rsqa.report.build import OPEN_COLOUR, Report, hex_colour, title
from rsqa.sinks.colours import NONE, RGB, option_colours
from rsqa.sinks.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN = (9.0, 7.0)
DPI = 130
MAP_PX = 1100
"""Longer side of the map."""
PAPER = (233, 231, 226, 255)
LISTED = 12
"""Answers that the legend names, the most frequent."""
OPACITY = 0.6
QUIET = 0.3
"""Opacity of an answer that says that nothing is there."""


def draw_map(path: Path, report: Report, question_id: str | None) -> None:
    """Draw a PNG: the picture, the answers over it, unknown ones hatched, how often each was given.

    question_id: None is the first. UsageError when it was not asked or nothing was; OutputError when `path` can't be
    written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    answers = _chosen(report, question_id)
    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    codes = _outcomes(answers)
    axes.imshow(np.asarray(_compose(report, answers, codes)), interpolation="antialiased")
    axes.set_axis_off()
    _legend(axes, codes, answers)
    # Words of a stranger: a pair of dollar signs would else be read as mathematics.
    axes.set_title(answers.question.text, fontsize=13, loc="left", wrap=True, parse_math=False)
    about = f"{title(report.plan)} · {len(codes):,} tiles · {report.plan.model.name}"
    figure.supxlabel(about, fontsize=8, color="#5c646d", x=0.01, ha="left", parse_math=False)

    def write(file: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # of scripts that the font does not have
            FigureCanvasAgg(figure).print_png(str(file))  # type: ignore[no-untyped-call]

    write_whole(path, write)


def _chosen(report: Report, question_id: str | None) -> Answers:
    known = {answers.question.id: answers for answers in report.answers}
    if not known:
        raise UsageError("there are no answers to draw a map of")
    if question_id is None:
        return report.answers[0]
    if question_id not in known:
        raise UsageError(f"no question {question_id!r} in this output; choose of {', '.join(known)}")
    return known[question_id]


def _outcomes(answers: Answers) -> NDArray[np.int64]:
    """(T,) number of the option, 0 for what was said in words, -1 - status where there is no answer."""
    known = answers.status == TABLE_STATUSES.index("ok")
    value = answers.value.astype(np.int64) if answers.question.closed else np.zeros(len(known), np.int64)
    return np.where(known, value, -1 - answers.status.astype(np.int64))


def _colours(answers: Answers) -> tuple[RGB, ...]:
    return option_colours(answers.question) if answers.question.closed else (OPEN_COLOUR,)


def _compose(report: Report, answers: Answers, codes: NDArray[np.int64]) -> Image.Image:
    """-> the map: pictures, answers over them, hatching where there is none."""
    view, size = _view(report)
    canvas, hatching = Image.new("RGBA", size, PAPER), _hatching(size)
    palette = np.array([(*colour, 255 * (QUIET if colour == NONE else OPACITY)) for colour in _colours(answers)])
    first = 0
    for number, planned in enumerate(report.plan.first_pass):
        place, grid, look = view @ report.layout.transforms[number], planned.grid, report.looks[number]
        cells = codes[first : first + len(grid)].reshape(grid.shape)
        first += len(grid)
        painted = np.zeros((*cells.shape, 4), np.uint8)
        painted[cells >= 0] = palette[cells[cells >= 0]].astype(np.uint8)
        outline = _laid(Image.new("L", (1, 1), 255), place @ Affine.scale(grid.width, grid.height), size)
        if look is not None:
            less = max(1, int(1 / (look.step * sqrt(abs(place.determinant)))))  # the nearest of many would be grainy
            picture = Image.fromarray(look.pixels).reduce(less)
            canvas.alpha_composite(_laid(picture, place @ Affine.scale(look.step * less), size))
        onto = place @ Affine.scale(planned.tile_px)
        colours = _laid(Image.fromarray(painted), onto, size)
        unknown = _laid(Image.fromarray(np.where(cells < 0, 255, 0).astype(np.uint8)), onto, size)
        nothing = Image.new("RGBA", size)
        canvas.alpha_composite(Image.composite(colours, nothing, outline))  # the last tiles reach beyond it
        canvas.alpha_composite(Image.composite(hatching, nothing, ImageChops.multiply(unknown, outline)))
    return canvas


def _view(report: Report) -> tuple[Affine, tuple[int, int]]:
    """-> (map -> pixels of the picture, its width and height)."""
    corners = np.array(
        [
            transform @ (col, row)
            for planned, transform in zip(report.plan.first_pass, report.layout.transforms, strict=True)
            for col in (0, planned.source.width)
            for row in (0, planned.source.height)
        ]
    )
    (west, south), (east, north) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    scale = MAP_PX / max(east - west, north - south)
    size = max(1, round((east - west) * scale)), max(1, round((north - south) * scale))
    return Affine.scale(scale, -scale) @ Affine.translation(-west, -north), size


def _laid(image: Image.Image, place: Affine, size: tuple[int, int]) -> Image.Image:
    """The image where `place` puts its pixels, nothing around it."""
    back = ~place  # Pillow asks where each pixel comes from
    return image.transform(size, Image.Transform.AFFINE, tuple(back)[:6], Image.Resampling.NEAREST)


def _hatching(size: tuple[int, int]) -> Image.Image:
    """Diagonal lines, dark beside light, seen on any ground."""
    cols, rows = np.arange(size[0]), np.arange(size[1])[:, None]
    phase = (cols + rows) % 12
    lines = np.zeros((size[1], size[0], 4), np.uint8)
    lines[phase < 2] = (32, 36, 42, 230)
    lines[(phase >= 2) & (phase < 4)] = (255, 255, 255, 230)
    return Image.fromarray(lines)


def _legend(axes: Axes, codes: NDArray[np.int64], answers: Answers) -> None:
    """How often each answer was given, then what is unknown."""
    from matplotlib.patches import Patch

    found = Counter(codes.tolist())
    options, colours = answers.question.options or ("answered in words",), _colours(answers)
    given = sorted((code for code in found if code >= 0), key=lambda code: -found[code])
    entries = [
        Patch(facecolor=hex_colour(colours[code]), edgecolor="#5c646d", label=f"{options[code]}  {found[code]:,}")
        for code in given[:LISTED]
    ]
    if rest := sum(found[code] for code in given[LISTED:]):
        entries.append(Patch(facecolor="none", label=f"other answers  {rest:,}"))
    for code in sorted(code for code in found if code < 0):
        name = TABLE_STATUSES[-1 - code].replace("_", " ") if -1 - code < len(TABLE_STATUSES) else "not asked"
        entries.append(Patch(facecolor="white", edgecolor="#20242a", hatch="////", label=f"{name}  {found[code]:,}"))
    legend = axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
