"""A chart of a benchmark: one panel per case, one bar per side, the ceiling as a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsqa.bench.report import AGAIN
from rsqa.bench.sides import OURS


def draw(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """A bar per side, a panel per case; the ceiling is a line."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(_panel(row) for row in rows))
    groups = [[row for row in rows if _panel(row) == case] for case in cases]
    heights = [0.34 * len(group) + 0.75 for group in groups]
    figure = Figure(figsize=(8.5, sum(heights) + 0.5), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, case, group in zip(panels, cases, groups, strict=True):
        _draw_case(axes, case, group)
    panels[-1].set_xlabel("answers per second, median of the rounds (line: slowest to fastest)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(path, dpi=150)


def _panel(row: dict[str, Any]) -> str:
    return f"{row['tile_px']} px, {row['n_questions']} questions, {row['answer']}"


def _draw_case(axes: Any, case: str, rows: Sequence[dict[str, Any]]) -> None:
    rates = [row.get("answers_per_s") or 0.0 for row in rows]
    whole = [row for row in rows if row["side"] != AGAIN]  # the line is not for those that need not see
    limits = [row["answers_per_s"] / row["share_of_ceiling"] for row in whole if row.get("share_of_ceiling")]
    colours = ["#c8502a" if row["side"] in OURS else "#8a949e" for row in rows]
    fastest = [row.get("answers_per_s_fastest", 0.0) for row in rows]
    right = max([*fastest, *limits[:1]]) or 1.0
    axes.barh(range(len(rows)), rates, color=colours, height=0.7)
    for y, row in enumerate(rows):
        if row["state"] == "ok":
            axes.plot([row["answers_per_s_slowest"], fastest[y]], [y, y], color="black", linewidth=1)
        words = f"{rates[y]:,.3g}" if row["state"] == "ok" else row["state"]
        axes.text(fastest[y] + 0.01 * right, y, words, va="center", fontsize=8)
    if limits:
        axes.axvline(limits[0], color="black", linestyle="--", linewidth=1)
        axes.text(limits[0] - 0.01 * right, -0.62, f"ceiling {limits[0]:,.3g}", va="bottom", ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{row['title']} ({row['side']})" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -1.1)
    axes.set_xlim(0, right * 1.08)
    axes.tick_params(labelsize=8)
    axes.set_title(case, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
