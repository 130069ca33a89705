"""Answers as Cloud Optimized GeoTIFFs on the tile grid, one cell per tile: for a question and source two rasters.

The value's holds codes, with a colour table, and beside it an `.aux.xml` with the categories' names, where GDAL and
QGIS look for them; the highest code is "unknown" and nodata. The confidence's holds float32, NaN where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from rsqa.errors import OutputError, UsageError
from rsqa.raster.gdal import GDAL_ERRORS
from rsqa.sinks.colours import RGB, option_colours
from rsqa.sinks.cube_layout import group_name, value_codes
from rsqa.sinks.finished import FinishedTable
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import discard, write_whole_bytes, write_whole_named
from rsqa.tasks.question import Question

_NO_XML = "".join(map(chr, range(32)))
"""Characters that XML 1.0 has no way to write."""


def export_cogs(
    folder: Path, answers: FinishedTable, sources: Sequence[TiledSource], questions: Sequence[Question]
) -> list[Path]:
    """Write SOURCE.QUESTION.tif and SOURCE.QUESTION.confidence.tif of all closed questions; -> the rasters.

    SOURCE is its group in the cube. Raises OutputError when the folder can't be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't make the folder {str(folder)!r}: {error.strerror}") from error
    written = []
    for question in questions:
        if question.closed:
            grids = _grids(answers, sources, question)
            for source in sources:
                path = folder / f"{group_name(source.name)}.{question.id}.tif"
                written += _write_pair(path, source, question, *grids[source.name])
    return written


def export_cog(path: Path, answers: FinishedTable, source: TiledSource, question: Question) -> list[Path]:
    """Write `path` and, beside it, NAME.confidence.tif; -> both. UsageError for an open question."""
    if not question.closed:
        raise UsageError(f"the answers to {question.id!r} are free text, which no raster holds; choose gpkg or csv")
    return _write_pair(path, source, question, *_grids(answers, [source], question)[source.name])


def _grids(
    answers: FinishedTable, sources: Sequence[TiledSource], question: Question
) -> dict[str, tuple[NDArray[Any], NDArray[np.float32]]]:
    """-> source -> (codes, confidence), each (tile rows, tile cols)."""
    dtype, unknown = value_codes(question)
    shapes = {source.name: (source.n_rows, source.n_cols) for source in sources}
    grids = {
        name: (np.full(shape, unknown, dtype), np.full(shape, np.nan, np.float32)) for name, shape in shapes.items()
    }
    chosen = (ds.field("question_id") == question.id) & ds.field("source").isin(list(shapes))
    columns = ["source", "tile_row", "tile_col", "value", "confidence"]
    for batch in answers.data.to_batches(columns=columns, filter=chosen, batch_readahead=2, fragment_readahead=1):
        codes = pc.fill_null(pc.index_in(batch["value"], pa.array(question.options)), unknown)
        rows, cols = batch["tile_row"].to_numpy(), batch["tile_col"].to_numpy()
        names = batch["source"].to_numpy(zero_copy_only=False)
        confidence = batch["confidence"].to_numpy(zero_copy_only=False)
        for name in np.unique(names):
            here = names == name
            values, sure = grids[name]
            values[rows[here], cols[here]] = codes.to_numpy(zero_copy_only=False)[here]
            sure[rows[here], cols[here]] = confidence[here]
    return grids


def _write_pair(
    path: Path, source: TiledSource, question: Question, codes: NDArray[Any], confidence: NDArray[np.float32]
) -> list[Path]:
    sure = path.with_name(f"{path.stem}.confidence.tif")
    about = {"question_id": question.id, "question": question.text, "source": source.name}
    write_codes(path, source, codes, question.options, option_colours(question), about)
    _write_cog(sure, source, confidence, np.nan, {**about, "quantity": "probability of the value"}, {})
    return [path, sure]


def write_codes(
    path: Path,
    source: TiledSource,
    codes: NDArray[Any],
    options: Sequence[str],
    colours: Sequence[RGB],
    about: Mapping[str, str],
) -> None:
    """Write (tile rows, tile cols) codes of `options` and beside them what they mean; the type's highest is nodata."""
    names = path.with_name(f"{path.name}.aux.xml")
    discard(names)  # of an earlier raster: it would name these codes wrongly
    table = {code: (*colour, 255) for code, colour in enumerate(colours)}
    listed = json.dumps(options, ensure_ascii=False)
    _write_cog(path, source, codes, int(np.iinfo(codes.dtype).max), {**about, "options": listed}, table)
    write_whole_bytes(names, _category_names(options).encode())


def _write_cog(
    path: Path,
    source: TiledSource,
    cells: NDArray[Any],
    nodata: float,
    about: Mapping[str, str],
    colours: Mapping[int, tuple[int, int, int, int]],
) -> None:
    height, width = cells.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=1, dtype=cells.dtype, nodata=nodata,
            crs=source.crs_wkt, transform=source.tile_transform,
        ) as raster:  # fmt: skip
            raster.write(cells, 1)
            raster.update_tags(**about)
            raster.set_band_description(1, about["question_id"])
            if colours:
                raster.write_colormap(1, colours)

        def write(file: Path) -> None:
            try:
                with memory.open() as raster:
                    rasterio.shutil.copy(
                        raster, file, driver="COG", compress="DEFLATE", blocksize=256, overview_resampling="NEAREST",
                        bigtiff="IF_SAFER",
                    )  # fmt: skip
                with rasterio.open(file) as raster:  # GDAL may say nothing when a disk is full as it closes a file
                    whole = np.array_equal(raster.read(1), cells, equal_nan=cells.dtype.kind == "f")
            except GDAL_ERRORS as error:
                reason = " ".join(str(error).split())
                raise OutputError(f"can't write {path}: {reason}; is there room on that disk?") from error
            if not whole:
                raise OutputError(f"can't write {path}: some of it did not arrive; is there room on that disk?")

        write_whole_named(path, write)


def _category_names(options: Sequence[str]) -> str:
    """-> GDAL's own file of what no TIFF tag holds."""
    clean = (escape(name.translate({ord(c): " " for c in _NO_XML})) for name in options)
    lines = "".join(f"      <Category>{name}</Category>\n" for name in clean)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
