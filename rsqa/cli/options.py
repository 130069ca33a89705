"""The options of the commands, as types of their parameters: one sentence each, with unit and default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from rsqa.errors import UsageError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """`2h`, `90m`, `1h30m` -> seconds."""
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise typer.BadParameter(f"{text!r} is not a duration; write for example 90m, 2h or 1h30m")
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in pieces))


def folder_only(given: Path) -> Path:
    """UsageError for an address, of which `Path` has kept one slash."""
    if match := re.match(r"(s3a?):/+(.+)", str(given)):
        address = "{}://{}".format(*match.groups())
        raise UsageError(f"{address} asked, a folder is read here; copy it to one, as with aws s3 sync {address} DIR")
    return given


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="GeoTIFFs, COGs, named VRTs and tile indexes (.gti.gpkg, .gti.fgb), STAC Items, Collections and tables "
        "(.json, .parquet), searches of a STAC API (https://…/search?collections=…), or https://, s3:// or GDAL's /vsi "
        "names.",
        show_default=False,
    ),
]
Chips = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Folders of GeoTIFF, JPEG, PNG, WEBP or JPEG 2000 files, such files, or mosaics as rsqa ask takes.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Of folders, only files whose name or path below the folder fits; may be given several times.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Of folders, no files that fit.", show_default=False),
]
Asset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of STAC Items, the asset to read; by default the only TIFF.",
        show_default=False,
    ),
]
Mosaic = Annotated[
    bool,
    typer.Option(
        "--mosaic",
        help="All files, also those below folders, are one source: of one CRS, pixel size and grid; where they overlap "
        "the first one is seen.",
    ),
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "-q", "--question", metavar="TEXT", help="A question; may be given several times.", show_default=False
    ),
]
QuestionFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Questions in a text, CSV or JSONL file.", show_default=False)
]

Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Output folder; by default SOURCE.rsqa in this folder. Or s3://BUCKET/PREFIX, with rsqa\\[s3].",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the plan, as rsqa plan does.")]

_TILES = "Tiles and pixels"
Aoi = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Only the tiles that polygons of this file touch: GeoPackage, GeoJSON, Shapefile, … of any CRS.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Bands shown as red, green, blue: numbers as 4,3,2, colours, or names that they have in the file, as "
        "B04,B03,B02; by default read from the file.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
MaskBand = Annotated[
    str | None,
    typer.Option(
        metavar="BAND",
        help="Band of classes such as cloud, by number or name; then no overviews are read.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
MaskValues = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Pixels with one of these numbers in --mask-band are not valid, as 3,8,9,10.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
TilePx = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side of a tile in source pixels; multiples of 28 need no resize.",
        rich_help_panel=_TILES,
    ),
]
WindowPx = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side of what the model sees at once in source pixels, overlap included; multiples of 28 need no resize.",
        rich_help_panel=_TILES,
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="PX",
        help="What neighbouring tiles share, source pixels: things up to this size are seen whole by one of them, "
        "pieces of larger ones are joined. By default a quarter of --tile-px; with 0 nothing is joined.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
Pyramid = Annotated[
    bool,
    typer.Option(
        "--pyramid",
        help="Also look at tiles up to four times as large, coarsely, for things larger than a tile.",
        rich_help_panel=_TILES,
    ),
]
ChipPx = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side of a tile in source pixels; what is no larger is shown whole. By default files up to 1,024 px are "
        "shown whole and larger ones cut in tiles of 448 px.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
Gsd = Annotated[
    float | None,
    typer.Option(
        metavar="METRES",
        help="Ground metres per pixel to work at; by default the source's own.",
        rich_help_panel=_TILES,
        show_default=False,
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="How values become 8 bits: auto (uint8 as it is, others stretched once per collection) or LOW,HIGH.",
        rich_help_panel=_TILES,
    ),
]
MinValid = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Least valid share of a tile for it to be asked, 0 to 1.",
        rich_help_panel=_TILES,
    ),
]

_MODEL = "Model"
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Folder, hub name or card name; by default the embedded tinyrs-nano.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Card = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Model card by name or JSON file, for a model that brings none.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of an adapter, as rsqa train writes, or the name of one that ships; the model is its base, by "
        "default the one that it names.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Evidence = Annotated[
    bool,
    typer.Option(
        "--evidence",
        help="Keep where the prompt of a GRASP adapter looked: a weight per question and block of each tile. It is no "
        "proof of an answer.",
        rich_help_panel=_MODEL,
    ),
]
Reasoning = Annotated[
    bool | None,
    typer.Option(
        "--reasoning/--no-reasoning",
        help="Let the model reason before it answers; by default what its card says.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]

_MACHINE = "Machine"
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tiles through the model at once; by default from memory.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Worker processes of this machine, each with a model and, on CUDA, a device of its own; by default "
        "threads of this one.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask scheduler of a cluster that runs already, as tcp://HOST:8786; its workers need this version "
        "of rsqa, and the sources and --out at the same paths or addresses. Say --device too.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Dashboard = Annotated[
    bool,
    typer.Option(
        "--dashboard", help="Show where to watch the workers in a browser; needs Bokeh.", rich_help_panel=_MACHINE
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)]
Dtype = Annotated[
    Literal["auto", "float32", "fp32", "bfloat16", "bf16", "float16", "fp16", "int8"],
    typer.Option(
        help="Precision; auto is float32 on a CPU and bfloat16 on a GPU. bf16 is faster on CPUs that have it (AMX), "
        "int8 (layers of 8 bits) on those that have not; both move some answers that were close.",
        rich_help_panel=_MACHINE,
        show_choices=True,
    ),
]
CacheFeatures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep what the model sees of each tile here: asking something new later reads no pixels and sees nothing "
        "again. Takes 12 kB a tile with tinyrs-nano on a CPU, 0.8 MB with a 2B model at 448 px on a GPU; "
        "rsqa plan tells how much.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
PartTiles = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tiles per part, the unit of committing and resuming; by default about 15 s of work.",
        rich_help_panel="Advanced",
        show_default=False,
    ),
]

_AGAIN = "Running again"
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Start anew in an output folder that holds another plan.", rich_help_panel=_AGAIN),
]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="Ask tiles again that failed in an earlier run.", rich_help_panel=_AGAIN)
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Go on with a plan that was begun on another type of device; answers may differ slightly.",
        rich_help_panel=_AGAIN,
    ),
]
MaxDuration = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="TIME",
        help="Stop cleanly after this time, as 90m or 2h, with exit code 10; run again to go on.",
        rich_help_panel=_AGAIN,
        show_default=False,
    ),
]

_OUTPUT = "Output"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print nothing unless something goes wrong.", rich_help_panel=_OUTPUT)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say more; show the traceback of a crash.", rich_help_panel=_OUTPUT)
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also append all messages, with UTC times, to this file.", rich_help_panel=_OUTPUT
    ),
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no progress.", rich_help_panel=_OUTPUT)]
