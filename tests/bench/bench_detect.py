"""How well a model finds objects.

    python tests/bench/bench_detect.py [SCENES [PICTURES [TILE_PX [OVERLAP_PX [MODEL]]]]]

`rsqa detect` over procedural scenes of held-out styles, and over validation pictures of NWPU VHR-10 where
RSQA_TEST_DATA names the folder that has them, both cut in tiles that overlap. Prints for each class the average
precision at an IoU of 0.5, boxes ranked by their score, against boxes of the same number and sizes put anywhere (the
mean of many draws), and as the last line one JSON object.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

from rsqa.evaluate.detection import Found, average_precision
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import OBJECTS
from rsqa.tasks.boxes import Box
from rsqa.tasks.task import Detect
from rsqa.train.parts import part_of
from rsqa.train.set_files import VHR10

GSD_M = 0.5
FIRST_SEED = 1001
LEAST_SHOWN = 0.25
"""Share of a thing inside the scene from which it counts."""
THRESHOLD = 0.3
"""Lower than what people want to see: precision at low scores is part of the figure."""
DRAWS = 20
PLACE = from_origin(5e5, 5e6, GSD_M, GSD_M)

Truth = dict[str, dict[str, list[Box]]]
"""Label -> picture -> x1, y1, x2, y2 in pixels."""
Sizes = dict[str, tuple[int, int]]
"""Picture -> (H, W)."""


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """(3, H, W) as a GeoTIFF."""
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=3, dtype="uint8",
        crs="EPSG:32633", transform=PLACE,
    ) as file:  # fmt: skip
        file.write(pixels)


def scenes(n: int, side_px: int) -> Iterator[tuple[str, np.ndarray, list[tuple[str, Box]]]]:
    """-> name, pixels, and what is there."""
    for seed in range(FIRST_SEED, FIRST_SEED + n):
        scene = make_scene(seed, side_px, side_px, gsd_m=GSD_M, style="held-out")
        things = []
        for thing in scene.objects:
            row0, col0, row1, col1 = thing.box
            cut = tuple(min(max(v, 0.0), float(side_px)) for v in (col0, row0, col1, row1))
            if (cut[2] - cut[0]) * (cut[3] - cut[1]) >= LEAST_SHOWN * (row1 - row0) * (col1 - col0):
                things.append((thing.label, cut))
        yield f"scene-{seed}.tif", scene.pixels, things


def pictures(n: int) -> Iterator[tuple[str, np.ndarray, list[tuple[str, Box]]]]:
    """The first n of the validation part of VHR-10 -> the same."""
    rows = pq.read_table(Path(os.environ["RSQA_TEST_DATA"], "vhr10.parquet"), columns=["id", "image", "objects"])
    held = [row for row in rows.to_pylist() if part_of(row["id"]) == "validation"]
    for row in held[:n]:
        pixels = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")).transpose(2, 0, 1)
        things = [(one["label"], tuple(one["box"])) for one in json.loads(row["objects"])]
        yield f"{Path(row['id']).stem}.tif", pixels, things


def find(
    folder: Path, things: Iterator[tuple[str, np.ndarray, list[tuple[str, Box]]]], labels: Sequence[str], tile_px: int,
    overlap_px: int, model: str,
) -> dict[str, Any]:  # fmt: skip
    """Write the pictures, detect, compare."""
    truth: Truth = {label: {} for label in labels}
    sizes: Sizes = {}
    for name, pixels, known in things:
        write_picture(folder / name, pixels)
        sizes[name] = pixels.shape[1:]
        for label, box in known:
            truth[label].setdefault(name, []).append(box)
    start = time.perf_counter()
    request = Request(
        sources=tuple(str(folder / name) for name in sizes), task=Detect(objects=tuple(labels), threshold=THRESHOLD),
        out=folder / "out", tile_px=tile_px, overlap_px=overlap_px, model=model,
    )  # fmt: skip
    report = ask(request)
    frame = geopandas.read_parquet(report.out / "detections.parquet")
    return {
        "pictures": len(sizes), "tiles": report.n_tiles, "tile_px": tile_px, "overlap_px": overlap_px,
        "seconds": round(time.perf_counter() - start, 1), "classes": compare(frame, truth, sizes),
    }  # fmt: skip


def compare(frame: geopandas.GeoDataFrame, truth: Truth, sizes: Sizes) -> dict[str, dict[str, float]]:
    """-> for each class with something to find the AP50 of the table's boxes and of boxes anywhere."""
    rng = np.random.default_rng(0)
    scored = {}
    for label, known in truth.items():
        if not known:
            continue
        rows = frame[frame.label == label]
        found = [
            Found(source, in_pixels(shape), float(score))
            for source, shape, score in zip(rows.source, rows.geometry, rows.score, strict=True)
        ]
        chance = [average_precision(anywhere(known, sizes, rng), known) for _ in range(DRAWS)]
        scored[label] = {
            "things": sum(map(len, known.values())), "boxes": len(found), "ap50": average_precision(found, known),
            "chance": float(np.mean(chance)),
        }  # fmt: skip
    return scored


def in_pixels(shape: shapely.Polygon) -> Box:
    """The box on the ground in pixels."""
    left, bottom, right, top = shape.bounds
    return (*(~PLACE @ (left, top)), *(~PLACE @ (right, bottom)))


def anywhere(known: Mapping[str, Sequence[Box]], sizes: Sizes, rng: np.random.Generator) -> list[Found]:
    """As many boxes as there are things, of their sizes, anywhere in any picture."""
    boxes = [box for some in known.values() for box in some]
    found = []
    for x1, y1, x2, y2 in boxes:
        name = str(rng.choice(list(sizes)))
        height, width = sizes[name]
        x, y = rng.uniform(0, max(1, width - (x2 - x1))), rng.uniform(0, max(1, height - (y2 - y1)))
        found.append(Found(name, (x, y, x + x2 - x1, y + y2 - y1), rng.random()))
    return found


def measure(
    n_scenes: int, n_pictures: int, tile_px: int, overlap_px: int, model: str, side_px: int = 640
) -> dict[str, Any]:
    """Both sets, the second only where its pictures are there. `side_px`: of a scene."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        result["procedural"] = find(Path(folder), scenes(n_scenes, side_px), OBJECTS, tile_px, overlap_px, model)
    if n_pictures and "RSQA_TEST_DATA" in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            result["vhr10"] = find(Path(folder), pictures(n_pictures), VHR10, tile_px, overlap_px, model)
    return result


def show(result: Mapping[str, Any]) -> None:
    """A table for people, JSON for scripts."""
    for name, one in result.items():
        print(
            f"{name}: {one['pictures']} pictures, {one['tiles']} tiles of {one['tile_px']} px that share "
            f"{one['overlap_px']}, {one['seconds']} s"
        )
        for label, told in one["classes"].items():
            print(f"  {label:20} {told['things']:5} things {told['boxes']:5} boxes  AP50 {told['ap50']:.3f}"
                  f"  anywhere {told['chance']:.3f}")  # fmt: skip
        if one["classes"]:
            one["ap50"], one["chance"] = (
                float(np.mean([told[key] for told in one["classes"].values()])) for key in ("ap50", "chance")
            )
            print(f"  mean of classes: AP50 {one['ap50']:.3f}, anywhere {one['chance']:.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    given = (*sys.argv[1:], *("8", "16", "192", "96", "tinyrs-nano")[len(sys.argv) - 1 :])
    show(measure(*map(int, given[:4]), given[4]))
