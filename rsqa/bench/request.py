"""What a benchmark was told, from the command line or from words `name=value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rsqa.bench.sides import SIDES
from rsqa.bench.work import Case
from rsqa.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """See `rsqa bench --help` for the meaning of each; lists are written with commas."""

    shape: str = "nano"
    tile_px: str = "224"
    questions: str = "8"
    answer: str = "closed"
    tiles: int = 16
    rival_tiles: int | None = None
    sides: str = ",".join(SIDES)
    rounds: int = 3
    sample: int = 2
    threads: int | None = None
    vllm_python: str | None = None
    checkpoint_dir: Path | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    plot: Path | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype == "int8":
            raise UsageError("--dtype int8 asked; the other sides have none: choose fp32, bf16 or fp16")

    def cases(self) -> tuple[Case, ...]:
        """Every combination of the lists. UsageError names what is no number."""
        return tuple(
            Case(px, self.tiles, n, tokens)
            for px in _numbers("--tile-px", self.tile_px)
            for n in _numbers("--questions", self.questions)
            for tokens in (None if a == "closed" else _number("--answer", a) for a in _items(self.answer))
        )

    def side_names(self) -> tuple[str, ...]:
        """Each once. UsageError for one that is not known."""
        names = tuple(dict.fromkeys(_items(self.sides)))
        if unknown := [name for name in names if name not in SIDES]:
            raise UsageError(f"--sides: unknown side {unknown[0]!r}; choose from {', '.join(SIDES)}")
        return names


def request_from_words(words: Sequence[str]) -> BenchRequest:
    """`tile_px=224,448`, `plot=bench.png`, … -> the request. UsageError names a word that makes no sense."""
    kinds = {field.name: str(field.type) for field in fields(BenchRequest)}
    told: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in kinds or not value:
            raise UsageError(f"{word!r} given; write name=value with a name of {', '.join(kinds)}")
        if kinds[name].startswith("int"):
            told[name] = 0 if (name, value) == ("sample", "0") else _number(name, value)
        else:
            told[name] = Path(value) if kinds[name].startswith("Path") else value
    return BenchRequest(**told)


def _numbers(option: str, text: str) -> list[int]:
    return [_number(option, item) for item in _items(text)]


def _number(option: str, item: str) -> int:
    if not item.isascii() or not item.isdigit() or int(item) < 1:
        more = " or closed" if option == "--answer" else ""
        raise UsageError(f"{option}: {item!r} given; write whole numbers from 1 up{more}, with commas between them")
    return int(item)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]
