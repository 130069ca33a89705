"""Pictures with facts: what the rows of a data file say of each, and what a crop leaves of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from rsqa.errors import SourceMissing
from rsqa.tasks import schemes
from rsqa.train import words
from rsqa.train.facts import Facts, cropped
from rsqa.train.parts import Part, part_of
from rsqa.train.turns import PresenceRates

CELLS_PER_TOKEN = 4
"""Cells of known ground along each side of a visual token."""
FILES = ("ucm", "aid", "vhr10", "airports")
_BOX_NOUNS = {
    "airplane": "airplane", "ship": "ship", "storage tank": "tanks", "baseball diamond": "baseball-field",
    "tennis court": "court", "basketball court": "basketball-court", "ground track field": "track", "harbor": "harbor",
    "bridge": "bridge", "vehicle": "cars",
}  # fmt: skip

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture and what is known of it."""

    id: str
    pixels: NDArray[np.uint8]
    """(3, H, W)."""
    facts: Facts
    """Of the whole picture."""
    whole: bool = False
    """Never cropped: its facts hold for exactly this window."""
    ground: NDArray[np.uint8] | None = None
    """(rows, cols, kinds) share of each of `words.GROUND` in each cell, in 255ths; `CELLS_PER_TOKEN` cells a side."""


@dataclass(frozen=True, slots=True)
class PictureSet:
    """The pictures of one source and how often their presence questions are asked."""

    name: str
    pictures: tuple[Picture, ...]
    rates: PresenceRates
    chance: NDArray[np.float64]
    """(n,) how often each picture is drawn, cumulative."""

    @classmethod
    def of(cls, name: str, pictures: Sequence[Picture], rare: Sequence[str] = ()) -> PictureSet:
        """Balance presence within the set, so that no set leans to one answer.

        All pictures are drawn alike; with `rare` nouns, those that show seldom ones more often.
        """
        known = [facts_in(p, None) for p in pictures]
        shown = np.array([[noun in facts.present for noun in rare] for facts in known], np.float64)
        weight = shown @ (1 / np.maximum(shown.mean(axis=0), 1 / len(pictures))) + 1
        return cls(name, tuple(pictures), PresenceRates.balanced(known), np.cumsum(weight) / weight.sum())

    def draw(self, rng: Rng) -> Picture:
        """One picture by chance."""
        return self.pictures[min(int(np.searchsorted(self.chance, rng.random(), "right")), len(self.pictures) - 1)]


def read_rows(data: Path, name: str) -> list[dict[str, Any]]:
    """All rows of `{name}.parquet`. Raises SourceMissing."""
    path = data / f"{name}.parquet"
    if not path.is_file():
        raise SourceMissing(
            f"no {path.name} in the data folder; --data names the folder with {', '.join(FILES)}.parquet"
        )
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def read_parquet(data: Path, name: str, part: Part) -> list[Picture]:
    """Decode the rows of `{name}.parquet` that belong to a part."""
    return [picture_of(name, row) for row in read_rows(data, name) if part_of(row["id"]) == part]


def picture_of(source: str, row: dict[str, Any]) -> Picture:
    """One row of a data file -> Picture."""
    with Image.open(io.BytesIO(row["image"])) as image:
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    if source == "ucm":
        return Picture(row["id"], pixels, ucm_facts(row))
    if source == "aid":
        family = tuple(schemes.AID_NAMES.values())
        return Picture(row["id"], pixels, class_facts(schemes.AID_NAMES[row["cls"]], family, row))
    height, width = pixels.shape[1:]
    boxed = frozenset(_BOX_NOUNS.values()) if source == "vhr10" else frozenset({"airplane"})
    boxes = tuple(
        (_BOX_NOUNS[thing["label"]], (x1 / width, y1 / height, x2 / width, y2 / height))
        for thing in json.loads(row["objects"])
        for x1, y1, x2, y2 in [thing["box"]]
    )
    base = words.IMPLIED["airport"] if source == "airports" else None
    known = Facts() if base is None else Facts(base.present, base.absent - {"airplane"})
    return Picture(row["id"], pixels, replace(known, boxes=boxes, boxed=boxed))


def class_facts(name: str, family: tuple[str, ...], row: dict[str, Any]) -> Facts:
    """What a scene class implies."""
    implied = words.IMPLIED[name]
    urban = True if name in words.URBAN else False if name in words.RURAL else None
    said = (" ".join(caption.lower().split()) for caption in row["captions"] or ())
    captions = tuple(caption.removesuffix(".").rstrip() + "." for caption in said)
    return Facts(implied.present, implied.absent, name=name, family=family, urban=urban, captions=captions)


def ucm_facts(row: dict[str, Any]) -> Facts:
    """Class, the 17 labels (which outrank what the class implies) and the questions people wrote."""
    known = class_facts(schemes.UCM_NAMES[row["cls"]], tuple(schemes.UCM_NAMES.values()), row)
    labels = words.shown_labels(row["labels"])
    asked, upright = [], []
    for pair in json.loads(row["vqa"] or "[]"):
        question, answer = pair["question"], pair["answer"].strip().lower()
        if question.lower().startswith("how many"):
            if number := number_of(answer):
                upright.append((question, number))
        elif "location" in question:
            upright.append((question, answer))
        else:
            asked.append((question, answer))
    return Facts(
        present=(known.present - frozenset(words.UCM_LABELS)) | labels,
        absent=(known.absent | frozenset(words.UCM_LABELS)) - labels,
        name=known.name, family=known.family, urban=known.urban, captions=known.captions,
        asked=tuple(asked), asked_upright=tuple(upright),
    )  # fmt: skip


def number_of(answer: str) -> str | None:
    """A count that the option list of counts holds, in digits."""
    digits = words.number_in_digits(answer)
    return digits if digits is not None and int(digits) <= 100 else None


Window = tuple[int, int, int, int]
"""(row, col, height, width)."""


def facts_in(picture: Picture, window: Window | None) -> Facts:
    """The facts of a crop: what is boxed is looked up, class and labels are taken to stay."""
    known = picture.facts
    if picture.whole or not known.boxed:
        return known
    height, width = picture.pixels.shape[1:]
    row, col, h, w = window or (0, 0, height, width)
    boxes, unsure = cropped(known.boxes, (col / width, row / height, (col + w) / width, (row + h) / height))
    boxed = known.boxed - unsure
    counts = dict.fromkeys(sorted(boxed), 0)
    for noun, _ in boxes:
        if noun in counts:
            counts[noun] += 1
    there = frozenset(noun for noun, _ in boxes)
    return replace(
        known,
        present=known.present | there,
        absent=(known.absent - known.boxed) | (boxed - there),
        counts={noun: n for noun, n in counts.items() if n and words.NOUNS[noun].many},
        boxes=tuple((noun, box) for noun, box in boxes if noun in boxed),
        boxed=boxed,
    )
