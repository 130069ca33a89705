"""Pictures with facts, and batches as a pure function of (seed, step): a resumed run sees what it would have seen.

B pictures, A of them with questions, S suffix tokens.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.engines.preprocess import resample
from rsqa.errors import SourceMissing
from rsqa.tasks.prompts import END, PromptStyle, prefix_text, suffix_text
from rsqa.train import words
from rsqa.train.batch import Batch, Known
from rsqa.train.digits import digit_tokens, hundredths
from rsqa.train.facts import Facts, cropped
from rsqa.train.forward import Framed
from rsqa.train.packing import IGNORE, Chain, packed
from rsqa.train.parts import Part, part_of
from rsqa.train.turns import PresenceRates, Turn, TurnShares, turns_of

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
        family = tuple(words.AID_NAMES.values())
        return Picture(row["id"], pixels, class_facts(words.AID_NAMES[row["cls"]], family, row))
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
    known = class_facts(words.UCM_NAMES[row["cls"]], tuple(words.UCM_NAMES.values()), row)
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
        asked=tuple(asked), asked_upright=tuple(upright), labels=labels,
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
        # Zero is asked as presence; of the rest only what is there, so that "0" does not drown the digits.
        counts={noun: n for noun, n in counts.items() if n and words.NOUNS[noun].many},
        boxes=tuple((noun, box) for noun, box in boxes if noun in boxed),
        boxed=boxed,
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
    pixels = torch.from_numpy(np.array(picture.pixels[:, row : row + h, col : col + w]))
    # Whole pictures stay upright more often: only then questions about places and numbers can be asked.
    keep = 0.6 if whole and not picture.whole else 0.2
    turn, mirror = (0, False) if rng.random() < keep else (int(rng.integers(4)), bool(rng.random() < 0.5))
    chip = torch.rot90(resample(pixels[None], (side, side))[0].float(), turn, (1, 2))
    ground = torch.rot90(ground_of(picture, side), turn, (0, 1))
    if mirror:
        chip, ground = chip.flip(2), ground.flip(1)
    upright = whole and turn == 0 and not mirror
    facts = facts_in(picture, window).turned(turn, mirror)
    return View(colour_jitter(chip, jitter, rng), facts, ground, upright)


def ground_of(picture: Picture, side: int) -> Tensor:
    """-> (rows, cols, kinds) of a picture, zero where its ground is not known."""
    if picture.ground is not None:
        return torch.from_numpy(np.array(picture.ground))
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


def blended(pixels: Tensor, chance: float, rng: Rng) -> Tensor:
    """(B, 3, h, w) -> the same, some pictures with a weak shadow of another one: a mixup that keeps the main label."""
    b = len(pixels)
    own = np.where(rng.random(b) < chance, rng.uniform(BLEND_LEAST, 1.0, b), 1.0).astype(np.float32)
    weight = torch.from_numpy(own).reshape(b, 1, 1, 1)
    return weight * pixels + (1 - weight) * pixels[torch.from_numpy(rng.permutation(b))]


class CaptionWords:
    """The words of captions that tell pictures apart: neither rare nor in most."""

    FEWEST, MOST = 20, 0.4
    """Pictures that a word must be said of, and share of the pictures from which it tells nothing."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        """`captions` of each picture."""
        seen = Counter(word for some in captions for word in self._of(some))
        most = self.MOST * max(1, sum(map(bool, captions)))
        self.words = tuple(sorted(word for word, n in seen.items() if self.FEWEST <= n <= most))
        self._index = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @staticmethod
    def _of(captions: Sequence[str]) -> set[str]:
        return {word for caption in captions for word in re.findall("[a-z]+", caption)}

    def targets(self, captions: Sequence[str]) -> Tensor:
        """Captions of one picture -> (W,)."""
        said = torch.zeros(len(self)) if captions else torch.full((len(self),), -1.0)
        found = [self._index[word] for word in self._of(captions) if word in self._index]
        said[torch.tensor(found, dtype=torch.long)] = 1.0
        return said


def hints(facts: Sequence[Facts], ground: Sequence[Tensor], said: CaptionWords) -> Known:
    """Facts of pictures and (rows, cols, kinds) of their ground as targets."""
    nouns = [[1 if noun in f.present else 0 if noun in f.absent else -1 for noun in words.NOUNS] for f in facts]
    scene = [CLASS_NAMES.index(f.name) if f.name else IGNORE for f in facts]
    places = torch.stack(list(ground))
    grid = places.shape[1] // CELLS_PER_TOKEN
    things, boxes = zip(*(things_by_token(f, grid) for f in facts), strict=True)
    people = [() if f.main_options or f.shares else f.captions for f in facts]
    return Known(
        torch.tensor(nouns), torch.tensor(scene), by_token(places), torch.stack(things), torch.stack(boxes),
        torch.stack([said.targets(some) for some in people]),
    )  # fmt: skip


def by_token(ground: Tensor) -> Tensor:
    """(B, rows, cols, kinds) in 255ths -> (B, S, cells of a token, kinds) shares."""
    b, rows, cols, kinds = ground.shape
    n = CELLS_PER_TOKEN
    cells = ground.reshape(b, rows // n, n, cols // n, n, kinds).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(b, -1, n * n, kinds).float() / 255


def things_by_token(facts: Facts, grid: int) -> tuple[Tensor, Tensor]:
    """-> `Known.things` and `Known.boxes` of one picture of `grid` x `grid` visual tokens."""
    things = torch.full((grid * grid, len(words.BOXED)), -1.0)
    boxes = torch.zeros(grid * grid, len(words.BOXED), 4)
    for number, noun in enumerate(words.BOXED):
        if noun not in facts.boxed:
            continue
        things[:, number] = 0.0
        for x1, y1, x2, y2 in sorted(facts.of(noun), key=lambda box: (box[2] - box[0]) * (box[3] - box[1])):
            col, row = (min(int(middle * grid), grid - 1) for middle in ((x1 + x2) / 2, (y1 + y2) / 2))
            token = row * grid + col  # of several in one token the largest is told, which comes last
            things[token, number] = 1.0
            middle = torch.tensor([col, row, col, row]) + 0.5
            boxes[token, number] = torch.tensor([x1, y1, x2, y2]) * grid - middle
    return things, boxes


@dataclass(frozen=True, slots=True)
class Phrasing:
    """Turns into tokens, in one prompt style."""

    encode: Callable[[str], Sequence[int]]
    style: PromptStyle

    @property
    def framed(self) -> Framed:
        """What stands around the image."""
        before, after = prefix_text(self.style)
        return Framed(tuple(self.encode(before)), tuple(self.encode(after)))

    def chain(self, turn: Turn) -> Chain:
        """Question and answer as the engine reads and writes them."""
        text = (
            f"<reasoning>{turn.trace}</reasoning><answer>{turn.answer}</answer>"
            if self.style.reasoning
            else turn.answer
        )
        asked = self.encode(suffix_text(turn.question, self.style))
        chain = Chain.of([(asked, False), (self.encode(text + END), True)], turn.kind)
        if turn.question.kind != "box":
            return chain
        return replace(chain, hundredths=hundredths(chain, digit_tokens(self.encode)))

    def row(self, turns: Sequence[Turn]) -> list[Chain]:
        """Chains of one picture; a reasoning style leaves out turns of which nothing but the answer is known."""
        return [self.chain(turn) for turn in turns if turn.trace or not self.style.reasoning]


@dataclass(frozen=True, slots=True)
class Looks:
    """How training pictures are changed."""

    crop_min: float
    jitter: float
    blend: float


class Batches:
    """Draws batches from picture sets by their shares."""

    def __init__(
        self,
        sets: Sequence[PictureSet],
        shares: Sequence[float],
        phrasings: Sequence[tuple[Phrasing, float]],
        side: int,
        suffix_tokens: int,
        asked: TurnShares,
        said: CaptionWords,
    ) -> None:
        """`phrasings`: each with how often a batch is drawn in it."""
        self.sets, self.side, self.suffix_tokens, self.asked, self.said = tuple(sets), side, suffix_tokens, asked, said
        self.shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
        self.phrasings = tuple(phrasing for phrasing, _ in phrasings)
        self.chances = np.asarray([chance for _, chance in phrasings]) / sum(chance for _, chance in phrasings)

    def train(self, seed: tuple[int, ...], size: int, asked: int, looks: Looks) -> Batch:
        """The batch that `seed` (recipe, step, process) stands for: random pictures, views and questions.

        Only the first `asked` pictures have questions; of all it is known what they show.
        """
        rng = np.random.default_rng(seed)
        phrasing = self.phrasings[int(rng.choice(len(self.phrasings), p=self.chances))]
        views: list[View] = []
        rows: list[list[Chain]] = []
        for which in rng.choice(len(self.sets), size=size, p=self.shares):
            source = self.sets[which]
            seen = view(source.draw(rng), looks.crop_min, looks.jitter, self.side, rng)
            views.append(seen)
            if len(rows) < asked:
                turns = turns_of(seen.facts, source.rates, CLASS_NAMES, seen.upright, rng, self.asked)
                rows.append(phrasing.row(turns))
        pixels = blended(torch.stack([seen.chip for seen in views]), looks.blend, rng)
        known = hints([seen.facts for seen in views], [seen.ground for seen in views], self.said)
        return Batch(pixels, phrasing.framed, packed(rows, 0, self.suffix_tokens), known)

    def whole(self, source: PictureSet, first: int, size: int, seed: int, phrasing: Phrasing) -> Batch:
        """Pictures `first` to `first + size` of a set, whole, unturned and unjittered, with random questions."""
        chips, known, rows = [], [], []
        for number in range(first, min(first + size, len(source.pictures))):
            picture = source.pictures[number]
            rng = np.random.default_rng([seed, number])
            chips.append(resample(torch.from_numpy(np.array(picture.pixels[None])), (self.side, self.side))[0].float())
            known.append(facts_in(picture, None))
            turns = turns_of(known[-1], source.rates, CLASS_NAMES, True, rng, self.asked)
            rows.append(phrasing.row(turns))
        targets = hints(known, [ground_of(p, self.side) for p in source.pictures[first : first + size]], self.said)
        return Batch(torch.stack(chips), phrasing.framed, packed(rows, 0, self.suffix_tokens), targets)
