"""`rsqa show`: answers of a finished run, filtered, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from json import loads
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, plain, start_output, table
from rsqa.errors import InputError, SourceMissing, UsageError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_SHOWN: dict[str, tuple[str, ...]] = {
    "detections.parquet": ("label", "score", "box_logprob", "tile_id"),
    "answers.parquet": ("tile_id", "question_id", "status", "value", "confidence", "text"),
    "classes.parquet": ("tile_id", "status", "label", "confidence"),
}
"""Table of a finished run -> the columns that are shown."""
_FILTER = "Filter"
_LINES_AT_ONCE = 1000
_MOST_CHARACTERS = 80
"""Of a text in the table; JSON has it whole."""
_EVIDENCE = (
    "evidence: the share of each block of the tile in what the adapter told the model, / between rows, – no ground. "
    "It tells where the prompt looked and proves no answer"
)


def show(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Output folder of a run.", show_default=False, callback=opt.folder_only),
    ],
    question: Annotated[
        list[str] | None,
        typer.Option(
            "-q", "--question", metavar="ID", help="Only this question id.", rich_help_panel=_FILTER, show_default=False
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(help="Only tiles with this answer or label.", rich_help_panel=_FILTER, show_default=False),
    ] = None,
    status: Annotated[
        Literal["ok", "off_list", "unparsed", "truncated", "abstained", "nodata", "error"] | None,
        typer.Option(
            help="Only rows with this status; of tiles, also where objects were looked for.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Only answers at least this sure, or objects of this score, 0 to 1.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Also where the prompt of an adapter looked.", rich_help_panel="Output"),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows to show; 0 is all.", rich_help_panel=_FILTER)
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a row.", rich_help_panel="Output")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show answers, labels or objects, and how to open the files elsewhere."""
    start_output(quiet)
    path = _table(folder, of_tiles=status is not None)
    answers, shown = _open(path, folder), _SHOWN[path.name]
    if evidence:
        _check_evidence(answers)
        shown += ("evidence",)
    chosen = _chosen(answers, question, value, status, min_confidence)
    total = answers.count_rows(filter=chosen)
    rows = islice(_rows(answers, chosen), limit or total)
    if json:
        all(emit_json(row) for row in rows)
        return
    while batch := list(islice(rows, _LINES_AT_ONCE)):
        if not emit(table(shown, [[_short(row[name]) for name in shown] for row in batch])):
            return
    if limit and total > limit:
        log.info("%s of %s rows; --limit 0 shows all", f"{limit:,}", f"{total:,}")
    if evidence:
        log.info(_EVIDENCE)
    for line in opening_hints(folder):
        log.info("%s", line)


def _check_evidence(answers: ds.Dataset) -> None:
    if "evidence" not in answers.schema.names:
        raise UsageError("--evidence asked of a table without it; make it with rsqa ask --adapter DIR --evidence")


def _short(value: Any) -> Any:
    if isinstance(value, list):  # weights of the blocks of a square
        side = isqrt(len(value))
        weights = ["–" if weight is None else f"{weight:.2f}" for weight in value]
        return " / ".join(" ".join(weights[row * side : (row + 1) * side]) for row in range(side))
    return f"{value[: _MOST_CHARACTERS - 1]}…" if isinstance(value, str) and len(value) > _MOST_CHARACTERS else value


def opening_hints(folder: Path) -> list[str]:
    """How other tools open the files."""
    answers = _table(folder)
    files = answers / "*.parquet" if answers.is_dir() else answers
    columns = "question_id, value" if answers.name == "answers.parquet" else "label"
    hints = [
        f'geopandas: geopandas.read_parquet("{answers}")',
        f"DuckDB:    SELECT {columns}, count(*) FROM '{files}' GROUP BY ALL",
        f"QGIS:      drag {answers} into the map; needs QGIS with GDAL's Parquet driver",
    ]
    cube = folder / "tiles.zarr"
    if group := _first_group(cube):
        hints.append(f'xarray:    xarray.open_zarr("{cube}", group="{group}", decode_coords="all")')
    return hints


def _first_group(cube: Path) -> str | None:
    """`SOURCE/QUESTION` of the first question in the cube that has values; small sources have no cube."""
    index = cube / ".zmetadata"
    if not index.is_file():
        return None
    arrays = loads(index.read_text(encoding="utf-8"))["metadata"]
    return next((name.removesuffix("/value/.zarray") for name in arrays if name.endswith("/value/.zarray")), None)


def _table(folder: Path, of_tiles: bool = False) -> Path:
    """The table of a finished run; `of_tiles`: not of objects."""
    for name in _SHOWN:
        if (folder / name).exists() and not (of_tiles and name == "detections.parquet"):
            return folder / name
    begun = (folder / "parts").is_dir()
    hint = "it is not finished, run the same command again" if begun else "name an output folder of rsqa ask"
    raise SourceMissing(f"no {', '.join(_SHOWN)} in {str(folder)!r}; {hint}")


def _open(path: Path, folder: Path) -> ds.Dataset:
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        return ds.dataset(path, format="parquet")
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"can't read {str(path)!r}: {plain(error)[:200]}; rebuild it with rsqa finish {folder}"
        ) from error


def _chosen(
    answers: ds.Dataset,
    questions: list[str] | None,
    value: str | None,
    status: str | None,
    min_confidence: float | None,
) -> ds.Expression:
    import pyarrow.dataset as ds

    chosen = ds.scalar(True)
    if questions and "question_id" not in answers.schema.names:
        raise UsageError("--question asked of a table of labels, which has no questions; leave it out")
    if questions:
        batches = answers.to_batches(columns=["question_id"])
        known = set(chain.from_iterable(batch.column(0).unique().to_pylist() for batch in batches))
        if unknown := [id_ for id_ in questions if id_ not in known]:
            raise UsageError(f"no question {unknown[0]!r} in this output; choose of {', '.join(sorted(known))}")
        chosen &= ds.field("question_id").isin(questions)
    if value is not None:
        chosen &= ds.field("value" if "value" in answers.schema.names else "label") == value
    if status is not None:
        chosen &= ds.field("status") == status
    if min_confidence is not None:
        chosen &= ds.field("score" if "score" in answers.schema.names else "confidence") >= min_confidence
    return chosen


def _rows(answers: ds.Dataset, chosen: ds.Expression) -> Iterator[dict[str, Any]]:
    """Rows without their binary geometry; `bbox` is there."""
    columns = [name for name in answers.schema.names if name != "geometry"]
    batches = answers.to_batches(columns=columns, filter=chosen, batch_readahead=2, fragment_readahead=1)
    return chain.from_iterable(batch.to_pylist() for batch in batches)
