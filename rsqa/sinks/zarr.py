"""The cube: answers as georeferenced arrays on the tile grid, one cell per tile, in `tiles.zarr`.

    SOURCE/               status, valid_frac
    SOURCE/QUESTION/      status; of closed questions also value, confidence; of boxes count, confidence
    SOURCE/QUESTION/evidence/   on request weight, on the finer grid of an adapter's blocks

Each group holds its own x, y and spatial_ref, so that it opens by itself (xarray with `decode_coords="all"`, GDAL,
QGIS). Cells join the tables by tile_row, tile_col. Only the driver writes here: two writers in a chunk lose data.

N tiles, Q questions, k cells along a side of a tile: 1 but for evidence.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from rsqa.sinks.cube_layout import CHUNK, NO_COUNT, create_source, question_group, value_codes
from rsqa.sinks.evidence import on_cores, shares_of
from rsqa.sinks.part_reading import read_parts
from rsqa.sinks.table import FORMAT, STATUSES, tile_statuses
from rsqa.sinks.tiling import TiledSource
from rsqa.sinks.whole import discard, write_whole_folder
from rsqa.tasks.question import Question

LEAST_TILES = 64
"""Smaller sources have no group: a picture of a few cells shows nothing that the table does not."""

OPEN_BANDS = 2
"""Bands of CHUNK tile rows in memory; blocks sweep downward, so a third one means that the first is done."""
GROUP_ROWS = 1 << 16


def finish_cube(
    path: Path,
    parts: Sequence[Path],
    sources: Sequence[TiledSource],
    questions: Sequence[Question],
    plan_id: str,
    zarr_format: Literal[2, 3] = 2,
    evidence: int = 0,
    objects: Path | None = None,
) -> bool:
    """Write the cube of all sources with at least 64 tiles; -> whether there is one.

    `evidence`: blocks along a side of a tile whose weights the parts hold, 0: none. `objects`: the
    finished table of those that answer questions for boxes.

    An earlier cube is replaced when the new one is whole; the same parts give the same bytes. Raises OutputError when
    a part is damaged or `path` can't be written.
    """
    shown = [source for source in sources if source.crs_wkt and source.n_rows * source.n_cols >= LEAST_TILES]
    if not shown:
        discard(path)
        return False

    def write(folder: Path) -> None:
        root = zarr.open_group(LocalStore(folder), mode="w", zarr_format=zarr_format)
        root.attrs.update({"rsqa": {"format": FORMAT, "plan_id": plan_id}})
        bands = _Bands({source.name: create_source(root, source, questions, evidence) for source in shown}, shown)
        columns = ["source", "tile_row", "tile_col", "value", "confidence", "status", "valid_frac"]
        columns += ["evidence"] if evidence else []
        for group in read_parts(parts, max(1, GROUP_ROWS // len(questions)) * len(questions), columns):
            for cells in _by_source(group, questions, evidence):
                bands.put(cells)
        if objects is not None:
            _count_objects(bands, objects)
        bands.flush()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")  # of format 3
            zarr.consolidate_metadata(root.store)

    write_whole_folder(path, write)
    return True


def _count_objects(bands: _Bands, objects: Path) -> None:
    columns = ["source", "question_id", "tile_row", "tile_col"]
    for batch in ds.dataset(objects, format="parquet").to_batches(columns=columns, batch_readahead=2):
        rows = pa.Table.from_batches([batch]).group_by(columns).aggregate([([], "count_all")])
        for source, id_ in set(zip(rows["source"].to_pylist(), rows["question_id"].to_pylist(), strict=True)):
            own = rows.filter((pc.field("source") == source) & (pc.field("question_id") == id_))
            tile_rows, tile_cols, n = (own[name].to_numpy() for name in ("tile_row", "tile_col", "count_all"))
            bands.add(source, f"{question_group(id_)}/count", tile_rows, tile_cols, n)


@dataclass(frozen=True, slots=True)
class _Cells:
    """What goes into the cube for tiles of one source."""

    source: str
    rows: NDArray[np.integer[Any]]
    cols: NDArray[np.integer[Any]]
    layers: dict[str, NDArray[Any]]
    """Path of an array below the source's group -> (N,), or (N, k·k) weights of the blocks of each tile's window."""


def _by_source(group: pa.Table, questions: Sequence[Question], evidence: int) -> Iterator[_Cells]:
    """Rows of whole tiles -> cells."""
    n_questions = len(questions)
    tiles = group.take(pa.array(np.arange(0, group.num_rows, n_questions)))
    statuses = group["status"].to_numpy().reshape(-1, n_questions)
    layers = {"status": tile_statuses(statuses), "valid_frac": tiles["valid_frac"].to_numpy()}
    for i, question in enumerate(questions):
        name, own = question_group(question.id), group.take(pa.array(np.arange(i, group.num_rows, n_questions)))
        layers[f"{name}/status"] = pc.index_in(own["status"], pa.array(STATUSES)).to_numpy()
        if evidence:
            layers[f"{name}/evidence/weight"] = shares_of(own["evidence"], evidence)
        if question.kind == "box":
            layers[f"{name}/confidence"] = own["confidence"].to_numpy()
            layers[f"{name}/count"] = np.where(own["status"].to_numpy() == "ok", 0, NO_COUNT).astype(np.uint16)
        if question.closed:
            dtype, unknown = value_codes(question)
            codes = pc.index_in(own["value"], pa.array(question.options))
            assert codes.null_count == own["value"].null_count, f"a value of {question.id!r} is none of its options"
            layers[f"{name}/value"] = codes.fill_null(unknown).to_numpy().astype(dtype)
            layers[f"{name}/confidence"] = own["confidence"].to_numpy()
    sources, source_of_tile = np.unique(tiles["source"].to_numpy(), return_inverse=True)
    rows, cols = tiles["tile_row"].to_numpy(), tiles["tile_col"].to_numpy()
    for i, source in enumerate(sources):
        here = source_of_tile == i
        yield _Cells(source, rows[here], cols[here], {path: layer[here] for path, layer in layers.items()})


class _Bands:
    """Arrays that are filled in bands of CHUNK tile rows, of which few are in memory.

    Right for tiles in any order; fast for blocks that sweep downward.
    """

    def __init__(self, arrays: Mapping[str, Mapping[str, zarr.Array[Any]]], sources: Sequence[TiledSource]) -> None:
        self.arrays = arrays
        """Source -> path -> array."""
        self.sources = {source.name: source for source in sources}
        self.open: OrderedDict[tuple[str, int], dict[str, NDArray[Any]]] = OrderedDict()
        """(source, band) -> path -> its rows, the least recently used first."""

    def put(self, cells: _Cells) -> None:
        if cells.source not in self.arrays:
            return
        source, bands = self.sources[cells.source], cells.rows // CHUNK
        for band in np.unique(bands).tolist():
            here = bands == band
            buffers = self._band(cells.source, band)
            rows, cols = cells.rows[here], cells.cols[here]
            for path, layer in cells.layers.items():
                values = layer[here, None, None] if layer.ndim == 1 else on_cores(layer[here], source, rows, cols)
                k = values.shape[1]
                by_tile = buffers[path].reshape(-1, k, source.n_cols, k)  # a view
                by_tile[rows - band * CHUNK, :, cols, :] = values

    def add(
        self,
        source: str,
        path: str,
        rows: NDArray[np.integer[Any]],
        cols: NDArray[np.integer[Any]],
        counts: NDArray[np.integer[Any]],
    ) -> None:
        """Add to the counts of cells, each named once; an unknown one was 0, where a neighbour knows better."""
        if source not in self.arrays:
            return
        bands = rows // CHUNK
        for band in np.unique(bands).tolist():
            here = bands == band
            buffer = self._band(source, band)[path]
            cells = rows[here] - band * CHUNK, cols[here]
            before = np.where(buffer[cells] == NO_COUNT, 0, buffer[cells]).astype(np.int64)
            buffer[cells] = np.minimum(before + counts[here], NO_COUNT - 1)

    def flush(self) -> None:
        while self.open:
            self._close_oldest()

    def _band(self, source: str, band: int) -> dict[str, NDArray[Any]]:
        key = (source, band)
        if key not in self.open:
            while len(self.open) >= OPEN_BANDS:
                self._close_oldest()
            self.open[key] = {
                path: np.asarray(array[self._rows(source, band, array)]) for path, array in self.arrays[source].items()
            }
        self.open.move_to_end(key)
        return self.open[key]

    def _close_oldest(self) -> None:
        (source, band), buffers = self.open.popitem(last=False)
        for path, buffer in buffers.items():
            array = self.arrays[source][path]
            array[self._rows(source, band, array)] = buffer

    def _rows(self, source: str, band: int, array: zarr.Array[Any]) -> slice:
        """Those of a band in an array of k cells along a side of a tile."""
        height = CHUNK * array.shape[0] // self.sources[source].n_rows
        return slice(band * height, (band + 1) * height)
