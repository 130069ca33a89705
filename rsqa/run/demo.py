"""The demo: paint a mosaic whose truth is known, ask it, and say how often the answers are right.

The ground is drawn in styles that no training picture had. It lies on Null Island (0° N, 0° E), where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.windows import Window

from rsqa.errors import OutputError
from rsqa.run.pipeline import ask
from rsqa.run.report import Progress, RunReport
from rsqa.run.request import Request
from rsqa.scenes.compose import make_scene
from rsqa.scenes.scene import Scene
from rsqa.scenes.truth import WindowTruth, truth
from rsqa.tasks.question import COUNTS, YES_NO, Question

TILE_PX = 256
GSD_M = 0.5
_BLOCK_PX = 512
_CRS = "EPSG:32631"
_WEST_M, _SOUTH_M = 166_000.0, 0.0

Truth = Callable[[WindowTruth], str | None]
"""What is true of a tile; None where it is too close to call."""


@dataclass(frozen=True, slots=True)
class Score:
    """How often the answers to one question were right, over the tiles whose truth is known."""

    question: Question
    n: int
    """Tiles with a known truth; what was not answered counts as wrong."""
    accuracy: float
    balanced: float
    """Mean over the true answers of how often each was found; a constant answer reaches 1 / number of them."""
    constant: str
    """The most frequent truth."""
    constant_accuracy: float
    """What always saying that would reach."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made."""

    mosaic: Path
    report: RunReport
    scores: tuple[Score, ...]


def _presence(label: str, text: str) -> tuple[Question, Truth]:
    def known(window: WindowTruth) -> str | None:
        there = window.present[label]
        return None if there is None else YES_NO[0] if there else YES_NO[1]

    return Question(label.replace(" ", "-"), text, "yesno", YES_NO), known


def _count(label: str, text: str) -> tuple[Question, Truth]:
    def known(window: WindowTruth) -> str | None:
        number = window.counts[label]
        return None if number is None else COUNTS[min(number, len(COUNTS) - 1)]

    return Question(f"{label.replace(' ', '-')}-count", text, "count", COUNTS), known


def _area(window: WindowTruth) -> str | None:
    return None if window.urban is None else "urban" if window.urban else "rural"


ASKED: tuple[tuple[Question, Truth], ...] = (
    _presence("water", "Is there water?"),
    _presence("forest", "Is there a forest?"),
    _presence("field", "Is there a field?"),
    _presence("building", "Is there a building?"),
    _presence("ship", "Is there a ship?"),
    _presence("plane", "Is there a plane?"),
    _presence("storage tank", "Is there a storage tank?"),
    (Question("area", "Is it a rural or an urban area?", "choice", ("rural", "urban")), _area),
    _count("plane", "How many planes are there?"),
    _count("storage tank", "How many storage tanks are there?"),
)


def run_demo(
    out: Path,
    size_px: int,
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Demo:
    """Make `out/mosaic.tif` of at least `size_px` a side, ask it into `out/mosaic.rsqa`, compare with the truth.

    Repeated with the same numbers it does no work twice.
    """
    side_px = -(-size_px // TILE_PX) * TILE_PX
    scene = make_scene(seed, side_px, side_px, gsd_m=GSD_M, style="held-out")
    mosaic = out / "mosaic.tif"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_mosaic(mosaic, scene)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise OutputError(f"can't write {str(mosaic)!r}: {error}; choose another folder with --out") from error
    request = Request(
        sources=(str(mosaic),),
        questions=tuple(question for question, _ in ASKED),
        out=out / "mosaic.rsqa",
        tile_px=TILE_PX,
    )
    report = ask(request, on_progress=on_progress, on_note=on_note)
    return Demo(mosaic, report, _scores(scene, out / "mosaic.rsqa"))


def write_mosaic(path: Path, scene: Scene) -> None:
    """Write the scene as a tiled GeoTIFF with overviews; the same scene gives the same bytes."""
    _, height, width = scene.pixels.shape
    transform = Affine(scene.gsd_m, 0, _WEST_M, 0, -scene.gsd_m, _SOUTH_M + height * scene.gsd_m)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", crs=_CRS, transform=transform,
        tiled=True, blockxsize=_BLOCK_PX, blockysize=_BLOCK_PX, compress="jpeg", jpeg_quality=92, photometric="ycbcr",
    ) as raster:  # fmt: skip
        for row in range(0, height, _BLOCK_PX):
            rows = scene.pixels[:, row : row + _BLOCK_PX]
            raster.write(rows, window=Window(0, row, width, rows.shape[1]))  # rasterio counts columns first
    factors = [factor for factor in (2, 4, 8, 16) if min(height, width) // factor >= TILE_PX]
    if factors:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews(factors, Resampling.average)


def _scores(scene: Scene, folder: Path) -> tuple[Score, ...]:
    answers = _answers(folder)
    tiles = sorted({(row, col) for _, row, col in answers})
    known = {
        (row, col): truth(scene, (row * TILE_PX, col * TILE_PX, (row + 1) * TILE_PX, (col + 1) * TILE_PX))
        for row, col in tiles
    }
    scores = []
    for question, true in ASKED:
        pairs = [(answer, answers[question.id, *tile]) for tile in tiles if (answer := true(known[tile])) is not None]
        if pairs:
            scores.append(score(question, pairs))
    return tuple(scores)


def _answers(folder: Path) -> dict[tuple[str, int, int], str | None]:
    """(question id, tile row, tile column) -> value; None where there is no answer."""
    columns = ["question_id", "tile_row", "tile_col", "value"]
    rows = ds.dataset(folder / "answers.parquet", format="parquet").to_table(columns=columns).to_pylist()
    return {(row["question_id"], row["tile_row"], row["tile_col"]): row["value"] for row in rows}


def score(question: Question, pairs: list[tuple[str, str | None]]) -> Score:
    """(truth, answer) pairs -> the score; at least one pair."""
    truths = Counter(true for true, _ in pairs)
    right = Counter(true for true, answer in pairs if true == answer)
    constant, most = truths.most_common(1)[0]
    return Score(
        question=question,
        n=len(pairs),
        accuracy=right.total() / len(pairs),
        balanced=sum(right[true] / number for true, number in truths.items()) / len(truths),
        constant=constant,
        constant_accuracy=most / len(pairs),
    )
