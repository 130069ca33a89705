"""`rsqa export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, plain, start_output
from rsqa.errors import UsageError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from rsqa.sinks.finished import FinishedTable
    from rsqa.tasks.question import Question

FORMATS = ("gpkg", "fgb", "geojson", "csv", "cog")
_SUFFIXES = {".tif": "cog", ".tiff": "cog"} | {f".{name}": name for name in FORMATS if name != "cog"}


def export(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Output folder of rsqa ask.", show_default=False, callback=opt.folder_only),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT|FILE",
            help="gpkg, fgb, geojson, csv or cog, written into DIR; or a file with such an ending, .tif for cog.",
            show_default=False,
        ),
    ],
    question: Annotated[
        list[str] | None,
        typer.Option("-q", "--question", metavar="ID", help="Only this question id.", show_default=False),
    ] = None,
    table: Annotated[
        Literal["answers", "classes", "class_polygons", "detections", "counts"] | None,
        typer.Option(help="Only this table; by default all that are there.", show_default=False),
    ] = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write the answers in the formats of other tools; an earlier export is replaced.

    gpkg (GeoPackage: a layer per table), fgb (FlatGeobuf), geojson (RFC 7946: longitude and latitude), csv (lon and lat
    of the tiles' centres), cog (for each question rasters of values and of confidence, a cell per tile).
    """
    start_output(quiet, verbose)
    form, file = _target(target)
    from rsqa.sinks.finished import open_tables

    tables = open_tables(folder)
    if table is not None and table not in tables:
        raise UsageError(f"no {table} in {str(folder)!r}; choose of {', '.join(tables)}")
    chosen = [tables[name] for name in tables if table in (None, name)]
    if form == "cog":
        written = _export_cog(folder, file, tables.get("answers"), question)
    else:
        written = _export_tables(folder, form, file, chosen, question)
    if not quiet:
        emit(plain(path) for path in written)


def _target(text: str) -> tuple[str, Path | None]:
    """-> (format, file; None where only a format was named)."""
    if text.lower() in FORMATS:
        return text.lower(), None
    form = _SUFFIXES.get(Path(text).suffix.lower())
    if form is None:
        raise UsageError(f"can't tell a format from {text!r}; name one of {', '.join(FORMATS)}, or a file ending so")
    return form, Path(text)


def _export_tables(
    folder: Path, form: str, file: Path | None, tables: list[FinishedTable], question: list[str] | None
) -> list[Path]:
    from rsqa.sinks.export import VECTORS, export_csv, export_vector

    chosen = _rows(folder, question) if question else None
    if form in VECTORS and VECTORS[form].many:
        path = file or folder / f"{folder.resolve().stem}.{form}"
        export_vector(path, tables, chosen)
        return [path]
    if file is not None and len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise UsageError(f"{str(file)!r} holds one table, here are {names}; choose with --table, or write a .gpkg")
    paths = []
    for table in tables:
        paths.append(file or folder / f"{table.name}.{form}")
        wanted = chosen if table.name == "answers" else None
        if form == "csv":
            export_csv(paths[-1], table, wanted)
        else:
            export_vector(paths[-1], [table], wanted)
    return paths


def _rows(folder: Path, wanted: list[str]) -> ds.Expression:
    """The rows of the answers to these questions."""
    import pyarrow.dataset as ds

    _questions(folder, wanted)
    return ds.field("question_id").isin(wanted)


def _export_cog(folder: Path, file: Path | None, answers: FinishedTable | None, wanted: list[str] | None) -> list[Path]:
    from rsqa.run.folder import read_plan
    from rsqa.sinks.cog import export_cog, export_cogs

    if answers is None:
        raise UsageError(f"no answers in {str(folder)!r}, and rasters are made of these alone; choose gpkg")
    sources = [planned.tiled for planned in read_plan(folder).first_pass if planned.source.crs_wkt]
    questions = _questions(folder, wanted)
    if file is None:
        return export_cogs(folder / "cog", answers, sources, questions)
    if len(questions) != 1 or len(sources) != 1:
        raise UsageError(
            f"{str(file)!r} holds one question of one source, here are {len(questions)} questions and {len(sources)} "
            "sources; choose a question with -q, or say cog for a folder of all"
        )
    return export_cog(file, answers, sources[0], questions[0])


def _questions(folder: Path, wanted: list[str] | None) -> list[Question]:
    """The questions of the plan that are wanted, all where none is named. UsageError for one that was not asked."""
    from rsqa.run.folder import read_plan

    asked = {question.id: question for question in read_plan(folder).row_questions}
    for id_ in wanted or ():
        if id_ not in asked:
            raise UsageError(f"no question {id_!r} in this output; choose of {', '.join(asked)}")
    return [asked[id_] for id_ in wanted or asked]
