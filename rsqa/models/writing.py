"""Many texts written at once, a token a step: static memory, every row at its own length.

R rows, T tokens of room, G key-value heads, C channels of a head, V vocabulary, K texts drawn of one beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.models.graph import Recorded
from rsqa.models.language import KeysValues, Language, attention

ROOM = 128
"""Keys are looked at in multiples of so many tokens: one graph each, and little of the room is read in vain."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Tokens are drawn, in place of the likeliest: from the whole vocabulary, several texts of one beginning.

    A text is fixed by its seed and its own number, whatever is written beside it.
    """

    seed: tuple[int, ...]
    """Numbers from 0."""
    samples: int
    """K."""
    temperature: float = 1.0

    def numbers(self, text: tuple[int, ...], n: int) -> NDArray[np.float64]:
        """-> (n,) in [0, 1), one for each token of the text that `text` names."""
        return np.random.default_rng((*self.seed, *text)).random(n)


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """Rows that begin behind the same words: where they go and what was read before their first token."""

    rows: Tensor
    """(n,) where to write them."""
    tokens: Tensor
    """(n,) their first tokens."""
    prefix: KeysValues
    """(B, G, P, C) keys and values of pictures."""
    suffix: KeysValues
    """(B, G, S, C) of what stands behind them."""
    pictures: Tensor
    """(n,) in 0..B-1."""
    path: Tensor
    """(s,) tokens of the suffix that these rows have read, in order."""
    position: int
    """Rotary position of the first token."""
    numbers: Tensor | None = None
    """(n, budget) float64 in [0, 1), by which the tokens are drawn; the first one is spent."""


class Desk:
    """Memory for R rows and the step that adds a token to each. Rows that are not active hold still."""

    def __init__(self, language: Language, rows: int, chance: Chance | None = None, budget: int = 0) -> None:
        """`chance`: draw at most `budget` tokens a text; None: write the likeliest."""
        device, layer = language.words.device, language.layers[0]
        self._language = language
        self._shape = (rows, layer.kv_heads, 0, len(layer.qkv_bias) // (layer.heads + 2 * layer.kv_heads))
        self.layers: KeysValues = [self._empty(0) for _ in language.layers]
        """(R, G, T, C) each."""
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        """The last token of each row; its keys are not held yet."""
        self.logprobs = torch.zeros(rows, device=device)
        """Its log-probability, over the whole vocabulary."""
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        """Tokens held."""
        self._positions = torch.zeros_like(self.lengths)
        self._active = torch.zeros_like(self.lengths)
        self._rows = torch.arange(rows, device=device)
        self._chance = chance
        self._numbers = torch.zeros(rows, budget, dtype=torch.float64, device=device)
        self._spent = torch.zeros_like(self.lengths)
        """Of the numbers of each row."""
        self._step = self._recorded()

    def _recorded(self) -> Recorded:
        state = (self.tokens, self.logprobs, self.lengths, self._positions, self._spent)
        return Recorded(self._advance, state)

    def begin(self, beginning: Beginning) -> None:
        """Take up rows."""
        rows, pictures, path = beginning.rows, beginning.pictures, beginning.path
        n_prefix = beginning.prefix[0][0].shape[2]
        length = n_prefix + len(path)
        self._make_room(length)
        for held, prefix, suffix in zip(self.layers, beginning.prefix, beginning.suffix, strict=True):
            for target, before, behind in zip(held, prefix, suffix, strict=True):
                target[rows, :, :n_prefix] = before[pictures]
                target[rows, :, n_prefix:length] = behind[pictures][:, :, path]
        self.tokens[rows] = beginning.tokens
        self.lengths[rows] = length
        self._positions[rows] = beginning.position
        self._active[rows] = 1
        if beginning.numbers is not None:
            self._numbers[rows] = beginning.numbers
            self._spent[rows] = 1

    def end(self, rows: Tensor) -> None:
        """Let go of rows."""
        self._active[rows] = 0
        self.lengths[rows] = 0

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, numbered anew in this order: a row costs time even when it holds still."""
        self._rows = torch.arange(len(rows), device=rows.device)
        self._shape = (len(rows), *self._shape[1:])
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        self.tokens, self.logprobs, self.lengths = self.tokens[rows], self.logprobs[rows], self.lengths[rows]
        self._positions, self._active = self._positions[rows], self._active[rows]
        self._numbers, self._spent = self._numbers[rows], self._spent[rows]
        self._step = self._recorded()

    def write(self, steps: int, longest: int) -> tuple[Tensor, Tensor]:
        """`steps` more tokens of every row -> tokens (R, steps) and their log-probabilities.

        `longest`: tokens that the longest active row holds.
        """
        self._make_room(longest + steps)
        tokens = torch.empty(len(self._rows), steps, dtype=torch.long, device=self.tokens.device)
        logprobs = torch.empty(len(self._rows), steps, device=self.tokens.device)
        for step in range(steps):
            self._step(-(-(longest + step + 1) // ROOM) * ROOM)
            tokens[:, step], logprobs[:, step] = self.tokens, self.logprobs
        return tokens, logprobs

    def _advance(self, room: int) -> None:
        """One step of all rows, looking at the first `room` tokens. Everything it touches keeps its place."""
        language = self._language
        seen = (torch.arange(room, device=self.tokens.device) <= self.lengths[:, None])[
            :, None, None
        ]  # (R, 1, 1, room)
        turns = language.turns(self._positions[None, :, None].expand(3, -1, -1))
        x = language.embed(self.tokens)[:, None]
        for layer, (keys, values) in zip(language.layers, self.layers, strict=True):
            query, key, value = language.enter(layer, x, turns)
            keys[self._rows, :, self.lengths] = key[:, :, 0]
            values[self._rows, :, self.lengths] = value[:, :, 0]
            x = language.leave(layer, x, attention(query, keys[:, :, :room], values[:, :, :room], seen))
        tokens, logprobs = self._choose(language.finish(x[:, 0]))
        self.tokens.copy_(tokens)
        self.logprobs.copy_(logprobs)
        self.lengths += self._active
        self._positions += self._active

    def _choose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D) -> (R,) next tokens and their log-probabilities."""
        if self._chance is None:
            return likeliest(self._language, hidden)
        # A row that has ended writes on until the next look at it; what it draws there is dropped.
        place = self._spent.clamp(max=self._numbers.shape[1] - 1)[:, None]
        tokens, logprobs = drawn(self._language, hidden, self._numbers.gather(1, place), self._chance.temperature)
        self._spent += self._active
        return tokens[:, 0], logprobs[:, 0]

    def _make_room(self, tokens: int) -> None:
        """Memory for so many tokens a row; what is held stays."""
        room = self.layers[0][0].shape[2]
        if tokens <= room:
            return
        wanted = max(2 * room, -(-tokens // ROOM) * ROOM)
        for index, held in enumerate(self.layers):
            larger = self._empty(wanted)
            for new, old in zip(larger, held, strict=True):
                new[:, :, :room] = old
            self.layers[index] = larger
        self._step.forget()

    def _empty(self, room: int) -> tuple[Tensor, Tensor]:
        """Zeros: what is masked is multiplied with 0, and 0 times whatever lies in fresh memory may be no number."""
        shape = (*self._shape[:2], room, self._shape[3])
        return self._language.words.new_zeros(shape), self._language.words.new_zeros(shape)


def likeliest(language: Language, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(n, D) hidden states -> the likeliest next tokens (n,) and their log-probabilities."""
    logits = language.logits(hidden)
    best = logits.max(dim=-1)
    return best.indices, best.values - logits.logsumexp(dim=-1)


def drawn(language: Language, hidden: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(…, D) hidden states, (…, K) numbers in [0, 1) -> (…, K) next tokens and their log-probabilities.

    A token is drawn where the sum of the probabilities before it passes the number; in float64, as the probabilities of
    a large vocabulary are small. `temperature` flattens (above 1) what is drawn from, the log-probabilities with it.
    """
    logprobs = (language.logits(hidden) / temperature).log_softmax(dim=-1)
    passed = logprobs.double().exp_().cumsum(dim=-1)
    tokens = torch.searchsorted(passed, numbers * passed[..., -1:], right=True)
    tokens = tokens.clamp_(max=logprobs.shape[-1] - 1)  # a number next to 1 may round up to the whole sum
    return tokens, logprobs.gather(-1, tokens)
