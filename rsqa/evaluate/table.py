"""A report as a table of fixed width."""

from __future__ import annotations

from collections.abc import Iterator

from rsqa.evaluate.report import Line, Report

NONE = "–"
NAMED = 3
"""Things left out that are named; the report has them all."""


def as_text(report: Report) -> str:
    """All lines of a report."""
    return "\n".join(_all(report))


def _all(report: Report) -> Iterator[str]:
    told = report.provenance
    asked = f"{report.n_items:,} items, {report.n_pictures:,} pictures"
    yield f"{told.model} on {report.benchmark}: {asked}; {told.decoding}"
    yield from _scores(report)
    for line in report.lines:
        if line.by_question:
            yield f"{line.name}: " + ", ".join(f"{text} {score:.2f}" for text, score in line.by_question)
    for boxes in report.boxes:
        sizes = ", ".join(f"{level} {_share(share)} of {n:,}" for level, (n, share) in boxes.sizes.items())
        yield (
            f"{boxes.name}: at IoU 0.5 {boxes.at_50:.3f}, at 0.7 {boxes.at_70:.3f}, mean IoU {boxes.mean_iou:.3f} "
            f"of {boxes.n:,}; {sizes}"
        )
    if report.detection:
        rows = ", ".join(f"{label} {_share(ap)} of {n:,}" for label, n, ap in report.detection.by_class)
        yield f"average precision at IoU 0.5: mean {_share(report.detection.mean)}; {rows}"
    for c in report.calibration:
        yield (
            f"calibration error, {c.kind}: {c.before:.3f} before, {c.after:.3f} with temperature {c.temperature:g} "
            f"(n {c.n:,})"
        )
    yield "answers: " + ", ".join(f"{status} {n:,}" for status, n in sorted(report.statuses.items()))
    for reason, names in report.left_out.items():
        more = ", …" if len(names) > NAMED else ""
        yield f"left out, {reason}: {len(names):,} ({', '.join(names[:NAMED])}{more})"
    yield from report.notes


def _scores(report: Report) -> Iterator[str]:
    width = max(len(line.name) for line in report.lines) + 2 if report.lines else 0
    probe = any(line.probe is not None for line in report.lines)
    published = any(line.published is not None for line in report.lines)
    bars = any(line.bar is not None for line in report.lines)
    heads = [f"{'':{width}}{'n':>8}{'score':>8}{'95 % interval':>16}{'constant':>10}{'question':>10}{'no image':>10}"]
    heads += [head for head, wanted in ((f"{'colours':>9}", probe), (f"{'published':>11}", published)) if wanted]
    yield "".join(heads) + ("    bar" if bars else "")
    for line in report.lines:
        cells = [
            f"{line.name:{width}}{line.n:>8,}{line.score:>8.3f}{f'{line.low:.3f}-{line.high:.3f}':>16}",
            f"{_share(line.constant):>10}{_share(line.question_text):>10}{_share(line.no_image):>10}",
            f"{_share(line.probe):>9}" if probe else "",
            f"{_share(line.published):>11}" if published else "",
            f"{_bar(line):>9}" if bars else "",
            "" if line.measure == "accuracy" else f"  {line.measure}",
        ]
        yield "".join(cells).rstrip()
    fits = sorted({line.fitted_on for line in report.lines})
    yield f"constant and question (text alone): fitted on {' or '.join(fits)}" + (
        "; where on test, question on other pictures than it is asked about" if "test" in fits else ""
    )


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _bar(line: Line) -> str:
    return "" if line.bar is None else f"{line.bar:.2f}{'' if line.met else ' !'}"
