"""For tests, here and in other packages: a contract that every engine passes, a fake one, and small random checkpoints.

Nothing here answers questions about images. Importing it costs no torch.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies, SeeingSession, Session
from rsqa.engines.cards import ModelCard
from rsqa.errors import OutOfMemory
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import Question

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN2VL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

DEADLY = 13
"""Value of the pixels that end a process of `DeadlyEngine`."""


class EchoEngine:
    """Answers from a hash of tile and question: wrong about the world, right about which tile was asked what.

    `RSQA_FAKE_DELAY_S` makes every call take that long; `RSQA_FAKE_LOG` names a file that gets one line per call, the
    number of its tiles. What it sees of a tile is a digest.
    """

    card = ModelCard("echo", "Fake that hashes what it sees", PromptStyle(), "Apache-2.0", side_px=56)

    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        self.calls: list[int] = []
        """Tiles of every call."""
        self.looks: list[int] = []
        """Tiles of every call of `see`, alone or within `answer`."""

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> EchoSession:
        """See `Engine.prepare`."""
        return EchoSession(self, tuple(questions), tile_shape, batch)


class CrampedEngine(EchoEngine):
    """A fake with little memory. Tests set `room`; see there."""

    room: ClassVar[Iterator[int]] = itertools.repeat(sys.maxsize)
    """Call after call, so many tiles fit at once."""

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> CrampedSession:
        """See `Engine.prepare`."""
        return CrampedSession(self, tuple(questions), tile_shape, batch)


class DeadlyEngine(EchoEngine):
    """A fake whose process dies, as by kill -9, of a tile that is all DEADLY."""

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> DeadlySession:
        """See `Engine.prepare`."""
        return DeadlySession(self, tuple(questions), tile_shape, batch)


class EchoSession:
    """See `SeeingSession`."""

    feature_bytes = 4 * 16

    def __init__(
        self, engine: EchoEngine, questions: tuple[Question, ...], tile_shape: tuple[int, int], batch: int
    ) -> None:
        self._engine, self._questions, self._shape, self._batch = engine, questions, tile_shape, batch

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """See `Session.answer`."""
        return self.answer_seen(self.see(chips, valid))

    def see(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """See `SeeingSession.see`; (N, 1, 16)."""
        if chips.shape[1:] != (3, *self._shape):
            raise ValueError(f"session is for chips of {(3, *self._shape)}, got {chips.shape[1:]}")
        self._engine.looks.append(len(chips))
        digests = b"".join(blake2b(chip.tobytes(), digest_size=16).digest() for chip in chips)
        return np.frombuffer(digests, np.uint8).reshape(-1, 1, 16).astype(np.float32)

    def answer_seen(self, features: NDArray[np.float32]) -> list[Replies]:
        """See `SeeingSession.answer_seen`."""
        for start in range(0, len(features), self._batch):
            self._count(min(self._batch, len(features) - start))
        seeds = [[_seed(tile.tobytes(), question) for tile in features] for question in self._questions]
        return [_echo(question, row) for question, row in zip(self._questions, seeds, strict=True)]

    def _count(self, n_tiles: int) -> None:
        self._engine.calls.append(n_tiles)
        time.sleep(float(os.environ.get("RSQA_FAKE_DELAY_S", "0")))
        if log := os.environ.get("RSQA_FAKE_LOG"):
            line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.write(line, f"{n_tiles}\n".encode())  # one write: lines of several processes do not mix
            os.close(line)


class CrampedSession(EchoSession):
    """Raises OutOfMemory for a batch larger than the room of that moment."""

    def _count(self, n_tiles: int) -> None:
        if n_tiles > next(CrampedEngine.room):
            raise OutOfMemory("a batch does not fit into the fake's memory")
        super()._count(n_tiles)


class ColourEngine:
    """Tells the truth about colours: "Is there magenta?" is yes where pixels are that; of options the most frequent.

    Knows yes/no questions that name one of COLOURS, and choices among them. `RSQA_FAKE_NOISE` is the standard deviation
    of what is added to its log odds, drawn from the tile; without it a right answer has 0.97.
    """

    card = replace(EchoEngine.card, name="colours", title="Fake that knows colours")

    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        pass

    def prepare(self, questions: Sequence[Question], tile_shape: tuple[int, int], batch: int) -> ColourSession:
        """See `Engine.prepare`."""
        return ColourSession(tuple(questions))


COLOURS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "magenta": (255, 0, 255), "cyan": (0, 255, 255),
}  # fmt: skip
NEAR = 60
"""Values by which each channel may differ: pixels may be resampled."""
LEAST_SHARE = 0.002
"""Of a tile's pixels, for a colour to be there."""


class ColourSession:
    """See `Session`."""

    def __init__(self, questions: tuple[Question, ...]) -> None:
        self._questions = questions

    def answer(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> list[Replies]:
        """See `Session.answer`."""
        shares = {name: _colour_shares(chips, colour) for name, colour in COLOURS.items()}
        return [_colour_replies(question, shares, chips) for question in self._questions]


def _colour_shares(chips: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """(N,) share of each tile's pixels that are near the colour."""
    far = np.abs(chips.astype(np.int16) - np.array(colour, np.int16)[:, None, None])
    return np.asarray((far <= NEAR).all(axis=1).mean(axis=(1, 2)))


def _colour_replies(question: Question, shares: dict[str, NDArray[np.float64]], chips: NDArray[np.uint8]) -> Replies:
    if question.kind == "yesno":
        name = next(name for name in COLOURS if name in question.text)
        there = shares[name] >= LEAST_SHARE
        odds = np.stack([np.where(there, 3.5, 0.0), np.where(there, 0.0, 3.5)], axis=1)
    else:
        odds = np.log(np.stack([shares[option] for option in question.options], axis=1) + 1e-3)
    if noise := float(os.environ.get("RSQA_FAKE_NOISE", "0")):
        for row, chip in zip(odds, chips, strict=True):
            row += noise * np.random.default_rng(_seed(chip.tobytes(), question)).standard_normal(len(row))
    return Replies((odds - np.log(np.exp(odds).sum(axis=1, keepdims=True)) + np.log(0.95)).astype(np.float32))


class DeadlySession(EchoSession):
    """Ends the process at a tile that is all DEADLY."""

    def see(self, chips: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """See `SeeingSession.see`."""
        if (chips == DEADLY).all(axis=(1, 2, 3)).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().see(chips, valid)


def _seed(seen: bytes, question: Question) -> int:
    words = "\x1f".join((question.text, question.kind, *question.options)).encode()
    return int.from_bytes(blake2b(seen, digest_size=8, key=blake2b(words, digest_size=32).digest()).digest())


def _echo(question: Question, seeds: list[int]) -> Replies:
    """0.95 of probability over the options, by the bits of each seed; or the seed as text."""
    if question.closed:
        weights = np.array([np.random.default_rng(seed).random(len(question.options)) for seed in seeds])
        weights = weights.reshape(len(seeds), len(question.options)) + 0.01
        return Replies(np.log(0.95 * weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    text = np.empty(len(seeds), object)
    text[:] = [f"tile {seed:016x}" for seed in seeds]
    return Replies(None, text, np.full(len(seeds), -0.5, np.float32), np.ones(len(seeds), np.bool_))


class EngineContract:
    """What every engine keeps, as a class of pytest tests: subclass it and give it a fixture `engine`.

    Exact in float32 on a CPU up to `tolerance` in log-probability; in bfloat16 a batch may flip a near-tie.
    """

    tile_shape = (56, 84)
    tolerance = 1e-4
    questions: tuple[Question, ...] = (
        Question("water", "Is there water?", "yesno", ("yes", "no")),
        Question("scene", "Is it rural or urban?", "choice", ("rural", "urban")),
        Question("words", "Describe the scene.", "open"),
        Question("class", "What kind of scene is this?", "label", ("forest", "harbor", "rural")),
        Question("where", "the ship", "box"),
    )

    def ask(self, engine: Engine, chips: NDArray[np.uint8], batch: int = 4) -> list[Replies]:
        """The questions of the contract in one session."""
        session = engine.prepare(self.questions, self.tile_shape, batch)
        assert isinstance(session, Session)
        return session.answer(chips)

    def chips(self, n: int) -> NDArray[np.uint8]:
        """Tiles that differ, as noise and as a whole."""
        rng = np.random.default_rng(7)
        noise = rng.integers(0, 256, (n, 3, *self.tile_shape))
        colour = rng.integers(0, 256, (n, 3, 1, 1))
        return ((noise + 3 * colour) // 4).astype(np.uint8)

    def same(self, a: Replies, b: Replies) -> bool:
        """Whether replies agree: words exactly, log-probabilities within the tolerance."""
        pairs = (
            (a.option_logprob, b.option_logprob),
            (a.token_logprob, b.token_logprob),
            (a.evidence, b.evidence),
        )
        close = all(
            (x is None) == (y is None)
            and (x is None or y is None or np.allclose(x, y, rtol=0, atol=self.tolerance, equal_nan=True))
            for x, y in pairs
        )
        return close and _listed(a.text) == _listed(b.text)

    def test_is_an_engine(self, engine: Engine) -> None:
        """It has the verbs and a card."""
        assert isinstance(engine, Engine)
        assert isinstance(engine.card, ModelCard)

    def test_one_row_per_tile_and_one_column_per_option(self, engine: Engine) -> None:
        """Shapes of the columns; nothing else is filled in for closed questions of a direct model."""
        replies = self.ask(engine, self.chips(5))
        assert len(replies) == len(self.questions)
        for question, reply in zip(self.questions, replies, strict=True):
            if question.closed:
                assert reply.option_logprob is not None
                assert reply.option_logprob.shape == (5, len(question.options))
                assert reply.option_logprob.dtype == np.float32
            else:
                assert reply.text is not None
                assert reply.token_logprob is not None
                assert reply.finished is not None
                assert all(isinstance(text, str) for text in reply.text)
                assert reply.token_logprob.shape == reply.finished.shape == (5,)

    def test_batching_changes_nothing(self, engine: Engine) -> None:
        """Seven tiles in batches of 1, 3 and 8 say the same."""
        chips = self.chips(7)
        one = self.ask(engine, chips, batch=1)
        for batch in (3, 8):
            assert all(map(self.same, one, self.ask(engine, chips, batch)))

    def test_order_of_tiles_is_order_of_replies(self, engine: Engine) -> None:
        """Asked backwards, answered backwards."""
        chips = self.chips(5)
        forward, backward = self.ask(engine, chips), self.ask(engine, chips[::-1])
        assert all(self.same(a, _reversed(b)) for a, b in zip(forward, backward, strict=True))

    def test_tiles_make_a_difference(self, engine: Engine) -> None:
        """Other tiles, other replies: an engine that ignores the image fails here."""
        for reply in self.ask(engine, self.chips(6)):
            if reply.option_logprob is not None:
                assert len(np.unique(reply.option_logprob, axis=0)) == 6

    def test_other_questions_change_nothing(self, engine: Engine) -> None:
        """A question alone is answered as among others, in any order."""
        chips = self.chips(3)
        together = self.ask(engine, chips)
        turned = engine.prepare(self.questions[::-1], self.tile_shape, 4).answer(chips)[::-1]
        alone = [engine.prepare([q], self.tile_shape, 4).answer(chips)[0] for q in self.questions]
        assert all(map(self.same, together, turned))
        assert all(map(self.same, together, alone))

    def test_seen_now_and_asked_later_is_the_same(self, engine: Engine) -> None:
        """To the last bit, and as many bytes a tile as was said; for engines that can."""
        session = engine.prepare(self.questions, self.tile_shape, 4)
        if not isinstance(session, SeeingSession):
            return
        for n in (0, 1, 7):
            chips = self.chips(n)
            features = session.see(chips)
            assert len(features) == n
            assert features.nbytes == n * session.feature_bytes
            later = session.answer_seen(features)
            assert all(_equal(now, then) for now, then in zip(session.answer(chips), later, strict=True))

    def test_nothing_asked_nothing_answered(self, engine: Engine) -> None:
        """No tiles give empty columns, no questions an empty list."""
        for question, reply in zip(self.questions, self.ask(engine, self.chips(0)), strict=True):
            column = reply.option_logprob if question.closed else reply.text
            assert column is not None
            assert len(column) == 0
        assert engine.prepare([], self.tile_shape, 4).answer(self.chips(2)) == []


def _listed(text: NDArray[np.object_] | None) -> list[object] | None:
    return None if text is None else text.tolist()


def _equal(a: Replies, b: Replies) -> bool:
    """Bit by bit, unlike `EngineContract.same`."""
    pairs = ((a.option_logprob, b.option_logprob), (a.token_logprob, b.token_logprob))
    return _listed(a.text) == _listed(b.text) and all(
        (x is None) == (y is None) and (x is None or y is None or x.tobytes() == y.tobytes()) for x, y in pairs
    )


def _reversed(replies: Replies) -> Replies:
    columns = (replies.option_logprob, replies.text, replies.token_logprob, replies.finished, replies.evidence)
    return Replies(*(None if column is None else column[::-1] for column in columns))  # type: ignore[arg-type]


def write_random_checkpoint(folder: Path, seed: int = 0, words: Sequence[str] = ()) -> Path:
    """A tiny Qwen2-VL checkpoint with random weights, large enough for replies to differ, and its own tokenizer.

    `words` are learnt by the tokenizer as a corpus. Without a card: add one, or name it with `--card`.
    """
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_tokenizer(words)
    tokenizer.save(str(folder / "tokenizer.json"))
    names: dict[str, Any] = {name: tokenizer.token_to_id(name) for name in QWEN2VL_TOKENS}
    dim = 48
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + 5,  # real checkpoints have spare rows too
            "hidden_size": dim,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 2, 2]},
            "max_position_embeddings": 4096,
            "bos_token_id": names["<|endoftext|>"],
            "eos_token_id": names["<|im_end|>"],
            "pad_token_id": names["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": dim,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        image_token_id=names["<|image_pad|>"],
        video_token_id=names["<|video_pad|>"],
        vision_start_token_id=names["<|vision_start|>"],
        vision_end_token_id=names["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    generator = torch.Generator().manual_seed(seed)
    network = Qwen2VLForConditionalGeneration(config)
    gains = {"embed_tokens": 0.25 * dim**0.5, "q_proj": 3, "k_proj": 3, "o_proj": 2}
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:  # images must matter to the replies, yet float32 noise must not grow to a difference
                gain = next((gain for part, gain in gains.items() if part in name), 1.0)
                fan_in = weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=generator) * gain / fan_in**0.5)
    network.save_pretrained(folder)
    return folder


def _byte_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Byte-level BPE with Qwen2-VL's way of cutting text and its special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [
        *words,
        "Is there water? yes no rural urban <answer>rural</answer> <answer>yes</answer> more than 100 forest",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN2VL_TOKENS])
    return tokenizer
