"""The reliability diagram: accuracy over confidence, ten parts of equal size, one line per kind of question."""

from __future__ import annotations

from pathlib import Path

from rsqa.evaluate.report import Report


def draw(report: Report, path: Path) -> None:
    """Write a PNG. On the diagonal the confidence is honest, below it the model boasts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#8a949e", linestyle="--", linewidth=1)
    for line in report.calibration:
        _, confidence, accuracy = zip(*line.bins, strict=True)
        axes.plot(
            confidence, accuracy, marker="o", markersize=4, label=f"{line.kind}, error {line.after:.3f}, n {line.n:,}"
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"{report.provenance.model} on {report.benchmark}", loc="left", fontsize=10)
    if report.calibration:
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no answer has a confidence", ha="center", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, format="png")
