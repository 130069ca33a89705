"""Many texts written at once, a token a step: static memory, every row at its own length.

R rows, T tokens of room, G key-value heads, C channels of a head, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsqa.models.graph import Recorded
from rsqa.models.language import KeysValues, Language, attention

ROOM = 128
"""Keys are looked at in multiples of so many tokens: one graph each, and little of the room is read in vain."""


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


class Desk:
    """Memory for R rows and the step that adds a token to each. Rows that are not active hold still."""

    def __init__(self, language: Language, rows: int) -> None:
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
        self._step = Recorded(self._advance, (self.tokens, self.logprobs, self.lengths, self._positions))

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
        self._step = Recorded(self._advance, (self.tokens, self.logprobs, self.lengths, self._positions))

    def write(self, steps: int, longest: int) -> tuple[Tensor, Tensor]:
        """`steps` more tokens of every row, the likeliest -> tokens (R, steps) and their log-probabilities.

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
        tokens, logprobs = likeliest(language, language.finish(x[:, 0]))
        self.tokens.copy_(tokens)
        self.logprobs.copy_(logprobs)
        self.lengths += self._active
        self._positions += self._active

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
