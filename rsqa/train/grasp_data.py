"""Questions about whole pictures, what the frozen tower sees of these, once, and batches as a function of the step.

R rows of a batch, C questions of a row, K slots of a question, S visual tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.engines.preprocess import resample
from rsqa.engines.visual import as_array
from rsqa.errors import InputError
from rsqa.sinks.whole import write_whole
from rsqa.tasks.boxes import Box
from rsqa.tasks.prompts import END
from rsqa.train.facts import Facts
from rsqa.train.grasp_recipe import GraspRecipe
from rsqa.train.packing import Chain, Packed, packed
from rsqa.train.parts import Part
from rsqa.train.pictures import Picture, PictureSet, facts_in, read_parquet
from rsqa.train.scene_windows import FIRST_HELD_SEED, FIRST_SEED, scene_windows
from rsqa.train.turns import Turn, presence, written
from rsqa.train.words import SCENE_NOUNS, UCM_LABELS

AT_ONCE = 64
"""Pictures that the tower sees together."""
ROWS_AT_ONCE = 8
"""Pictures whose questions are read together."""
QUIZ_SEED = 23
"""Of the questions: all methods and all seeds of a recipe are asked the same."""
Asked = tuple[Picture, list[Turn]]


@dataclass(frozen=True, slots=True)
class Quiz:
    """Pictures of one side, and what each is asked: the same in every epoch."""

    pixels: Tensor
    """(n, 3, side, side) uint8."""
    turns: tuple[tuple[Turn, ...], ...]
    """Of each picture; none is empty."""

    def __len__(self) -> int:
        return len(self.turns)


def read_quizzes(recipe: GraspRecipe, data: Path, cache: Path, side: int) -> tuple[Quiz, Quiz]:
    """-> what is learned from, and what is held back; scenes are rendered to the folder `cache`.

    Raises InputError when nothing is asked.
    """
    learned: list[Asked] = []
    held: list[Asked] = []
    names = set(recipe.questions) & {"rsivqa", "labels"}
    if names:
        parts: tuple[tuple[Part, list[Asked]], ...] = (("train", learned), ("validation", held))
        for part, into in parts:
            pictures = PictureSet.of("ucm", read_parquet(data, "ucm", part))
            into += _asked(pictures, UCM_LABELS if "labels" in names else (), "rsivqa" in names)
    if "scenes" in recipe.questions:
        nouns = tuple(SCENE_NOUNS.values())
        sources = (recipe.scene_windows, FIRST_SEED, learned), (recipe.held_windows, FIRST_HELD_SEED, held)
        for n, seed, into in sources:
            windows = scene_windows(n, side, cache / "scenes", seed)
            into += _asked(PictureSet.of("scenes", windows, rare=nouns), nouns, False)
    if not learned or not held:
        raise InputError(
            f"no picture in {data.name!r} can be asked {', '.join(recipe.questions)}; see the recipe's questions"
        )
    return _quiz(learned, side), _quiz(held, side)


def _asked(pictures: PictureSet, nouns: Sequence[str], human: bool) -> list[Asked]:
    """Each picture with its questions, those about presence as often "yes" as "no" for each noun."""
    found = []
    for number, picture in enumerate(pictures.pictures):
        rng = np.random.default_rng([QUIZ_SEED, number])
        facts = facts_in(picture, None)
        turns = [written(pair) for pair in (*facts.asked, *facts.asked_upright)] if human else []
        turns += _presences(facts, nouns, pictures, rng)
        if turns:
            found.append((picture, turns))
    return found


def _presences(facts: Facts, nouns: Sequence[str], pictures: PictureSet, rng: np.random.Generator) -> list[Turn]:
    known = [(noun, noun in facts.present) for noun in nouns if noun in facts.present | facts.absent]
    kept = [(noun, there) for noun, there in known if rng.random() < pictures.rates.keep.get((noun, there), 0.0)]
    return [presence(rng, noun, there, facts) for noun, there in kept]


def _quiz(asked: Sequence[Asked], side: int) -> Quiz:
    chips = [resample(torch.from_numpy(np.array(picture.pixels[None])), (side, side)) for picture, _ in asked]
    return Quiz(torch.cat(chips).round().to(torch.uint8), tuple(tuple(turns) for _, turns in asked))


def seen_once(
    pixels: Tensor, see: Callable[[Tensor], Tensor], device: torch.device, cache: Path, tower: str
) -> NDArray[Any]:
    """(n, 3, side, side) -> (n, S, D) as `rsqa.engines.visual.as_array`: what the frozen tower sees.

    Kept in a file of the folder `cache` and mapped from there, for all epochs and all runs; `tower` names its weights
    and precision. OutputError when the folder can't be written.
    """
    told = sha256(f"{tower} {tuple(pixels.shape)}".encode())
    told.update(pixels.numpy().tobytes())
    file = cache / f"seen-{told.hexdigest()[:16]}.npy"

    def write(part: Path) -> None:
        pieces = (as_array(see(some.to(device))) for some in torch.split(pixels, AT_ONCE))
        first = next(pieces)
        kept = np.lib.format.open_memmap(part, "w+", first.dtype, (len(pixels), *first.shape[1:]))
        for number, piece in enumerate(chain([first], pieces)):
            kept[number * AT_ONCE : number * AT_ONCE + len(piece)] = piece

    if not file.is_file():
        with torch.no_grad():
            write_whole(file, write)
    seen: NDArray[Any] = np.load(file, mmap_mode="r")
    return seen


@dataclass(frozen=True, slots=True)
class Rows:
    """Questions that share a prefix, each with its slots before it."""

    pictures: Tensor
    """(R,) index of the picture of each row."""
    text: Packed
    """A negative token -1 - c·K - k stands for slot k of question c."""
    questions: tuple[tuple[str, ...], ...]
    """Texts of each row's questions, C or fewer."""
    boxes: tuple[tuple[tuple[Box, ...] | None, ...], ...]
    """Where what each asks for is; see `Turn.boxes`."""


def rows_of(pictures: Sequence[int], quiz: Quiz, said: Callable[[Turn, int], Chain], alone: bool) -> Rows:
    """A row for each picture with all its questions; `alone`: for each question. `said`: turn and place in its row."""
    rows = [(i, turns) for i in pictures for turns in (((t,) for t in quiz.turns[i]) if alone else (quiz.turns[i],))]
    chains = [[said(turn, place) for place, turn in enumerate(turns)] for _, turns in rows]
    texts = tuple(tuple(turn.question.text for turn in turns) for _, turns in rows)
    boxes = tuple(tuple(turn.boxes for turn in turns) for _, turns in rows)
    return Rows(torch.tensor([i for i, _ in rows]), packed(chains, 0), texts, boxes)


def chain_of(turn: Turn, suffix: Sequence[int], answer: Callable[[str], Sequence[int]], slots: Sequence[int]) -> Chain:
    """Slots, the question as the engine asks it, and its answer, which is learned."""
    return Chain.of([((*slots, *suffix), False), (answer(turn.answer + END), True)], turn.kind)


def alike(pictures: Sequence[int], quiz: Quiz) -> list[list[int]]:
    """Pictures -> some of them at a time, such as have about as many words to read: rows of a table are as long as its
    longest.
    """
    order = sorted(pictures, key=lambda i: (sum(len(turn.question.text) for turn in quiz.turns[i]), i))
    return [order[first : first + ROWS_AT_ONCE] for first in range(0, len(order), ROWS_AT_ONCE)]


def picture_order(n: int, batch: int, step: int, seed: int) -> list[int]:
    """The pictures of a step: all in a new order every epoch, the rest of an epoch in a smaller step."""
    epoch, place = divmod(step, -(-n // batch))
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(n).tolist()
    return order[place * batch : (place + 1) * batch]
