"""The engine for every Qwen2-VL checkpoint: TinyRS and its family, Qwen2-VL-2B, tinyrs-nano, a user's fine-tune.

    chips ─ encode ─> visual tokens ─ prefix ─> keys and values ─┬─ score ────> closed questions, all in one pass
                                                                 └─ generate ─> open questions, one after the other

B tiles, H x W pixels, S visual tokens, D width, K options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.engines.base import Replies
from rsqa.engines.batching import PACKED_TOKENS, padded_batches
from rsqa.engines.cards import PIXELS_PER_TOKEN, ModelCard
from rsqa.engines.generation import Generated, greedy
from rsqa.engines.preprocess import normalise, resample
from rsqa.engines.reasoning import ReasonedScores
from rsqa.engines.scoring import Group, edge_logprobs, option_logprobs, pack
from rsqa.engines.words import Words
from rsqa.errors import ModelError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.keyvalues import Behind, KeyValues, Prefix
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.models.qwen2vl import encode, language, prefix_positions
from rsqa.tasks.question import Question

PIECE = 8
"""Chips resampled at once on a CPU: in float32, and several times over, a batch of large chips outweighs the model."""


class Qwen2VLEngine:
    """A network, its words and its card on one device."""

    def __init__(self, network: Any, words: Words, card: ModelCard) -> None:
        """`network`: transformers' Qwen2VLForConditionalGeneration. ModelError when its shape is another."""
        visual, text = network.model.visual, network.config.text_config
        unit = visual.patch_embed.patch_size * visual.spatial_merge_size
        if unit != PIXELS_PER_TOKEN:
            raise ModelError(
                f"a visual token of this model covers {unit} pixels a side, that of Qwen2-VL {PIXELS_PER_TOKEN}"
            )
        if set(text.layer_types) != {"full_attention"}:
            raise ModelError("this model attends in sliding windows; rsqa runs full attention only")
        self.network, self.words, self.card = network, words, card
        self.device: torch.device = network.lm_head.weight.device

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> Qwen2VLSession:
        """Ready the questions for chips of `tile_shape` (H, W), `batch` tiles at a time.

        QuestionError names the question that can't be asked.
        """
        return Qwen2VLSession(self, tuple(questions), tile_shape, batch)

    def encode(self, chips: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, S, D) visual tokens of chips resampled to the card's side."""
        side = self.card.model_side(*chips.shape[2:])
        piece = PIECE if self.device.type == "cpu" else len(chips)
        pixels = torch.cat([normalise(resample(some.to(self.device), side)) for some in torch.split(chips, piece)])
        return encode(self.network.model.visual, pixels.to(self.network.dtype))

    def prefix(self, visual: Tensor, side: tuple[int, int]) -> Prefix:
        """Read system prompt and image: (B, S, D) visual tokens of `side` (H, W) pixels -> their keys and values."""
        before, after = self._embed(self.words.before), self._embed(self.words.after)
        b = visual.shape[0]
        embeds = torch.cat([before.expand(b, -1, -1), visual, after.expand(b, -1, -1)], dim=1)
        rows, cols = side[0] // PIXELS_PER_TOKEN, side[1] // PIXELS_PER_TOKEN
        positions, position = prefix_positions(before.shape[1], rows, cols, after.shape[1])
        keys = KeyValues()
        language(self.network.model.language_model, embeds, positions[:, None].to(self.device), None, keys)
        return Prefix(keys, position)

    def score(self, prefix: Prefix, group: Group) -> Tensor:
        """-> (B, E) log-probability of every edge of the group, float32."""
        embeds = self.network.model.language_model.embed_tokens(group.ids)
        embeds = embeds.expand(prefix.rows, -1, -1)
        seen = torch.cat([group.mask.new_ones(len(group), len(prefix.keys)), group.mask], dim=1)
        positions = (group.depths + prefix.position).expand(3, 1, -1)
        hidden = language(self.network.model.language_model, embeds, positions, seen[None, None], Behind(prefix.keys))
        return edge_logprobs(self.network.lm_head, hidden[:, group.heads], group)

    def generate(
        self, prefix: Prefix, suffix: Sequence[int], budget: int, reached: Callable[[list[int]], bool] | None = None
    ) -> Generated:
        """Greedy text behind `suffix`, at most `budget` tokens; `reached` may end a row earlier."""
        ids = torch.tensor(suffix, device=self.device)
        return greedy(self.network, prefix, ids, self.words.stops, budget, reached)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """-> (1, len(ids), D)."""
        embedded: Tensor = self.network.model.language_model.embed_tokens(torch.tensor([ids], device=self.device))
        return embedded


def load_qwen2vl(card: ModelCard, checkpoint: Checkpoint, device: str, dtype: str) -> Qwen2VLEngine:
    """Read a checkpoint into memory."""
    words = Words(load_tokenizer(checkpoint), card)
    return Qwen2VLEngine(load_network(checkpoint, device, dtype), words, card)


class Qwen2VLSession:
    """Questions made ready for chips of one shape."""

    def __init__(
        self, engine: Qwen2VLEngine, questions: tuple[Question, ...], tile_shape: tuple[int, int], batch: int
    ) -> None:
        for question in questions:
            engine.words.check(question)
        self._engine, self._questions, self._shape, self._batch = engine, questions, tile_shape, batch
        self._side = engine.card.model_side(*tile_shape)
        self._suffixes = [engine.words.suffix(q) for q in questions]
        closed = [i for i, q in enumerate(questions) if q.closed]
        self._scored: list[int] = [] if engine.card.prompt.reasoning else closed
        self._reasoned = {
            i: ReasonedScores(engine.words, questions[i], engine.device) for i in closed if i not in self._scored
        }
        self._groups = pack([engine.words.branches(questions[i]) for i in self._scored], engine.device, PACKED_TOKENS)

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """(N, 3, H, W) RGB chips -> one `Replies` per question. `valid` is not used: the model knows no holes."""
        if chips.shape[1:] != (3, *self._shape):
            raise ValueError(f"session is for chips of {(3, *self._shape)}, got {chips.shape[1:]}")
        replies = [self._empty(i, len(chips)) for i in range(len(self._questions))]
        with torch.inference_mode():
            for rows, batch in padded_batches(chips, self._batch):
                for whole, piece in zip(replies, self._answer(batch), strict=True):
                    _fill(whole, rows, piece)
        return replies

    def _empty(self, index: int, n: int) -> Replies:
        question = self._questions[index]
        scores = np.full((n, len(question.options)), np.nan, np.float32) if question.closed else None
        if index in self._scored:
            return Replies(scores)
        return Replies(scores, np.empty(n, object), np.full(n, np.nan, np.float32), np.zeros(n, np.bool_))

    def _answer(self, chips: NDArray[np.uint8]) -> list[Replies]:
        """One batch of exactly one of the ladder's sizes."""
        if not self._questions:
            return []
        prefix = self._engine.prefix(self._engine.encode(torch.from_numpy(chips)), self._side)
        scores = self._score(prefix)
        return [Replies(scores[i]) if i in scores else self._write(prefix, i) for i in range(len(self._questions))]

    def _score(self, prefix: Prefix) -> dict[int, NDArray[np.float32]]:
        """-> question: (B, K) log p(option) for those that are scored right away."""
        scores = {i: np.empty((prefix.rows, len(self._questions[i].options)), np.float32) for i in self._scored}
        for group in self._groups:
            edges = self._engine.score(prefix, group)
            for share in group.shares:
                scores[self._scored[share.question]][:, share.options] = option_logprobs(edges, share).cpu().numpy()
        return scores

    def _write(self, prefix: Prefix, index: int) -> Replies:
        """Let the model write: an open answer, or the reasoning before a closed one."""
        reasoned, suffix = self._reasoned.get(index), self._suffixes[index]
        reached = reasoned.reached if reasoned else None
        written = self._engine.generate(prefix, suffix, self._engine.card.max_new_tokens, reached)
        scores = None
        if reasoned:
            scores = reasoned.score(self._engine.network, prefix, suffix, written).cpu().numpy()
        text = np.empty(prefix.rows, object)
        text[:] = [reasoned.text(row) if reasoned else self._engine.words.decode(row) for row in written.tokens]
        return Replies(scores, text, np.array(written.logprobs, np.float32), np.array(written.finished, np.bool_))


def _fill(whole: Replies, rows: slice, piece: Replies) -> None:
    """Copy the replies of a batch to their rows, without those of the tiles that only filled it up."""
    for column in fields(Replies):
        target, values = getattr(whole, column.name), getattr(piece, column.name)
        if target is not None:
            target[rows] = values[: rows.stop - rows.start]
