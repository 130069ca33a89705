"""One page about what changed: a map and a list, as HTML that needs no network, or the map as PNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsqa.errors import UsageError
from rsqa.monitor.changes import CHANGES, read_changes, what
from rsqa.monitor.dataset import ledger
from rsqa.monitor.watch import Watch
from rsqa.raster.anchored import Tiles
from rsqa.sinks.whole import write_whole_bytes

MOST_ROWS = 500
"""Changes that are listed, latest first."""
_SIDE = 640
"""Of the map's longer side, pixels of the page."""
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25rem .6rem }
tr:nth-child(even) { background: #f4f4f2 } svg { background: #eceae4; max-width: 100% } .n { text-align: right }
"""


def write_report(watch: Watch, path: Path, since: datetime | None) -> int:
    """Write the page, or for a name that ends in .png the map; -> changes in it. OutputError as `write_whole`."""
    table, basis = read_changes(watch.out / CHANGES)
    if not basis:
        raise UsageError(f"there are no changes in {str(watch.out)!r} yet; rsqa monitor run finds them")
    if since is not None:
        table = table.filter(pc.greater_equal(table["confirmed"], pa.scalar(since, table["confirmed"].type)))
    rows = table.to_pylist()
    moments = sorted({observation.acquired for file in ledger(watch.out) for observation in file.observations})
    if path.suffix.lower() == ".png":
        write_whole_bytes(path, _picture(watch.file.stem, rows))
    else:
        write_whole_bytes(path, _page(watch, rows, moments).encode())
    return len(rows)


def _counts(rows: Sequence[dict[str, Any]]) -> tuple[Counter[tuple[int, int]], Tiles]:
    """Changes of each tile, and the rectangle that they lie in."""
    counts = Counter((row["tile_row"], row["tile_col"]) for row in rows)
    whole = Tiles(0, 1, 0, 1) if not counts else Tiles(0, 0, 0, 0)
    for row, col in counts:
        whole |= Tiles(row, row + 1, col, col + 1)
    return counts, whole


def _page(watch: Watch, rows: Sequence[dict[str, Any]], moments: Sequence[datetime]) -> str:
    span = f"{moments[0]:%Y-%m-%d} to {moments[-1]:%Y-%m-%d}" if moments else "nothing yet"
    listed = "".join(
        f"<tr><td>{row['confirmed'].astimezone(UTC):%Y-%m-%d %H:%M}<td>{escape(row['tile_id'])}"
        f"<td title='{escape(row['question'], quote=True)}'>{escape(row['question_id'])}"
        f"<td>{escape(what(row).replace('->', '→'))}"
        f"<td class=n>{row['probability_before']:.2f} → {row['probability_after']:.2f}<td>{escape(row['source'])}"
        for row in reversed(rows[-MOST_ROWS:])
    )
    title = escape(watch.file.stem)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}: what changed</title><style>{_STYLE}</style><h1>{title}: what changed</h1>"
        f"<p>{len(moments):,} acquisitions, {span}. {len(rows):,} changes; times are UTC.</p>{_map(rows)}"
        "<table><tr><th>confirmed<th>tile<th>question<th>what<th class=n>its probability<th>source"
        f"{listed}</table></html>\n"
    )


def _map(rows: Sequence[dict[str, Any]]) -> str:
    """The tiles that changed, darker for more changes; north is up."""
    counts, whole = _counts(rows)
    height, width = whole.row1 - whole.row0, whole.col1 - whole.col0
    scale = _SIDE / max(height, width)
    most = max(counts.values(), default=1)
    cells = "".join(
        f"<rect x={col - whole.col0} y={row - whole.row0} width=1 height=1 fill='#b3261e' "
        f"fill-opacity={0.35 + 0.65 * n / most:.2f}><title>{row}/{col}: {n}</title></rect>"
        for (row, col), n in sorted(counts.items())
    )
    return (
        f"<svg width={width * scale:.0f} height={height * scale:.0f} viewBox='0 0 {width} {height}' "
        f"role=img aria-label='tiles that changed'>{cells}</svg>"
    )


def _picture(title: str, rows: Sequence[dict[str, Any]]) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts, whole = _counts(rows)
    cells = np.full((whole.row1 - whole.row0, whole.col1 - whole.col0), np.nan)
    for (row, col), n in counts.items():
        cells[row - whole.row0, col - whole.col0] = n
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    extent = (whole.col0 - 0.5, whole.col1 - 0.5, whole.row1 - 0.5, whole.row0 - 0.5)
    shown = axes.imshow(cells, cmap="Reds", vmin=0, extent=extent)
    axes.set(title=f"{title}: {len(rows):,} changes", xlabel="tile column", ylabel="tile row")
    figure.colorbar(shown, label="changes")
    made = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(made, format="png")
    return made.getvalue()
