"""The options that classify, caption and detect share, all of them given, and the request that they make."""

from __future__ import annotations

from pathlib import Path

LINE = (
    "--out o --bands 4,3,2 --tile-px 224 --gsd 0.5 --scale 0,10 --min-valid 0.25 --model tinyrs --adapter g "
    "--card c.json --batch-size 3 --workers 2 --device cuda:1 --dtype bfloat16 --overwrite --retry-errors "
    "--max-duration 1h30m --allow-mixed --part-tiles 9 --quiet --asset visual --mosaic --aoi a.gpkg --mask-band SCL "
    "--mask-values 3,8"
)
GIVEN = {
    "out": "o", "bands": "4,3,2", "tile_px": 224, "gsd_m": 0.5, "scale": "0,10", "min_valid": 0.25,
    "model": "tinyrs", "adapter": Path("g"), "card": "c.json", "batch_size": 3, "workers": 2, "device": "cuda:1",
    "dtype": "bfloat16", "overwrite": True, "retry_errors": True, "max_duration_s": 5400.0, "allow_mixed": True,
    "part_tiles": 9, "asset": "visual", "mosaic": True, "aoi": Path("a.gpkg"), "mask_band": "SCL", "mask_values": "3,8",
    "questions": (), "include": (), "exclude": (), "scheduler": None, "reasoning": None, "cache_features": None,
    "evidence": False, "overlap_px": 0, "pyramid": False,
}  # fmt: skip


def given(request) -> dict:
    """Every field of a request."""
    return {name: getattr(request, name) for name in type(request).__dataclass_fields__}
