"""The sources of a plan, as those need them who draw or write cells for tiles."""

from __future__ import annotations

from rsqa.run.plan import PlannedSource
from rsqa.sinks.tiling import TiledSource


def tiled(planned: PlannedSource) -> TiledSource:
    """-> the source and its grid of tiles."""
    source = planned.source
    return TiledSource(
        name=source.name,
        crs_wkt=source.crs_wkt,
        transform=source.transform,
        width=source.width,
        height=source.height,
        tile_px=planned.tile_px,
        acquired=source.acquired,
    )
