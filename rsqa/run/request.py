"""What a command was told, checked as far as no file is opened for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rsqa.errors import UsageError
from rsqa.raster.folders import common_folder, expand
from rsqa.raster.stac_search import is_search
from rsqa.run.place import Place, place_at
from rsqa.run.plan import MOST_TILES
from rsqa.tasks.question import Question
from rsqa.tasks.task import Ask, Caption, Detect, Task

TILE_PX = 448


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a command was told; see its help for the meaning of each."""

    sources: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    """Empty for captions: the model's card has the words."""
    task: Task = Ask()  # noqa: RUF009 frozen and without fields
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    out: Path | str | None = None
    """A folder, or the address of a prefix in an object store."""
    bands: str | None = None
    mask_band: str | None = None
    mask_values: str | None = None
    tile_px: int | None = TILE_PX
    """What the model sees at once, overlap included. None: that many for mosaics, and chips are shown whole."""
    overlap_px: int = 0
    """What neighbouring tiles share, source pixels as `tile_px`."""
    pyramid: bool = False
    """Whether larger tiles are asked too, for things larger than a tile."""
    gsd_m: float | None = None
    scale: str = "auto"
    min_valid: float = 0.5
    model: str | None = None
    adapter: Path | None = None
    card: str | None = None
    reasoning: bool | None = None
    batch_size: int | None = None
    workers: int | None = None
    scheduler: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    overwrite: bool = False
    retry_errors: bool = False
    max_duration_s: float | None = None
    allow_mixed: bool = False
    part_tiles: int | None = None
    cache_features: Path | None = None
    aoi: Path | None = None
    mosaic: bool = False
    asset: str | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        for name, value in (
            ("--tile-px", self.tile_px),
            ("--batch-size", self.batch_size),
            ("--workers", self.workers),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} asked; it must be at least 1")
        if not 0 <= self.overlap_px < (self.tile_px or TILE_PX):
            side = self.tile_px or TILE_PX
            raise UsageError(f"--overlap {self.overlap_px} asked of tiles of {side} px; choose 0 to less than that")
        if not self.questions and not isinstance(self.task, Caption | Detect):
            raise UsageError("nothing is asked; give --question TEXT or --question-file FILE")
        if not 0 <= self.min_valid <= 1:
            raise UsageError(f"--min-valid {self.min_valid} asked; it is a share from 0 to 1")
        if self.gsd_m is not None and not 0 < self.gsd_m < 1e6:
            raise UsageError(f"--gsd {self.gsd_m} asked; it is the ground size of a pixel in metres")
        self._check_scheduler()
        if self.out is not None:
            place_at(str(self.out))  # refuses an address before any file is opened
        if self.part_tiles is not None and not 1 <= self.part_tiles <= MOST_TILES:
            raise UsageError(f"--part-tiles {self.part_tiles} asked; choose 1 to {MOST_TILES}")

    def _check_scheduler(self) -> None:
        if self.scheduler is None:
            return
        if self.workers is not None:
            raise UsageError("--workers and --scheduler asked; a cluster that runs already has workers of its own")
        if self.device not in ("cpu", "cuda"):
            raise UsageError(
                f"--scheduler asked with --device {self.device}; say what its workers have: --device cuda or cpu"
            )
        if self.cache_features is not None:
            raise UsageError("--cache-features and --scheduler asked; features are kept on this machine alone")

    @property
    def place(self) -> Place:
        """Where the output goes: `out`, or the first source's stem in the current directory."""
        return place_at(str(self.out or f"{self._stem}.rsqa"))

    @property
    def _stem(self) -> str:
        if self.mosaic or is_search(self.sources[0]):
            return common_folder(self.sources)
        if self.task.chips and Path(self.sources[0]).is_dir():
            return Path(self.sources[0]).resolve().name
        [(_, name)] = expand(self.sources[:1])  # without what may be a secret in a URL
        return PurePosixPath(name).stem
