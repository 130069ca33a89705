"""A picture of a run: loss, hints and held-back shares over steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_LINES = 14
"""Of held-back shares in one picture."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, the last word on each step: a resumed run writes some steps again."""
    seen: dict[tuple[int, bool], dict[str, Any]] = {}
    for text in path.read_bytes().splitlines():  # as text it would be cut at U+2028 too, which samples may hold
        line = json.loads(text)
        seen[line["step"], "validation" in line] = line
    return [seen[key] for key in sorted(seen)]


def draw_curves(log: Path, out: Path) -> None:
    """Two plots beside each other: loss on the left, held-back shares on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    told = [line for line in lines if "validation" not in line]
    for key in ("loss", "hint", "reward"):
        points = [(line["step"], line[key]) for line in told if key in line]
        if points and any(value for _, value in points):
            losses.plot(*zip(*points, strict=True), label=key)
    held = [line for line in lines if "validation" in line]
    for key in sorted({key for line in held for key in line["validation"]})[:MOST_LINES]:
        points = [(line["step"], line["validation"][key]) for line in held if key in line["validation"]]
        shares.plot(*zip(*points, strict=True), marker=".", label=key)
    losses.set(xlabel="step", title="training")
    shares.set(xlabel="step", title="held back")
    for axes in (losses, shares):
        if axes.lines:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    part = out.with_name(f".{out.name}.part")
    FigureCanvasAgg(figure).print_png(str(part))  # type: ignore[no-untyped-call]
    part.replace(out)
