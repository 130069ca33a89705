"""`rsqa data`: convert published sets to training data, and check training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, plain, start_output, table
from rsqa.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from rsqa.train.tally import Tally

app = typer.Typer(no_args_is_help=True, help="Convert published sets to training data, and check training data.")

_SETS = Literal["rsvqa", "rsivqa", "folders", "boxes", "parquet"]
_Kind = Literal["vqa", "captions", "classes", "boxes"]
_KINDS: tuple[_Kind, ...] = ("vqa", "captions", "classes", "boxes")


@app.command()
def convert(
    format_: Annotated[
        _SETS,
        typer.Argument(
            metavar="FORMAT",
            help="rsvqa: LR, HR or xBEN; rsivqa: image:question?answer lines; folders: one per class; "
            "boxes: text files of NWPU VHR-10, JSON or CSV; parquet: rows with pictures.",
            show_default=False,
        ),
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The set's file or folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the records.", show_default=False)],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the pictures; by default the source's.", show_default=False),
    ] = None,
    part: Annotated[
        Literal["train", "calibration", "validation"] | None,
        typer.Option(
            help="Only this part. zlib.crc32(id) % 100: validation below 15, calibration below 18, else train.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Only these of vqa,captions,classes,boxes.", show_default=False),
    ] = None,
    grpo: Annotated[bool, typer.Option("--grpo", help="Write GRPO records instead of conversations.")] = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_file: opt.LogFile = None,
) -> None:
    """Turn a published set into conversations; print their file.

    Beside it, report.json counts what was left out, by reason.
    """
    start_output(quiet, verbose, log_file)
    from rsqa.train.convert import convert as write

    done = write(format_, source, out, images, part, _kinds(kind), grpo)
    kinds = ", ".join(f"{n:,} {name}" for name, n in done.kinds.items())
    log.info(
        "%s records (%s) about %s pictures in %s", f"{done.n_records:,}", kinds, f"{done.n_pictures:,}", done.images
    )
    for line in _reasons(done.left_out):
        log.info("%s", line)
    emit([plain(done.file)])


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Conversations or GRPO records.", show_default=False)],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pictures.", show_default=False)],
    json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> int:
    """Tell which records a training could not use, and why; exit code 4 when there are any."""
    start_output(verbose=verbose)
    from rsqa.train.check import check as look

    found = look(file, images)
    if json:
        counts = {"records": found.n_read, "usable": found.n_usable, "image_tag_moved": found.n_moved}
        emit_json({"format": found.form, **counts, "left_out": found.left_out.report()})
    else:
        emit([f"{found.n_usable:,} of {found.n_read:,} records ({found.form}) can be used", *_reasons(found.left_out)])
        if found.n_moved:
            emit([f"{found.n_moved:,} have words before their image tag: the picture is put before them"])
    return ExitCode.INPUT if found.left_out.total or not found.n_usable else ExitCode.DONE


def _kinds(text: str | None) -> list[_Kind]:
    wanted = [kind.strip() for kind in (text or "").split(",") if kind.strip()]
    if wrong := [kind for kind in wanted if kind not in _KINDS]:
        raise UsageError(f"unknown kind {wrong[0]!r}; choose of {','.join(_KINDS)}")
    return [kind for kind in _KINDS if kind in wanted]


def _reasons(left_out: Tally) -> list[str]:
    rows = [
        (reason, told["count"], ", ".join(left_out.examples[reason][:3])) for reason, told in left_out.report().items()
    ]
    return table(("left out because", "records", "as"), rows) if rows else []
