"""What every side is given: one checkpoint, pictures, questions, and how many tokens to write.

Q questions, S tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsqa.tasks.prompts import IMAGE_PAD
from rsqa.tasks.question import YES_NO, Question

if TYPE_CHECKING:
    from rsqa.engines.words import Words

NOUNS = (
    "water", "a road", "a river with a bridge", "a building", "a car park", "forest", "farmland", "a runway",
    "an aeroplane", "a ship", "a harbour", "a railway line", "a stadium", "a tennis court", "a pool", "a beach",
    "a storage tank", "a wind turbine", "a solar park", "a greenhouse", "a quarry", "a glacier", "bare rock", "a dam",
    "a roundabout", "a cemetery", "a golf course", "a power line", "a church", "a factory", "an orchard", "a meadow",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays for a whole benchmark."""

    folder: str
    """Of the checkpoint, with its card."""
    device: str
    """cpu, cuda or cuda:N."""
    dtype: str
    threads: int
    """That torch may use, on every side."""
    scratch: str
    """An empty folder for the side's own files."""
    batch_size: int | None = None
    """Tiles through rsqa at once; None: what rsqa chooses by itself. The other sides look for their best batch."""


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the grid."""

    tile_px: int
    n_tiles: int
    n_questions: int
    answer_tokens: int | None
    """Tokens of free text to write, neither more nor fewer; None: a closed answer."""
    seed: int = 0

    @property
    def budget(self) -> int:
        """Tokens that a side generates; a closed answer is the first one."""
        return self.answer_tokens or 1

    @property
    def name(self) -> str:
        """For people."""
        answer = "closed" if self.answer_tokens is None else f"{self.answer_tokens} tokens"
        return f"{self.tile_px} px, {self.n_questions} questions, {answer}"


def to_json(value: Setup | Case) -> dict[str, Any]:
    """What a pipe carries of it."""
    return asdict(value)


def pictures(case: Case) -> NDArray[np.uint8]:
    """-> (n_tiles, 3, px, px) pictures with colours, shapes and some noise, the same in every process."""
    from PIL import Image

    rng = np.random.default_rng(case.seed)
    tiles = np.empty((case.n_tiles, 3, case.tile_px, case.tile_px), np.uint8)
    for tile in tiles:
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        shapes = Image.fromarray(coarse).resize((case.tile_px, case.tile_px), Image.Resampling.BICUBIC)
        noise = rng.integers(-6, 7, (case.tile_px, case.tile_px, 3))
        tile[:] = np.moveaxis((np.asarray(shapes, np.int16) + noise).clip(0, 255), 2, 0)
    return tiles


def questions(case: Case) -> tuple[Question, ...]:
    """-> `n_questions` questions of different lengths: yes or no, or open."""
    nouns = (_noun(i) for i in range(case.n_questions))
    if case.answer_tokens is None:
        return tuple(Question(f"q{i}", f"Is there {noun}?", "yesno", YES_NO) for i, noun in enumerate(nouns))
    return tuple(Question(f"q{i}", f"Describe {noun} in the picture.", "open") for i, noun in enumerate(nouns))


def _noun(number: int) -> str:
    kind, which = divmod(number, len(NOUNS))
    return f"{NOUNS[which]} of kind {kind}" if kind else NOUNS[which]


def prompt_ids(words: Words, asked: Sequence[Question], n_image: int) -> list[list[int]]:
    """-> tokens of every prompt, its image as `n_image` placeholders."""
    [image] = words.encode(IMAGE_PAD)
    return [[*words.before, *[image] * n_image, *words.after, *words.suffix(question)] for question in asked]


def case_from_json(raw: Mapping[str, Any]) -> Case:
    """The inverse of `to_json`."""
    return Case(**raw)


def setup_from_json(raw: Mapping[str, Any]) -> Setup:
    """The inverse of `to_json`."""
    return Setup(**raw)
