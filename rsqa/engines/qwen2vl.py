"""The engine for every Qwen2-VL checkpoint: TinyRS and its family, Qwen2-VL-2B, tinyrs-nano, a user's fine-tune.

    chips ─ encode ─> visual tokens ─ prefix ─> keys and values ─┬─ score ────> closed questions, all in one pass
                                                                 └─ generate ─> open ones, many texts at once

B tiles, H x W pixels, S visual tokens, D width, K options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.engines.base import Replies
from rsqa.engines.batching import PACKED_TOKENS, ROWS, ROWS_PER_TILE, padded_batches
from rsqa.engines.cards import PIXELS_PER_TOKEN, ModelCard
from rsqa.engines.generation import Opening, Row, Rules, Writing, openings
from rsqa.engines.memory import fitting
from rsqa.engines.prefix import Packed, Prefix, PrefixShape, pack_behind, prefix_shape, read_packed, read_prefix
from rsqa.engines.preprocess import resample
from rsqa.engines.reasoning import CLOSING, OPENING, ReasonedScores, Tags
from rsqa.engines.scoring import Group, edge_logprobs, option_logprobs, pack
from rsqa.engines.visual import as_array, as_visual, to_device
from rsqa.engines.words import Words
from rsqa.errors import ModelError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.language import Language, take_language
from rsqa.models.linear import AS_LOADED, Precision, eight_bits
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.models.vision import Vision, encode, take_vision
from rsqa.tasks.question import Question


class Qwen2VLEngine:
    """A network, its words and its card on one device."""

    def __init__(self, network: Any, words: Words, card: ModelCard, precision: Precision = AS_LOADED) -> None:
        """`network`: transformers' Qwen2VLForConditionalGeneration, which is used up. ModelError for another shape."""
        visual, text = network.model.visual, network.config.text_config
        unit = visual.patch_embed.patch_size * visual.spatial_merge_size
        if unit != PIXELS_PER_TOKEN:
            raise ModelError(
                f"a visual token of this model covers {unit} pixels a side, that of Qwen2-VL {PIXELS_PER_TOKEN}"
            )
        if set(text.layer_types) != {"full_attention"}:
            raise ModelError("this model attends in sliding windows; rsqa runs full attention only")
        if network.config.vision_config.hidden_act != "quick_gelu" or text.hidden_act != "silu":
            raise ModelError(
                f"this model uses {network.config.vision_config.hidden_act} and {text.hidden_act}; "
                "those of Qwen2-VL are quick_gelu and silu"
            )
        self.words, self.card = words, card
        self.device: torch.device = network.lm_head.weight.device
        self.vision: Vision = take_vision(visual, precision)
        self.language: Language = take_language(network, precision)
        if self.device.type == "cuda":
            self.vision, self.language = self.vision.compiled(), self.language.compiled()

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> Qwen2VLSession:
        """Ready the questions for chips of `tile_shape` (H, W), `batch` tiles at a time.

        QuestionError names the question that can't be asked.
        """
        return Qwen2VLSession(self, tuple(questions), tile_shape, batch)

    def prefix_shape(self, side: tuple[int, int]) -> PrefixShape:
        """The prefix of chips that the model sees with `side` (H, W) pixels."""
        grid = side[0] // PIXELS_PER_TOKEN, side[1] // PIXELS_PER_TOKEN
        return prefix_shape(self.language, self.words.before, grid, self.words.after)


def load_qwen2vl(card: ModelCard, checkpoint: Checkpoint, device: str, dtype: str) -> Qwen2VLEngine:
    """Read a checkpoint into memory; `dtype` int8: matrices of 8 bits, converted one after the other."""
    words = Words(load_tokenizer(checkpoint), card)
    if dtype != "int8":
        return Qwen2VLEngine(load_network(checkpoint, device, dtype), words, card)
    precision = eight_bits(torch.float32 if device == "cpu" else torch.bfloat16)
    return Qwen2VLEngine(load_network(checkpoint, device, "auto"), words, card, precision)


class Qwen2VLSession:
    """Questions made ready for chips of one shape."""

    def __init__(
        self, engine: Qwen2VLEngine, questions: tuple[Question, ...], tile_shape: tuple[int, int], batch: int
    ) -> None:
        for question in questions:
            engine.words.check(question)
        self._engine, self._questions, self._shape, self._batch = engine, questions, tile_shape, batch
        self._side = engine.card.model_side(*tile_shape)
        self._turns = engine.vision.turns(*self._side)
        self._prefix = engine.prefix_shape(self._side)
        closed = [i for i, q in enumerate(questions) if q.closed]
        self._scored: list[int] = [] if engine.card.prompt.reasoning else closed
        self._groups = self._pack()
        self._reasoned = {
            i: ReasonedScores(engine.words, questions[i], engine.device) for i in closed if i not in self._scored
        }
        self._openings = self._open()
        self._tags = Tags(engine.words)

    def _pack(self) -> list[tuple[Group, Packed]]:
        """What is scored."""
        engine = self._engine
        groups = pack([engine.words.branches(self._questions[i]) for i in self._scored], engine.device, PACKED_TOKENS)
        return [(g, pack_behind(engine.language, self._prefix, g.ids, g.depths, g.mask)) for g in groups]

    def _open(self) -> list[Opening]:
        """What is written: open answers, or the reasoning before a closed one."""
        words = self._engine.words
        suffixes = [(i, words.suffix(q)) for i, q in enumerate(self._questions) if i not in self._scored]
        return openings(self._engine.language, self._prefix, suffixes, PACKED_TOKENS)

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """(N, 3, H, W) RGB chips -> one `Replies` per question. `valid` is not used: the model knows no holes."""
        return fitting(lambda: self._answer_all(chips, self.encode))

    def answer_seen(self, features: NDArray[Any]) -> list[Replies]:
        """See `SeeingSession.answer_seen`."""
        return fitting(lambda: self._answer_all(features, as_visual))

    def see(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """See `SeeingSession.see`: the visual tokens behind the merger."""
        return fitting(lambda: self._see_all(chips))

    @property
    def feature_bytes(self) -> int:
        """Of the visual tokens of one tile."""
        return as_array(self._unseen(1)).nbytes

    def _unseen(self, n: int) -> Tensor:
        """(n, S, D) without values: the shape of what `see` gives."""
        words = self._engine.language.words
        n_tokens = self._side[0] * self._side[1] // PIXELS_PER_TOKEN**2
        return torch.empty((n, n_tokens, words.shape[1]), dtype=words.dtype)

    def encode(self, chips: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, S, D) visual tokens of chips resampled to the card's side."""
        if chips.shape[1:] != (3, *self._shape):
            raise ValueError(f"session is for chips of {(3, *self._shape)}, got {tuple(chips.shape[1:])}")
        return encode(self._engine.vision, resample(chips, self._side), self._turns)

    def _see_all(self, chips: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            seen = [as_array(v)[: tiles.stop - tiles.start] for tiles, v in self._visual(chips, self.encode)]
        return np.concatenate([as_array(self._unseen(0)), *seen])

    def _visual(self, tiles: NDArray[Any], see: Callable[[Tensor], Tensor]) -> Iterator[tuple[slice, Tensor]]:
        """Batch by batch: the numbers of its tiles, and their visual tokens; the last one may be filled up.

        The next batch is on its way to a GPU while this one is worked on.
        """
        batches = ((numbers, to_device(b, self._engine.device)) for numbers, b in padded_batches(tiles, self._batch))
        batch = next(batches, None)
        while batch is not None:
            numbers, visual = batch[0], see(batch[1])
            batch = next(batches, None)
            yield numbers, visual

    def _answer_all(self, tiles: NDArray[Any], see: Callable[[Tensor], Tensor]) -> list[Replies]:
        """`see`: a batch of `tiles` on the device -> their visual tokens."""
        replies = [self._empty(i, len(tiles)) for i in range(len(self._questions))]
        if self._questions:
            with torch.inference_mode():
                visual = self._visual(tiles, see)
                prefixes = ((numbers, read_prefix(self._engine.language, v, self._prefix)) for numbers, v in visual)
                self._answer(prefixes, len(tiles), replies)
        return replies

    def _empty(self, index: int, n: int) -> Replies:
        question = self._questions[index]
        scores = np.full((n, len(question.options)), np.nan, np.float32) if question.closed else None
        if index in self._scored:
            return Replies(scores)
        return Replies(scores, np.empty(n, object), np.full(n, np.nan, np.float32), np.zeros(n, np.bool_))

    def _answer(self, prefixes: Iterator[tuple[slice, Prefix]], n_tiles: int, replies: list[Replies]) -> None:
        """Score every batch as it comes, and write what is to be written, over all of them."""
        scored = self._scoring(prefixes, replies)
        n_rows = min(ROWS, ROWS_PER_TILE * self._batch, n_tiles * sum(len(o.questions) for o in self._openings))
        if not n_rows:
            for _ in scored:
                pass
            return
        engine = self._engine
        rules = Rules(engine.words.stops, engine.card.max_new_tokens, self._reached)
        writing = Writing(engine.language, n_rows, rules)
        asked = ((tiles, prefix, opening) for tiles, prefix in scored for opening in self._openings)
        for rows in writing.write(asked):
            for index, reasoned in self._reasoned.items():
                if mine := [row for row in rows if row.question == index]:
                    tiles = [row.tile for row in mine]
                    scores = reasoned.score(engine.language, writing.desk, self._prefix.position, mine)
                    _column(replies[index].option_logprob)[tiles] = scores.cpu().numpy()
            for row in rows:
                self._note(row, replies[row.question])

    def _scoring(
        self, prefixes: Iterator[tuple[slice, Prefix]], replies: list[Replies]
    ) -> Iterator[tuple[slice, Prefix]]:
        """Pass the batches on, the closed questions of each answered: log p(option) (B, K)."""
        for tiles, prefix in prefixes:
            for group, packed in self._groups:
                hidden, _ = read_packed(self._engine.language, prefix, packed, group.heads)
                edges = edge_logprobs(self._engine.language, hidden, group)[: tiles.stop - tiles.start]
                for share in group.shares:
                    target = _column(replies[self._scored[share.question]].option_logprob)
                    target[tiles, share.options] = option_logprobs(edges, share).cpu().numpy()
            yield tiles, prefix

    def _reached(self, row: Row) -> bool:
        """Whether a text is as long as it needs to be, though the model would go on."""
        if not self._engine.card.prompt.reasoning:
            return False
        return self._tags.completed(row.tokens, OPENING if row.question in self._reasoned else CLOSING)

    def _note(self, row: Row, replies: Replies) -> None:
        """Copy a text to its place."""
        reasoned = self._reasoned.get(row.question)
        text = reasoned.text(row.tokens) if reasoned else self._engine.words.decode(row.tokens)
        _column(replies.text)[row.tile] = text
        _column(replies.token_logprob)[row.tile] = row.mean_logprob
        _column(replies.finished)[row.tile] = row.finished


def _column(values: NDArray[Any] | None) -> NDArray[Any]:
    assert values is not None  # `_empty` made every column that is filled
    return values
