"""`rsqa doctor`: what is installed, what the machine has, what will not work and how to mend it."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

import rsqa
from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, start_output, table
from rsqa.errors import ExitCode, RsqaError

_LIBRARIES = ("torch", "transformers", "rasterio", "pyproj", "geopandas", "pyarrow", "zarr", "dask", "typer", "rich")
_DRIVERS = {
    "GTiff": "GeoTIFF and COG",
    "VRT": "sources named .vrt",
    "JPEG": "JPEG chips",
    "PNG": "PNG chips",
    "WEBP": "WebP chips",
    "JP2OpenJPEG": "JPEG 2000 chips",
}
_COMPRESSIONS = ("deflate", "lzw", "zstd", "jpeg", "webp", "lerc")
_LEAST_MEMORY_GB = 2.0
_LEAST_DISK_GB = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "limited", "broken"]
    found: str
    mend: str = ""


def doctor(json: opt.Json = False) -> None:
    """Check the installation and the machine.

    Exit code 1 when something is broken that every run needs.
    """
    start_output()
    found = list(examine(Path.cwd()))
    if json:
        emit_json([asdict(finding) for finding in found])
    else:
        emit(table(("", "what", "found", "to mend it"), [(f.state, f.what, f.found, f.mend) for f in found]))
    raise typer.Exit(ExitCode.UNEXPECTED if any(f.state == "broken" for f in found) else ExitCode.DONE)


def examine(folder: Path) -> Iterator[Finding]:
    """All findings; `folder` is where outputs would go."""
    for what, look in (
        ("versions", _versions), ("GDAL", _gdal), ("PROJ", _proj), ("model", _model), ("devices", _devices),
        ("machine", _machine),
    ):  # fmt: skip
        yield from _guarded(what, look)
    yield from _guarded("output", lambda: _output(folder))


def _guarded(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails is a finding: a doctor must not die of the disease."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(what, "broken", f"{type(error).__name__}: {error}", "reinstall rsqa in a fresh environment")


def _versions() -> Iterator[Finding]:
    yield Finding("rsqa", "ok", rsqa.__version__)
    yield Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    for library in _LIBRARIES:
        yield Finding(library, "ok", metadata.version(library))


def _gdal() -> Iterator[Finding]:
    import numpy as np
    import rasterio
    from rasterio.io import MemoryFile

    yield Finding("GDAL", "ok", rasterio.__gdal_version__)
    with rasterio.Env() as env:
        drivers = env.drivers()
    for driver, use in _DRIVERS.items():
        state: Literal["ok", "broken", "limited"] = "ok"
        if driver not in drivers:
            state = "broken" if driver == "GTiff" else "limited"
        mend = "" if state == "ok" else f"{use} can't be read; install rasterio from PyPI or conda-forge"
        yield Finding(f"GDAL driver {driver}", state, "there" if state == "ok" else "missing", mend)
    pixels = np.zeros((3, 16, 16), np.uint8)
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    profile["transform"] = rasterio.Affine(1, 0, 500_000, 0, -1, 0)
    missing = []
    for compression in _COMPRESSIONS:
        try:
            with MemoryFile() as file, file.open(**profile, compress=compression) as raster:
                raster.write(pixels)
        except rasterio.errors.RasterioError:
            missing.append(compression)
    found = ", ".join(name for name in _COMPRESSIONS if name not in missing)
    mend = (
        f"TIFFs with {', '.join(missing)} can't be read; install rasterio from PyPI or conda-forge" if missing else ""
    )
    yield Finding("TIFF compressions", "limited" if missing else "ok", found, mend)


def _proj() -> Iterator[Finding]:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    [x], [y] = transform(CRS.from_epsg(4326), CRS.from_epsg(32633), [15.0], [0.0])
    right = abs(x - 500_000) < 1 and abs(y) < 1
    mend = "" if right else "unset PROJ_LIB and PROJ_DATA"
    yield Finding(
        "PROJ", "ok" if right else "broken", "transforms coordinates" if right else f"puts 15°E 0°N at {x}, {y}", mend
    )
    for variable in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA"):
        if variable in os.environ:
            yield Finding(variable, "limited", os.environ[variable], "unset it unless this rasterio was built for it")


def _model() -> Iterator[Finding]:
    from rsqa.engines.registry import find_model

    try:
        embedded = find_model()
    except RsqaError as error:
        yield Finding("embedded model", "broken", str(error), "reinstall rsqa, or name a model with --model")
        return
    yield Finding("embedded model", "ok", f"{embedded.name}, weights {embedded.weights_id[:12]}")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    if offline:
        yield Finding("hub", "limited", "HF_HUB_OFFLINE is set", "unset it to fetch models by name")


def _devices() -> Iterator[Finding]:
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", "ok", f"{cpus} cores, torch uses {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        reason = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        yield Finding(
            "GPU", "limited", f"none: {reason}", "2B models need minutes a tile on a CPU; tinyrs-nano is fine"
        )
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU cuda:{number}", "ok", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")


def _machine() -> Iterator[Finding]:
    free_gb = _free_memory() / 1e9
    enough = free_gb >= _LEAST_MEMORY_GB
    mend = "" if enough else f"close other programs; a run needs about {_LEAST_MEMORY_GB:.0f} GB"
    yield Finding("memory", "ok" if enough else "limited", f"{free_gb:.1f} GB free", mend)


def _free_memory() -> float:
    """Bytes that can still be used: of the machine, or of the container when that is less."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # "available" counts what caches would give back
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        pages = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        pages = min(pages, int(most) - int(used.read_text()))
    return float(pages)


def _output(folder: Path) -> Iterator[Finding]:
    free_gb = shutil.disk_usage(folder).free / 1e9
    enough = free_gb >= _LEAST_DISK_GB
    mend = "" if enough else "free some space, or write elsewhere with --out"
    yield Finding("disk", "ok" if enough else "limited", f"{free_gb:.1f} GB free in {folder}", mend)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fsync(file.fileno())
    except OSError as error:
        yield Finding("writing", "limited", f"{folder}: {error.strerror}", "write elsewhere with --out")
    else:
        yield Finding("writing", "ok", "files can be written, locked and flushed")
