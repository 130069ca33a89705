"""Batches of pictures with facts as a pure function of (seed, step): a resumed run sees what it would have seen.

B pictures, A of them with questions, S suffix tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rsqa.engines.preprocess import resample
from rsqa.tasks import schemes
from rsqa.tasks.prompts import END, PromptStyle, prefix_text, suffix_text
from rsqa.train import words
from rsqa.train.batch import Batch, Known
from rsqa.train.digits import digit_tokens, hundredths
from rsqa.train.facts import Facts
from rsqa.train.forward import Framed
from rsqa.train.packing import IGNORE, Chain, packed
from rsqa.train.pictures import CELLS_PER_TOKEN, PictureSet, facts_in
from rsqa.train.turns import Turn, TurnShares, turns_of
from rsqa.train.views import View, blended, ground_of, view

CLASS_NAMES = tuple(dict.fromkeys((*schemes.UCM_NAMES.values(), *schemes.AID_NAMES.values())))


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
