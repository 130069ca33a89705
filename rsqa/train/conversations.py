"""Conversations about pictures in the published format: `{"image": …, "conversations": [{"from", "value"}, …]}`.

A file is read once for the place of each record, and the headers of its pictures once for their size; after that a
record is a few bytes until it is trained on. What can't be used is found in that pass, before the first step.

200,000 records with a picture each: 28 bytes a record, and the peak of memory grows by 32 MB with the order
of an epoch (`tests/bench/bench_conversations.py`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsqa.errors import InputError
from rsqa.tasks.boxes import SCALE
from rsqa.tasks.parse import split_reasoning
from rsqa.tasks.prompts import DIRECT_SYSTEM, END
from rsqa.train.forward import Framed
from rsqa.train.packing import Chain
from rsqa.train.picture_files import Look, decode, inside, look
from rsqa.train.records import Place, RecordFile, scan
from rsqa.train.tally import Tally, Unfit

Encode = Callable[[str], Sequence[int]]
"""Text, special tokens by their names -> ids; nothing is added."""
Form = Literal["sft", "chat"]
"""sft: the published training's turns, with a line break before `<|im_end|>`. chat: those of the checkpoint's own chat
template, with which the published evaluation asks."""

_IMAGE = re.compile(r"\n?<image>\n?")
_STEERS = re.compile(r"<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>")
_TAG = re.compile(r"\{([A-Z]{2,6})\}")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_READERS = 16
"""Threads that read picture headers: they wait for the disk more than they compute."""
_AT_ONCE = 4096
"""Pictures handed to the threads together."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One record."""

    image: str
    """Path within the folder of pictures, empty for text alone."""
    exchanges: tuple[tuple[str, str], ...]
    """(question, answer) in order, as they are trained on: tags inside, the image tag gone."""
    moved: bool = False
    """Whether the image tag stood behind words of the first question; the picture is put before them."""

    @property
    def kind(self) -> str:
        """The first question's tag, what the log sums up by; `untagged` without one."""
        tag = _TAG.match(self.exchanges[0][0].lstrip())
        return tag[1] if tag else "untagged"

    @property
    def n_chars(self) -> int:
        """Length of all texts, characters."""
        return sum(len(question) + len(answer) for question, answer in self.exchanges)


def read_conversation(raw: Any) -> Conversation | Unfit:
    """A record as JSON gives it. Total."""
    if isinstance(raw, Unfit):
        return raw
    if not isinstance(raw, dict):
        return Unfit("record is no object")
    image = _image_of(raw.get("image"))
    turns = raw.get("conversations")
    if isinstance(image, Unfit):
        return image
    if not isinstance(turns, list) or not turns:
        return Unfit("empty conversation")
    texts = _texts(turns)
    if isinstance(texts, Unfit):
        return texts
    questions, answers = texts[::2], texts[1::2]
    tags = [question.count("<image>") for question in questions]
    if (image and tags[0] != 1) or any(tags[1:]):
        return Unfit("no image tag in the first question" if not any(tags) else "image tag out of place")
    if not image and tags[0]:
        return Unfit("image tag without an image")
    around = _IMAGE.split(questions[0])
    asked = ["\n".join(words for words in around if words.strip()), *questions[1:]]
    moved = bool(image and around[0].strip())
    return _checked(Conversation(image, tuple(zip(asked, answers, strict=True)), moved))


def _image_of(value: Any) -> str | Unfit:
    if isinstance(value, list):
        if len(value) != 1:
            return Unfit("several images" if value else "image is no path")
        value = value[0]
    if value is None:
        return ""
    return value if isinstance(value, str) and value.strip() else Unfit("image is no path")


def _texts(turns: Sequence[Any]) -> list[str] | Unfit:
    """The words of human and gpt by turns, human first and gpt last."""
    texts = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return Unfit("turn without text")
        if turn.get("from") != ("human", "gpt")[number % 2]:
            return Unfit("wrong order of speakers")
        texts.append(turn["value"])
    return texts if len(texts) % 2 == 0 else Unfit("last question has no answer")


def _checked(conversation: Conversation) -> Conversation | Unfit:
    for question, answer in conversation.exchanges:
        if not question.strip():
            return Unfit("empty question")
        if not answer.strip():
            return Unfit("empty answer")
        if _STEERS.search(question) or _STEERS.search(answer):
            return Unfit("text holds a control token")
        if "{VG}" in question and (fault := box_fault(answer)):
            return Unfit(fault)
    return conversation


def box_fault(answer: str) -> str:
    """What is wrong with the boxes of an answer (or of its `<answer>`), empty when nothing is."""
    found = _BRACKETS.findall(split_reasoning(answer)[1] or answer)
    if not found:
        return "no box in the answer"
    for inner in found:
        numbers = re.split(r"[,\s]+", inner.strip())
        if len(numbers) != 4 or not all(re.fullmatch(r"-?\d{1,9}", number) for number in numbers):
            return "malformed box"
        x1, y1, x2, y2 = map(int, numbers)
        if min(x1, y1) < 0 or max(x2, y2) > SCALE:
            return "box outside the picture"
        if not (x1 < x2 and y1 < y2):
            return "malformed box"
    return ""


def framed(encode: Encode, form: Form, with_picture: bool, system: str = DIRECT_SYSTEM) -> Framed:
    """The tokens around the image. Without one the frame ends before the user's turn: there a special token begins."""
    opening = f"<|im_start|>system\n{system}{_end(form)}\n"
    if not with_picture:
        return Framed(tuple(encode(opening)), ())
    return Framed(tuple(encode(opening + "<|im_start|>user\n<|vision_start|>")), tuple(encode("<|vision_end|>")))


def chain(conversation: Conversation, encode: Encode, form: Form) -> Chain:
    """What stands behind the image, learned where the assistant speaks: the answer and its end, in the form "sft" with
    the line break behind it.

    Text is cut where a special token begins, and where an answer begins: there the published training cuts too, and
    there a model starts to write.
    """
    end, spans = _end(form), []
    for number, (question, answer) in enumerate(conversation.exchanges):
        behind_image = number == 0 and conversation.image
        turn = "" if behind_image else "<|im_start|>user\n"
        if form == "chat" and number:
            turn = "\n" + turn
        spans.append((encode(f"{turn}{question}{end}\n<|im_start|>assistant\n"), False))
        spans.append((encode(f"{answer}{end}\n" if form == "sft" else f"{answer}{end}"), True))
    return Chain.of(spans, conversation.kind)


def _end(form: Form) -> str:
    return f"\n{END}" if form == "sft" else END


@dataclass(frozen=True, slots=True)
class Conversations:
    """The usable records of a file. n records, m pictures."""

    file: RecordFile
    folder: Path
    """Where the paths of pictures begin."""
    offset: NDArray[np.int64]
    """(n,) bytes from the start of the file."""
    length: NDArray[np.int32]
    """(n,) bytes."""
    n_chars: NDArray[np.int32]
    """(n,) length of the texts, characters."""
    picture: NDArray[np.int32]
    """(n,) number of the picture, -1 for text alone."""
    size: NDArray[np.int32]
    """(m, 2) (height, width), pixels."""
    n_read: int
    """Records that the file holds."""
    n_moved: int
    """Usable records whose image tag stood behind words."""
    left_out: Tally

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, number: int) -> Conversation:
        """Raises SourceChanged when the file is no longer what it was."""
        found = read_conversation(self.file.read(Place(int(self.offset[number]), int(self.length[number]))))
        if isinstance(found, Unfit):
            raise InputError(f"{self.file.file.name} changed during the training: {found.why}; start it with --resume")
        return found

    def pixels(self, conversation: Conversation) -> NDArray[np.uint8]:
        """-> (3, H, W). Raises InputError that names the picture when it can't be decoded."""
        path = inside(self.folder, conversation.image)
        assert path is not None, "the first pass lets no such path through"
        return decode(path, conversation.image)


def read_conversations(file: Path, folder: Path, skip_bad: bool) -> Conversations:
    """The records of a file for training. Without `skip_bad` one bad record stops the start with InputError."""
    found = index_conversations(file, folder)
    if found.left_out.total and not skip_bad:
        raise InputError(found.left_out.refusal(file.name, found.n_read))
    if not len(found):
        raise InputError(f"no usable record in {file.name} of {found.n_read:,}; see rsqa data check {file.name}")
    return found


def index_conversations(file: Path, folder: Path) -> Conversations:
    """Find all records and look at the header of every picture. Bad records are left out and counted."""
    left_out = Tally()
    places, lengths, chars, names = array("q"), array("i"), array("i"), array("Q")
    numbers, moved = array("q"), array("b")
    n_read = 0
    for n_read, (place, raw) in enumerate(scan(file), start=1):
        found = read_conversation(raw)
        if isinstance(found, Unfit):
            left_out.add(found.why, f"record {n_read}")
            continue
        places.append(place.offset)
        lengths.append(place.length)
        chars.append(found.n_chars)
        names.append(_name_key(found.image))
        numbers.append(n_read)
        moved.append(found.moved)
    records = RecordFile(file)
    offset, length = np.array(places, np.int64), np.array(lengths, np.int32)
    keys, first, key = np.unique(np.array(names, np.uint64), return_index=True, return_inverse=True)
    size = np.zeros((len(keys), 2), np.int32)
    users = np.bincount(key, minlength=len(keys))
    first = np.sort(first)  # in the order of the file
    for at, (name, seen) in zip(first, _looks(records, folder, offset[first], length[first]), strict=True):
        which = key[at]
        size[which] = seen.height, seen.width
        if seen.fault:
            left_out.add(seen.fault, f"record {numbers[at]} ({name})", int(users[which]))
    alone = keys == _name_key("")
    good = alone | (size.min(axis=1, initial=1 << 30) > 0)
    new_number = np.where(good & ~alone, np.cumsum(good & ~alone) - 1, -1).astype(np.int32)
    kept = good[key]
    return Conversations(
        records, folder, offset[kept], length[kept], np.array(chars, np.int32)[kept], new_number[key][kept],
        size[good & ~alone], n_read, int(np.array(moved, np.int8)[kept].sum()), left_out,
    )  # fmt: skip


def _name_key(image: str) -> int:
    """64 bits for a path; among 1.4 million pictures two share them with a chance of 1 in 10 million."""
    return int.from_bytes(blake2b(image.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _looks(
    records: RecordFile, folder: Path, offset: NDArray[np.int64], length: NDArray[np.int32]
) -> Iterator[tuple[str, Look]]:
    """Picture and header of the records at these places, in order."""

    def one(place: tuple[int, int]) -> tuple[str, Look]:
        found = read_conversation(records.read(Place(*place)))
        if isinstance(found, Unfit) or not found.image:
            return "", Look()
        path = inside(folder, found.image)
        return found.image, Look(fault="image path leaves the folder") if path is None else look(path)

    with ThreadPoolExecutor(_READERS) as threads:
        for start in range(0, len(offset), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            yield from threads.map(one, zip(offset[some].tolist(), length[some].tolist(), strict=True))
