"""Texts of the network that is being trained, written by the engine of inference: what GRPO learns from, and samples.

The picture is encoded and its prefix read once for all texts of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsqa.engines.cards import PIXELS_PER_TOKEN, ModelCard
from rsqa.engines.generation import Opening, Row, Rules, Writing, openings
from rsqa.engines.prefix import Prefix, prefix_shape, read_prefix
from rsqa.engines.preprocess import resample
from rsqa.engines.words import Words
from rsqa.models.language import Language, language_of
from rsqa.models.linear import AS_LOADED, Precision
from rsqa.models.vision import Vision, encode, vision_of
from rsqa.models.writing import Chance
from rsqa.tasks.prompts import suffix_text
from rsqa.tasks.question import Question
from rsqa.train.prompts import Prompt

SHOWN, SHOWN_TOKENS = 4, 96
"""Most samples that the log shows, and tokens of each: to be looked at, so they must cost nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A prompt as the network reads it."""

    prompt: Prompt
    number: int
    """Its place in the stream of prompts: texts are drawn by it."""
    pixels: Tensor
    """(3, h, w) uint8 at the side that the model sees."""
    suffix: tuple[int, ...]
    """Tokens between the picture and the first one of the text."""


def asked(prompt: Prompt, number: int, words: Words, card: ModelCard) -> Asked:
    """Resample the picture and spell the question. QuestionError for words that steer the model."""
    question = Question("prompt", prompt.question, "open")
    words.check(question)
    pixels = torch.from_numpy(prompt.pixels)[None]
    side = card.model_side(*prompt.pixels.shape[1:])
    return Asked(prompt, number, resample(pixels, side)[0], words.encode(suffix_text(question, card.prompt)))


@torch.no_grad()
def write(
    network: Any,
    words: Words,
    prompts: Sequence[Asked],
    rows: int,
    budget: int,
    chance: Chance | None = None,
    precision: Precision = AS_LOADED,
) -> list[list[Row]]:
    """Texts of at most `budget` tokens, `rows` at once -> those of each prompt; without `chance` the likeliest, one.

    `precision`: of the copy that writes; the network stays as it is.
    """
    language, vision = language_of(network, precision), vision_of(network.model.visual, precision)
    texts: list[list[Row]] = [[] for _ in prompts]
    if not prompts:
        return texts
    samples = chance.samples if chance else 1
    places = {ask.number: place for place, ask in enumerate(prompts)}
    rules = Rules(words.stops, budget, lambda row: False)
    writing = Writing(language, min(rows, samples * len(prompts)), rules, chance)
    for done in writing.write(_read(language, vision, words, prompts)):
        for row in done:
            texts[places[row.tile]].append(row)
    return [sorted(some, key=lambda row: row.sample) for some in texts]


def samples(network: Any, words: Words, asks: Sequence[Asked]) -> list[dict[str, str]]:
    """The likeliest text for each prompt beside its truth."""
    written = write(network, words, asks, SHOWN, SHOWN_TOKENS)
    return [
        {"question": ask.prompt.question, "text": words.decode(row.tokens), "answer": ask.prompt.answer}
        for ask, (row,) in zip(asks, written, strict=True)
    ]


def _read(
    language: Language, vision: Vision, words: Words, prompts: Sequence[Asked]
) -> Iterator[tuple[slice, Prefix, Opening]]:
    """Pictures one by one, each with its own question."""
    for ask in prompts:
        height, width = ask.pixels.shape[1:]
        grid = height // PIXELS_PER_TOKEN, width // PIXELS_PER_TOKEN
        shape = prefix_shape(language, words.before, grid, words.after)
        visual = encode(vision, ask.pixels[None].to(language.words.device), vision.turns(height, width))
        (opening,) = openings(language, shape, [(0, ask.suffix)], len(ask.suffix))
        yield slice(ask.number, ask.number + 1), read_prefix(language, visual, shape), opening
