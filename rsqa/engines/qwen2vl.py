"""The engine for every Qwen2-VL checkpoint: TinyRS and its family, Qwen2-VL-2B, tinyrs-nano, a user's fine-tune.

    chips ─ encode ─> visual tokens ─ prefix ─> keys and values ─┬─ score ────> closed questions, all in one pass
                                                                 └─ generate ─> open ones, many texts at once

An adapter may put slots before the questions; see `rsqa.engines.grasp`.
B tiles, H x W pixels, S visual tokens, D width, K options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsqa.engines.base import Replies
from rsqa.engines.batching import PACKED_TOKENS, ROWS, ROWS_PER_TILE, padded_batches
from rsqa.engines.cards import PIXELS_PER_TOKEN, ModelCard
from rsqa.engines.generation import Opening, Row, Rules, Writing, openings
from rsqa.engines.grasp import Guide, marked, shown_tokens, unmarked
from rsqa.engines.memory import fitting
from rsqa.engines.prefix import Packed, Prefix, PrefixShape, pack_behind, prefix_shape, read_packed, read_prefix
from rsqa.engines.preprocess import resample
from rsqa.engines.reasoning import CLOSING, OPENING, ReasonedScores, Tags
from rsqa.engines.scoring import Branches, Group, edge_logprobs, option_logprobs, pack
from rsqa.engines.visual import as_array, as_visual, to_device
from rsqa.engines.words import Words
from rsqa.errors import ModelError, QuestionError
from rsqa.models.checkpoint import Checkpoint
from rsqa.models.language import Language, take_language
from rsqa.models.linear import AS_LOADED, Precision, eight_bits
from rsqa.models.loading import load_network, load_tokenizer
from rsqa.models.rivals import Prompter, load_prompter
from rsqa.models.vision import Vision, encode, take_vision
from rsqa.tasks.parse import answers, met
from rsqa.tasks.question import Condition, Question


class Qwen2VLEngine:
    """A network, its words and its card on one device."""

    def __init__(
        self,
        network: Any,
        words: Words,
        card: ModelCard,
        precision: Precision = AS_LOADED,
        prompter: Prompter | None = None,
    ) -> None:
        """`network`: transformers' Qwen2VLForConditionalGeneration, which is used up. ModelError for another shape.

        `prompter`: an adapter that was trained on it.
        """
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
        self.guide = None if prompter is None else Guide(prompter, self.language, words)

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> Qwen2VLSession:
        """Ready the questions for chips of `tile_shape` (H, W), `batch` tiles at a time.

        QuestionError names the question that can't be asked.
        """
        return Qwen2VLSession(self, tuple(questions), tile_shape, batch)


def load_qwen2vl(card: ModelCard, checkpoint: Checkpoint, device: str, dtype: str) -> Qwen2VLEngine:
    """Read a checkpoint into memory; `dtype` int8: matrices of 8 bits, converted one after the other."""
    words, int8 = Words(load_tokenizer(checkpoint), card), dtype == "int8"
    prompter = load_prompter(checkpoint.prompt) if checkpoint.prompt else None
    network = load_network(replace(checkpoint, prompt=None), device, "auto" if int8 else dtype)
    width = network.config.text_config.hidden_size
    if checkpoint.prompt and checkpoint.prompt.shape.width != width:
        raise ModelError(
            f"adapter {checkpoint.prompt.folder.name!r} is for models of width {checkpoint.prompt.shape.width}, its "
            f"base has {width}; it was made for another one"
        )
    precision = eight_bits(torch.float32 if device == "cpu" else torch.bfloat16) if int8 else AS_LOADED
    return Qwen2VLEngine(network, words, card, precision, prompter)


@dataclass(frozen=True, slots=True, eq=False)
class Stem:
    """A prefix and the questions that are asked behind it."""

    shape: PrefixShape
    scored: tuple[int, ...]
    """Numbers of the questions in `groups`."""
    groups: list[tuple[Group, Packed]]
    """What is scored."""
    openings: list[Opening]
    """What is written: open answers, or the reasoning before a closed one."""


class Qwen2VLSession:
    """Questions made ready for chips of one shape."""

    def __init__(
        self, engine: Qwen2VLEngine, questions: tuple[Question, ...], tile_shape: tuple[int, int], batch: int
    ) -> None:
        for question in questions:
            engine.words.check(question)
        self._engine, self._questions, self._shape, self._batch = engine, questions, tile_shape, batch
        self._side = engine.card.model_side(*tile_shape)
        self._grid = self._side[0] // PIXELS_PER_TOKEN, self._side[1] // PIXELS_PER_TOKEN
        self._turns = engine.vision.turns(*self._side)
        closed = [i for i, q in enumerate(questions) if q.closed]
        self._scored: list[int] = [] if engine.card.prompt.reasoning else closed
        with torch.inference_mode():
            self._vectors = engine.guide.vectors(questions) if engine.guide else None
        self._stems = self._grow()
        self._reasoned = {
            i: ReasonedScores(engine.words, questions[i], self._suffix(i), engine.device)
            for i in closed
            if i not in self._scored
        }
        self._tags = Tags(engine.words)
        self._hanging = {i: self._asked_before(q.only_if, i) for i, q in enumerate(questions) if q.only_if}

    def _asked_before(self, condition: Condition, question: int) -> int:
        """The number of the question that `question` hangs on."""
        for i in self._scored:
            if i < question and self._questions[i].id == condition.question:
                return i
        raise QuestionError(
            f"question {self._questions[question].id!r} hangs on {condition.question!r}, which is not scored before "
            "it; a model that reasons scores nothing before it writes, ask it without reasoning"
        )

    def _grow(self) -> list[Stem]:
        """One prefix for all questions, or one for each where something of theirs stands before the image."""
        guide, words, every = self._engine.guide, self._engine.words, range(len(self._questions))
        if guide is None or guide.shape.placement == "after_image":
            return [self._stem(words.before, every)]
        return [self._stem(guide.before(i), [i]) for i in every]

    def _stem(self, before: Sequence[int], asked: Sequence[int]) -> Stem:
        """`before`: tokens before the image; `asked`: numbers of questions."""
        engine = self._engine
        shape = prefix_shape(engine.language, before, self._grid, engine.words.after)
        scored = tuple(i for i in asked if i in self._scored)
        branches = [Branches(self._suffix(i), engine.words.options(self._questions[i])) for i in scored]
        groups = [
            (g, pack_behind(engine.language, shape, g.ids, g.depths, g.mask))
            for g in pack(branches, engine.device, PACKED_TOKENS)
        ]
        written = [(i, self._suffix(i)) for i in asked if i not in scored]
        return Stem(shape, scored, groups, openings(engine.language, shape, written, PACKED_TOKENS))

    def _suffix(self, question: int) -> tuple[int, ...]:
        """Everything between the image and the first token of the reply."""
        guide, suffix = self._engine.guide, self._engine.words.suffix(self._questions[question])
        if guide is None or guide.shape.placement == "before_image":
            return suffix
        return (*guide.slot_ids(question), *suffix)

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """(N, 3, H, W) RGB chips -> one `Replies` per question. `valid` is for adapters: the model knows no holes."""
        return fitting(lambda: self._answer_all(chips, self.encode, self._shown(valid, len(chips))))

    def answer_seen(self, features: NDArray[Any]) -> list[Replies]:
        """See `SeeingSession.answer_seen`."""
        visual, shown = unmarked(features, self._n_tokens) if self._engine.guide else (features, None)
        return fitting(lambda: self._answer_all(visual, as_visual, shown))

    def see(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """See `SeeingSession.see`: the visual tokens behind the merger; for adapters also which of them show ground."""
        return self._kept(fitting(lambda: self._see_all(chips)), valid)

    @property
    def feature_bytes(self) -> int:
        """Of the visual tokens of one tile."""
        return self._kept(as_array(self._unseen(1)), None).nbytes

    def _kept(self, visual: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        shown = self._shown(valid, len(visual))
        return visual if shown is None else marked(visual, shown)

    def _shown(self, valid: NDArray[np.bool_] | None, n_tiles: int) -> NDArray[np.bool_] | None:
        """(N, S) tokens that show ground, where it matters."""
        return shown_tokens(valid, n_tiles, self._grid) if self._engine.guide else None

    @property
    def _n_tokens(self) -> int:
        """S."""
        return self._grid[0] * self._grid[1]

    def _unseen(self, n: int) -> Tensor:
        """(n, S, D) without values: the shape of what `see` gives."""
        words = self._engine.language.words
        return torch.empty((n, self._n_tokens, words.shape[1]), dtype=words.dtype)

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

    def _answer_all(
        self, tiles: NDArray[Any], see: Callable[[Tensor], Tensor], shown: NDArray[np.bool_] | None
    ) -> list[Replies]:
        """`see`: a batch of `tiles` on the device -> their visual tokens; `shown` (N, S) for an adapter."""
        replies = [self._empty(i, len(tiles)) for i in range(len(self._questions))]
        if self._questions:
            with torch.inference_mode():
                self._answer(self._prefixes(tiles, see, shown, replies), len(tiles), replies)
        return replies

    def _empty(self, index: int, n: int) -> Replies:
        question, guide = self._questions[index], self._engine.guide
        scores = np.full((n, len(question.options)), np.nan, np.float32) if question.closed else None
        evidence = np.zeros((n, guide.shape.blocks), np.float32) if guide and guide.shape.asks else None
        if index in self._scored:
            return Replies(scores, evidence=evidence)
        texts, logprob = np.empty(n, object), np.full(n, np.nan, np.float32)
        return Replies(scores, texts, logprob, np.zeros(n, np.bool_), evidence)

    def _prefixes(
        self,
        tiles: NDArray[Any],
        see: Callable[[Tensor], Tensor],
        shown: NDArray[np.bool_] | None,
        replies: list[Replies],
    ) -> Iterator[tuple[slice, Prefix, Stem]]:
        """Batch by batch what all questions begin with, and what is asked behind it."""
        for numbers, visual in self._visual(tiles, see):
            slots = None if shown is None else self._slots(numbers, visual, shown, replies)
            for stem in self._stems:
                yield numbers, read_prefix(self._engine.language, visual, stem.shape, slots), stem

    def _slots(self, tiles: slice, visual: Tensor, shown: NDArray[np.bool_], replies: list[Replies]) -> Tensor:
        """(B, S, D) visual tokens of `tiles` -> (B, Q · K, D) the slots of all questions; their evidence is noted."""
        guide = self._engine.guide
        assert guide is not None
        assert self._vectors is not None
        places = np.arange(tiles.start, tiles.start + len(visual)).clip(max=tiles.stop - 1)  # the last tile fills up
        valid = torch.from_numpy(shown[places]).to(visual.device)
        slots, weights, _ = guide.slots(visual, self._grid, self._vectors, valid)
        if guide.shape.asks:
            evidence = guide.evidence(weights, self._grid, valid)[: tiles.stop - tiles.start].cpu()
            for reply, column in zip(replies, evidence.unbind(dim=1), strict=True):
                _column(reply.evidence)[tiles] = column.numpy()
        return slots.flatten(1, 2)

    def _answer(self, prefixes: Iterator[tuple[slice, Prefix, Stem]], n_tiles: int, replies: list[Replies]) -> None:
        """Score every batch as it comes, and write what is to be written, over all of them."""
        scored = self._scoring(prefixes, replies)
        n_written = sum(len(opening.questions) for stem in self._stems for opening in stem.openings)
        n_rows = min(ROWS, ROWS_PER_TILE * self._batch, n_tiles * n_written)
        if not n_rows:
            for _ in scored:
                pass
            return
        engine = self._engine
        rules = Rules(engine.words.stops, engine.card.max_new_tokens, self._reached)
        wanted = {i: np.zeros(n_tiles, np.bool_) for i in self._hanging}

        def is_wanted(tile: int, question: int) -> bool:
            return question not in wanted or bool(wanted[question][tile])

        writing = Writing(engine.language, n_rows, rules, wanted=is_wanted)
        asked = (
            (tiles, prefix, opening)
            for tiles, prefix, stem in self._decided(scored, replies, wanted)
            for opening in stem.openings
            if any(is_wanted(tile, q) for q in opening.questions for tile in range(tiles.start, tiles.stop))
        )
        for rows in writing.write(asked):
            for index, reasoned in self._reasoned.items():
                if mine := [row for row in rows if row.question == index]:
                    tiles = [row.tile for row in mine]
                    scores = reasoned.score(engine.language, writing.desk, self._stems[0].shape.position, mine)
                    _column(replies[index].option_logprob)[tiles] = scores.cpu().numpy()
            for row in rows:
                self._note(row, replies[row.question])

    def _scoring(
        self, prefixes: Iterator[tuple[slice, Prefix, Stem]], replies: list[Replies]
    ) -> Iterator[tuple[slice, Prefix, Stem]]:
        """Pass the batches on, the closed questions of each answered: log p(option) (B, K)."""
        for tiles, prefix, stem in prefixes:
            for group, packed in stem.groups:
                hidden, _ = read_packed(self._engine.language, prefix, packed, group.heads)
                edges = edge_logprobs(self._engine.language, hidden, group)[: tiles.stop - tiles.start]
                for share in group.shares:
                    target = _column(replies[stem.scored[share.question]].option_logprob)
                    target[tiles, share.options] = option_logprobs(edges, share).cpu().numpy()
            yield tiles, prefix, stem

    def _decided(
        self,
        scored: Iterator[tuple[slice, Prefix, Stem]],
        replies: list[Replies],
        wanted: Mapping[int, NDArray[np.bool_]],
    ) -> Iterator[tuple[slice, Prefix, Stem]]:
        """Pass the batches on, having noted for which of their tiles the questions with a condition are asked."""
        card = self._engine.card
        for tiles, prefix, stem in scored:
            for index, first in self._hanging.items():
                condition, question = self._questions[index].only_if, self._questions[first]
                assert condition is not None
                said = answers(
                    question,
                    Replies(_column(replies[first].option_logprob)[tiles]),
                    mass_floor=card.mass_floor,
                    temperature=card.temperatures.get(question.kind, 1.0),
                )
                wanted[index][tiles] = met(condition, said)
            yield tiles, prefix, stem

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
