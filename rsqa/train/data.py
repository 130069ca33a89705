"""Pictures with facts, and batches as a pure function of (seed, step): a resumed run sees what it would have seen.

B pictures, A of them with questions, S suffix tokens.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.errors import SourceMissing
from rsqa.train import words
from rsqa.train.turns import Asker, Facts, PresenceRates, Turn, turns_of

IGNORE = -100
CLASS_NAMES = tuple(dict.fromkeys((*words.UCM_NAMES.values(), *words.AID_NAMES.values())))
BLEND_LEAST = 0.65
"""Least weight of the picture that the questions are about."""
CELLS_PER_TOKEN = 4
"""Cells of known ground along each side of a visual token."""
FILES = ("ucm", "aid", "vhr10", "airports")
_BOX_NOUNS = {
    "airplane": "airplane", "ship": "ship", "storage tank": "tanks", "baseball diamond": "baseball-field",
    "tennis court": "court", "basketball court": "basketball-court", "ground track field": "track", "harbor": "harbor",
    "bridge": "bridge", "vehicle": "cars",
}  # fmt: skip

Rng = np.random.Generator
Part = Literal["train", "calibration", "validation"]


def part_of(picture_id: str) -> Part:
    """Validation pictures are never learned from; on calibration pictures only the card's temperatures are fitted."""
    place = zlib.crc32(picture_id.encode()) % 100
    return "validation" if place < 15 else "calibration" if place < 18 else "train"


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture and what is known of it."""

    id: str
    pixels: NDArray[np.uint8]
    """(3, H, W)."""
    facts: Facts
    """Of the whole picture; for boxes see `objects`."""
    objects: tuple[tuple[str, float, float], ...] = ()
    """(noun, row, col) of box centres, pixels; when any are given, presence and counts are taken from them."""
    boxed: frozenset[str] = frozenset()
    """Nouns whose boxes are complete."""
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


def ucm_labels(data: Path) -> dict[str, frozenset[str]]:
    """Picture id -> its labels out of the 17."""
    return {row["id"]: frozenset(row["labels"]) for row in read_rows(data, "ucm")}


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
        family = tuple(words.AID_NAMES.values())
        return Picture(row["id"], pixels, class_facts(words.AID_NAMES[row["cls"]], family, row))
    boxed = frozenset(_BOX_NOUNS.values()) if source == "vhr10" else frozenset({"airplane"})
    objects = tuple(
        (_BOX_NOUNS[o["label"]], (o["box"][1] + o["box"][3]) / 2, (o["box"][0] + o["box"][2]) / 2)
        for o in json.loads(row["objects"])
    )
    base = words.IMPLIED["airport"] if source == "airports" else None
    known = Facts() if base is None else Facts(base.present, base.absent - {"airplane"}, urban=None)
    return Picture(row["id"], pixels, known, objects, boxed)


def class_facts(name: str, family: tuple[str, ...], row: dict[str, Any]) -> Facts:
    """What a scene class implies."""
    implied = words.IMPLIED[name]
    urban = True if name in words.URBAN else False if name in words.RURAL else None
    said = (" ".join(caption.lower().split()) for caption in row["captions"] or ())
    captions = tuple(caption.removesuffix(".").rstrip() + "." for caption in said)
    return Facts(implied.present, implied.absent, {}, name, family, urban, captions=captions)


UCM_LABELS = (
    "airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile-home",
    "pavement",
    "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip


def ucm_facts(row: dict[str, Any]) -> Facts:
    """Class, the 17 labels (which outrank what the class implies) and the questions people wrote."""
    known = class_facts(words.UCM_NAMES[row["cls"]], tuple(words.UCM_NAMES.values()), row)
    labels = frozenset(row["labels"])
    unlabelled = frozenset(UCM_LABELS) - labels
    if "sea" in labels:
        unlabelled -= {"water"}  # the label "water" means inland water, but people call the sea water too
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
        present=(known.present - frozenset(UCM_LABELS)) | labels,
        absent=(known.absent - frozenset(UCM_LABELS)) | unlabelled,
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
    """The facts of a crop: boxes count when their centre is inside; class and labels are taken to stay."""
    if not picture.boxed:
        return picture.facts
    row, col, height, width = window or (0, 0, *picture.pixels.shape[1:])
    counts = dict.fromkeys(picture.boxed, 0)
    for noun, r, c in picture.objects:
        counts[noun] += row <= r < row + height and col <= c < col + width
    present = frozenset(noun for noun, n in counts.items() if n)
    return Facts(
        present=picture.facts.present | present,
        absent=(picture.facts.absent - picture.boxed) | (picture.boxed - present),
        # Zero is asked as presence; of the rest only what is there, so that "0" does not drown the digits.
        counts={noun: n for noun, n in counts.items() if n and words.NOUNS[noun].many},
        urban=picture.facts.urban,
    )


@dataclass(frozen=True, slots=True)
class View:
    """One look at a picture."""

    chip: Tensor
    """(3, side, side) on the scale 0..255."""
    facts: Facts
    ground: Tensor
    """(rows, cols, kinds) uint8, as `Picture.ground`; all zero where nothing is known."""
    upright: bool
    """Whether whole and unturned."""


def view(picture: Picture, crop_min: float, jitter: float, side: int, rng: Rng) -> View:
    """A random crop, turned or mirrored, its colours changed."""
    _, height, width = picture.pixels.shape
    window: Window = (0, 0, height, width)
    whole = picture.whole or rng.random() < 0.25
    if not whole:
        share = rng.uniform(crop_min, 1.0)
        # Chips are square at inference, so long pictures are cropped to about a square too.
        h = round(min(height, max(height, width) * share))
        w = round(min(width, max(height, width) * share))
        h, w = min(h, round(w * 1.25)), min(w, round(h * 1.25))
        window = (int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    row, col, h, w = window
    pixels = torch.from_numpy(picture.pixels[:, row : row + h, col : col + w])
    # Whole pictures stay upright more often: only then questions about places and numbers can be asked.
    keep = 0.6 if whole and not picture.whole else 0.2
    turn, mirror = (0, False) if rng.random() < keep else (int(rng.integers(4)), bool(rng.random() < 0.5))
    chip = torch.rot90(resample(pixels[None], (side, side))[0].float(), turn, (1, 2))
    ground = torch.rot90(ground_of(picture, side), turn, (0, 1))
    if mirror:
        chip, ground = chip.flip(2), ground.flip(1)
    upright = whole and turn == 0 and not mirror
    return View(colour_jitter(chip, jitter, rng), facts_in(picture, window), ground, upright)


def ground_of(picture: Picture, side: int) -> Tensor:
    """-> (rows, cols, kinds) of a picture, zero where its ground is not known."""
    if picture.ground is not None:
        return torch.from_numpy(picture.ground)
    grid = side // PIXELS_PER_TOKEN * CELLS_PER_TOKEN
    return torch.zeros((grid, grid, len(words.GROUND)), dtype=torch.uint8)


def colour_jitter(chip: Tensor, strength: float, rng: Rng) -> Tensor:
    """Random brightness, contrast, saturation and white balance; (3, h, w) on the scale 0..255."""
    if strength == 0:
        return chip
    light, contrast, colour = (float(v) for v in rng.uniform(1 - strength, 1 + strength, 3))
    balance = torch.from_numpy(rng.uniform(1 - strength / 3, 1 + strength / 3, (3, 1, 1)).astype(np.float32))
    grey = chip.mean(dim=0, keepdim=True)
    chip = (grey + (chip - grey) * colour) * balance
    middle = chip.mean()
    return ((chip - middle) * contrast + middle * light).clamp(0.0, 255.0)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the pictures of a batch without asking."""

    nouns: Tensor
    """(B, nouns) 1 present, 0 absent, -1 unknown, in the order of words.NOUNS."""
    scene: Tensor
    """(B,) index into CLASS_NAMES, IGNORE where the class is unknown."""
    ground: Tensor
    """(B, S, cells, kinds) share of each of words.GROUND in the cells of each visual token; zero where unknown."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B pictures, the first A of them with turns packed behind them."""

    pixels: Tensor
    """(B, 3, side, side) on the scale 0..255."""
    ids: Tensor
    """(A, S) suffix tokens of all turns, padded."""
    turn: Tensor
    """(A, S) number of the turn that a token belongs to, -1 at padding."""
    depth: Tensor
    """(A, S) place of a token within its turn."""
    labels: Tensor
    """(A, S) the token that must follow, IGNORE where it is not an answer's or the end."""
    kind: NDArray[np.object_]
    """(A, turns) what each turn is, None where there is none."""
    known: Known


def blended(pixels: Tensor, chance: float, rng: Rng) -> Tensor:
    """(B, 3, h, w) -> the same, some pictures with a weak shadow of another one: a mixup that keeps the main label."""
    b = len(pixels)
    own = np.where(rng.random(b) < chance, rng.uniform(BLEND_LEAST, 1.0, b), 1.0).astype(np.float32)
    weight = torch.from_numpy(own).reshape(b, 1, 1, 1)
    return weight * pixels + (1 - weight) * pixels[torch.from_numpy(rng.permutation(b))]


def hints(facts: Sequence[Facts], ground: Sequence[Tensor]) -> Known:
    """Facts of pictures and (rows, cols, kinds) of their ground as targets."""
    nouns = [[1 if noun in f.present else 0 if noun in f.absent else -1 for noun in words.NOUNS] for f in facts]
    scene = [CLASS_NAMES.index(f.name) if f.name else IGNORE for f in facts]
    return Known(torch.tensor(nouns), torch.tensor(scene), by_token(torch.stack(list(ground))))


def by_token(ground: Tensor) -> Tensor:
    """(B, rows, cols, kinds) in 255ths -> (B, S, cells of a token, kinds) shares."""
    b, rows, cols, kinds = ground.shape
    n = CELLS_PER_TOKEN
    cells = ground.reshape(b, rows // n, n, cols // n, n, kinds).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(b, -1, n * n, kinds).float() / 255


def packed(
    pixels: Tensor,
    known: Known,
    turns: Sequence[Sequence[Turn]],
    encode: Callable[[str], list[int]],
    end: int,
    length: int,
) -> Batch:
    """Pack the turns of each picture in one row, as many as fit in `length` tokens.

    The shape is always the same, because kernels for a CPU are built once per shape.
    """
    rows = []
    for asked in turns:
        ids: list[int] = []
        turn: list[int] = []
        depth: list[int] = []
        labels: list[int] = []
        kinds: list[str] = []
        for one in asked:
            question, answer = encode(one.suffix), [*encode(one.answer), end]
            chain = [*question, *answer[:-1]]  # the end token is predicted, never read
            if len(ids) + len(chain) > length:
                continue
            ids += chain
            turn += [len(kinds)] * len(chain)
            depth += range(len(chain))
            labels += [IGNORE] * (len(question) - 1) + answer
            kinds.append(one.kind)
        rows.append((ids, turn, depth, labels, kinds))

    def table(column: int, fill: int) -> Tensor:
        return torch.tensor([row[column] + [fill] * (length - len(row[column])) for row in rows])

    kind = np.full((len(rows), max(1, *(len(row[4]) for row in rows))), None, dtype=object)
    for i, row in enumerate(rows):
        kind[i, : len(row[4])] = row[4]
    return Batch(pixels, table(0, end), table(1, -1), table(2, 0), table(3, IGNORE), kind, known)


class Batches:
    """Draws batches from picture sets by their shares."""

    def __init__(
        self,
        sets: Sequence[PictureSet],
        shares: Sequence[float],
        tokenizer: Any,
        asker: Asker,
        side: int,
        suffix_tokens: int,
    ) -> None:
        self.sets, self.asker, self.side, self.suffix_tokens = tuple(sets), asker, side, suffix_tokens
        self.shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
        self.end = int(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.encode = lru_cache(maxsize=200_000)(lambda text: tokenizer.encode(text, add_special_tokens=False))

    def train(
        self, seed: tuple[int, ...], size: int, asked: int, crop_min: float, jitter: float, blend: float
    ) -> Batch:
        """The batch that `seed` (recipe, step, process) stands for: random pictures, views and questions.

        Only the first `asked` pictures have questions; of all it is known what they show.
        """
        rng = np.random.default_rng(seed)
        views: list[View] = []
        turns: list[list[Turn]] = []
        for which in rng.choice(len(self.sets), size=size, p=self.shares):
            source = self.sets[which]
            seen = view(source.draw(rng), crop_min, jitter, self.side, rng)
            views.append(seen)
            if len(turns) < asked:
                turns.append(turns_of(seen.facts, source.rates, CLASS_NAMES, self.asker, seen.upright, rng))
        pixels = blended(torch.stack([seen.chip for seen in views]), blend, rng)
        known = hints([seen.facts for seen in views], [seen.ground for seen in views])
        return packed(pixels, known, turns, self.encode, self.end, self.suffix_tokens)

    def whole(self, source: PictureSet, first: int, size: int, seed: int) -> Batch:
        """Pictures `first` to `first + size` of a set, whole, unturned and unjittered, with random questions."""
        chips, known, turns = [], [], []
        for number in range(first, min(first + size, len(source.pictures))):
            picture = source.pictures[number]
            rng = np.random.default_rng([seed, number])
            chips.append(resample(torch.from_numpy(picture.pixels[None]), (self.side, self.side))[0].float())
            known.append(facts_in(picture, None))
            turns.append(turns_of(known[-1], source.rates, CLASS_NAMES, self.asker, True, rng))
        targets = hints(known, [ground_of(p, self.side) for p in source.pictures[first : first + size]])
        return packed(torch.stack(chips), targets, turns, self.encode, self.end, self.suffix_tokens)
