"""Items to answers: pictures opened a few at a time, all questions of one picture in one session.

N pictures of a batch, Q questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine, Replies, Session
from rsqa.engines.batching import MAX_CHIP_BYTES, half
from rsqa.errors import InputError, OutOfMemory, SourceMissing
from rsqa.evaluate.items import Item, ItemSet, Picture
from rsqa.tasks.boxes import BoxFormat, format_boxes, read_boxes, upright_boxes
from rsqa.tasks.parse import Answers, Status, answers
from rsqa.tasks.prompts import query
from rsqa.tasks.question import Question

GREY = 128
MOST_OPEN = 256
"""Pictures that are in memory at once."""
MOST_ASKED = 256
"""Questions of one session."""
SESSIONS = 4
"""Sessions kept: where all pictures are asked the same, one serves them all."""

Chips = NDArray[np.uint8]
Key = tuple[tuple[int, int], tuple[Question, ...]]
"""(H, W) and questions."""
Round = tuple[list[Sequence[int]], Chips, tuple[Question, ...]]
"""The items of each picture (N lists of their numbers), chips (N, 3, H, W), questions."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item."""

    status: Status
    value: str | None
    """None unless the status is ok."""
    text: str
    """As it was written, or the value where options were scored."""
    confidence: float
    """With the card's temperature; NaN: none."""
    raw_confidence: float
    """With temperature 1."""
    size: tuple[int, int]
    """(H, W) of the picture."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers to items, and pictures that could not be opened."""

    answers: Sequence[Answer | None]
    """In the order of the items; None where the picture could not be opened."""
    unread: Mapping[str, tuple[str, ...]]
    """Reason -> pictures."""
    pixels_sha256: str
    """Over the pixels of all pictures, in the order of their ids."""


class Examiner:
    """Puts questions to an engine."""

    def __init__(
        self, engine: Engine, batch_of: Callable[[tuple[int, int]], int], device: str, generate: bool = False
    ) -> None:
        """`batch_of`: (H, W) -> pictures at once. `generate`: closed questions, too, are answered by writing."""
        self.engine, self.generate = engine, generate
        self._batch_of, self._device = batch_of, device
        self._batches: dict[tuple[int, int], int] = {}
        self._sessions: dict[Key, Session] = {}

    def ask(self, chips: Chips, questions: Sequence[Question]) -> list[list[Answer]]:
        """(N, 3, H, W) -> per question the answers of the N pictures."""
        size = chips.shape[2], chips.shape[3]
        got: list[list[Answer]] = []
        for first in range(0, len(questions), MOST_ASKED):
            some = tuple(questions[first : first + MOST_ASKED])
            for question, said in zip(some, self._replies(chips, (size, some)), strict=True):
                got.append(self._read(question, said, size))
        return got

    def _replies(self, chips: Chips, key: Key) -> list[Replies]:
        size = key[0]
        try:
            return self._session(key).answer(chips)
        except OutOfMemory:
            self._batches[size] = half(self._batches[size], self._device)
            self._sessions.clear()
        return self._replies(chips, key)

    def _session(self, key: Key) -> Session:
        size, questions = key
        if key not in self._sessions:
            batch = self._batches.setdefault(size, self._batch_of(size))
            while len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = self.engine.prepare([self._asked(q) for q in questions], size, batch)
        return self._sessions[key]

    def _asked(self, question: Question) -> Question:
        """The question as it is put: with `generate` the same words behind the same tag, and no options scored."""
        if not (self.generate and question.closed):
            return question
        return Question(question.id, query(question, self.engine.card.prompt), "open")

    def _read(self, question: Question, said: Replies, size: tuple[int, int]) -> list[Answer]:
        card, put = self.engine.card, self._asked(question)
        temperature = card.temperatures.get(question.kind, 1.0)

        def at(warmth: float) -> Answers:
            return answers(put, said, mass_floor=card.mass_floor, temperature=warmth, reasoning=card.prompt.reasoning)

        got = at(temperature)
        raw = got if temperature == 1.0 or not put.closed else at(1.0)
        texts = got.value if put.closed or got.text is None else got.text
        read = [
            Answer(status, value, text or "", float(confidence), float(plain), size)
            for status, value, text, confidence, plain in zip(
                got.status, got.value, texts, got.confidence, raw.confidence, strict=True
            )
        ]
        return [_boxed(answer, card.box_format) for answer in read] if question.kind == "box" else read


def _boxed(answer: Answer, box_format: BoxFormat) -> Answer:
    """The answer with boxes as TinyRS writes them, upright, whichever way the model does: scores are read from those.

    Words without a well-formed box are no answer to where something is; an empty list is one: nowhere.
    """
    value = answer.value or ""
    if answer.status != "ok" or value.strip() == format_boxes(()):
        return answer
    height, width = answer.size
    boxes = upright_boxes(read_boxes(value, box_format), height / width)
    if not boxes:
        return replace(answer, status="unparsed", value=None)
    return replace(answer, value=format_boxes(boxes))


def ask(examiner: Examiner, tests: ItemSet, on_progress: Callable[[int, int], None]) -> Asked:
    """Ask every item; `on_progress` gets items done and items in all. InputError when no picture can be opened."""
    got: list[Answer | None] = [None] * len(tests.items)
    unread: dict[str, list[str]] = {}
    digest = hashlib.sha256()
    done = 0
    for numbers, chips, questions in _rounds(tests, unread, digest.update):
        column = dict(zip(questions, examiner.ask(chips, questions), strict=True))
        for row, mine in enumerate(numbers):
            for number in mine:
                got[number] = column[tests.items[number].question][row]
        done += sum(map(len, numbers))
        on_progress(done, len(tests.items))
    if unread and not done:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in unread.items())
        raise InputError(f"no picture can be opened ({why}); check --data")
    return Asked(got, {reason: tuple(names) for reason, names in unread.items()}, digest.hexdigest())


def _rounds(
    tests: ItemSet, unread: dict[str, list[str]], note: Callable[[bytes | memoryview], None]
) -> Iterator[Round]:
    """Everything that is to be asked. Pictures that can't be opened go to `unread`, names and pixels to `note`."""
    wanted: dict[str, list[int]] = {}
    for number, item in enumerate(tests.items):
        wanted.setdefault(item.picture, []).append(number)
    for opened in _opened([tests.pictures[name] for name in sorted(wanted)], unread):
        for name, pixels in opened:
            note(f"{name}\0{pixels.shape}\0".encode())
            note(pixels.data)
        yield from _together(opened, wanted, tests.items)


def _opened(pictures: Sequence[Picture], unread: dict[str, list[str]]) -> Iterator[list[tuple[str, Chips]]]:
    """(id, pixels) a few at a time; those that can't be opened are noted."""
    held: list[tuple[str, Chips]] = []
    for picture in pictures:
        try:
            pixels = picture.load()
        except InputError as error:
            reason = "missing pictures" if isinstance(error, SourceMissing) else "unreadable pictures"
            unread.setdefault(reason, []).append(picture.id)
            continue
        held.append((picture.id, pixels))
        if len(held) == MOST_OPEN or sum(p.nbytes for _, p in held) >= MAX_CHIP_BYTES:
            yield held
            held = []
    if held:
        yield held


def _together(
    opened: Sequence[tuple[str, Chips]], wanted: Mapping[str, Sequence[int]], items: Sequence[Item]
) -> Iterator[Round]:
    """Pictures of one size that are asked the same."""
    groups: dict[Key, list[tuple[str, Chips]]] = {}
    for name, pixels in opened:
        questions = tuple(dict.fromkeys(items[number].question for number in wanted[name]))
        groups.setdefault(((pixels.shape[1], pixels.shape[2]), questions), []).append((name, pixels))
    for (_, questions), members in groups.items():
        yield [wanted[name] for name, _ in members], np.stack([pixels for _, pixels in members]), questions


def ask_blind(
    examiner: Examiner, items: Sequence[Item], asked: Asked, on_progress: Callable[[int, int], None]
) -> list[Answer | None]:
    """The same items about grey pictures: each question once per size of picture, as all grey pictures are alike."""
    keys = [
        None if answer is None else (answer.size, item.question)
        for item, answer in zip(items, asked.answers, strict=True)
    ]
    by_size: dict[tuple[int, int], list[Question]] = {}
    for size, question in dict.fromkeys(key for key in keys if key is not None):
        by_size.setdefault(size, []).append(question)
    known: dict[tuple[tuple[int, int], Question], Answer] = {}
    total = sum(map(len, by_size.values()))
    for (height, width), questions in by_size.items():
        grey = np.full((1, 3, height, width), GREY, np.uint8)
        for first in range(0, len(questions), MOST_ASKED):
            some = questions[first : first + MOST_ASKED]
            for question, (answer,) in zip(some, examiner.ask(grey, some), strict=True):
                known[(height, width), question] = answer
            on_progress(len(known), total)
    return [None if key is None else known[key] for key in keys]


def option_logprobs(engine: Engine, tests: ItemSet, batch: int) -> list[NDArray[np.float64]]:
    """(K,) log-probabilities of each item's options, in the order of the items; InputError for a broken picture."""
    got: dict[int, NDArray[np.float64]] = {}
    unread: dict[str, list[str]] = {}
    for numbers, chips, questions in _rounds(tests, unread, lambda _: None):
        replies = engine.prepare(questions, (chips.shape[2], chips.shape[3]), batch).answer(chips)
        column = {q: said.option_logprob for q, said in zip(questions, replies, strict=True)}
        for row, mine in enumerate(numbers):
            for number in mine:
                logprobs = column[tests.items[number].question]
                assert logprobs is not None  # closed questions of a model that does not reason
                got[number] = logprobs[row].astype(np.float64)
    if unread:
        names = [name for some in unread.values() for name in some]
        raise InputError(f"{len(names)} pictures can't be opened, {names[0]!r} among them; fetch them again")
    return [got[number] for number in range(len(tests.items))]
