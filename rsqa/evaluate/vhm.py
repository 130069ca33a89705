"""The evaluation files of VHM, TinyRS and ScoreRS: JSON lists of items, the task told by the file's name.

An item is `{"image", "image_path"?, "size"?, "conversations": [{"value": query}, {"value": answer}], "type"?}`. `size`
is not used: its order differs between tools, the picture tells it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rsqa.errors import InputError, SourceMissing, UsageError
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, PixelBox
from rsqa.evaluate.pictures import file_picture
from rsqa.evaluate.reading import BROKEN, NO_ANSWER, ODD_ANSWER, Skipped, question_of, read_json
from rsqa.evaluate.scoring import normal
from rsqa.tasks.question import YES_NO
from rsqa.train.set_files import text_of

LHRS_TYPES = {
    "1": "identity", "2": "colour", "3": "orientation", "4": "shape", "5": "quantity", "6": "area", "7": "distance",
    "8": "resolution", "9": "modality", "10": "location", "11": "reasoning",
}  # fmt: skip
_LISTED = re.compile(r"(?:classes|categories)\s*:\s*([^.?\n]+)", re.IGNORECASE)
_LETTERED = re.compile(r"(?:^|[\s(])([A-H])[.):]\s", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-H])(?:[.):]|$)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Raw:
    """One item as a file has it."""

    picture: str
    query: str
    answer: Any
    types: tuple[str, ...]


Read = Callable[[Raw, str, Sequence[Raw]], Item | None]
"""(item, name of its task, all items of the file) -> what is asked; None: its answer is not understood."""


def read_vhm(data: Path, names: Sequence[str]) -> Benchmark:
    """The files `names` of a folder, or all whose task is known."""
    files = [data / name for name in names] if names else sorted(data.glob("*.json"))
    known = [(file, _task(file.stem)) for file in files]
    if names and (odd := next((file.name for file, read in known if read is None), None)):
        raise UsageError(f"file {odd!r} names no task; read are cls_*, RSVQA_*, VG_* and LHRS-Bench")
    chosen = [(file, read) for file, read in known if read is not None]
    if not chosen:
        raise SourceMissing(
            f"no cls_*, RSVQA_*, VG_* or LHRS-Bench .json in {data.name or '.'!r}; --data names their folder"
        )
    skipped = Skipped()
    pictures: dict[str, Picture] = {}
    items: list[Item] = []
    for file, read in chosen:
        items += _items(file, read, pictures, skipped)
    return Benchmark(
        name="vhm", tests=ItemSet(pictures, tuple(items)), files=tuple(file for file, _ in chosen),
        skipped=skipped.by_reason, notes=("RSVQA_* are sub-samples, not the official test splits",),
    )  # fmt: skip


def _task(stem: str) -> Read | None:
    if stem.startswith("cls_"):
        return _class
    if stem.startswith("RSVQA_"):
        return partial(_vqa, ("rural", "urban") if "rural_urban" in stem else YES_NO)
    if stem.startswith("VG_"):
        return _box
    return _choice if stem.lower().startswith("lhrs-bench") else None


def _items(file: Path, read: Read, pictures: dict[str, Picture], skipped: Skipped) -> list[Item]:
    content = read_json(file, "the JSON files of the evaluation")
    if not isinstance(content, list):
        raise InputError(f"{file.name} holds no list of items; fetch it again")
    raws: list[Raw] = []
    for number, entry in enumerate(content, 1):
        raw = _raw(entry, file, f"{file.name} item {number}", pictures, skipped)
        if raw is not None:
            raws.append(raw)
    items = []
    for raw in raws:
        item = read(raw, file.stem, raws)
        if item is None:
            skipped.add(ODD_ANSWER, f"{file.name} {raw.picture}")
        else:
            items.append(item)
    return items


def _raw(entry: Any, file: Path, name: str, pictures: dict[str, Picture], skipped: Skipped) -> Raw | None:
    values = entry.get("conversations") if isinstance(entry, dict) else None
    said = [turn.get("value") for turn in values if isinstance(turn, dict)] if isinstance(values, list) else []
    query = text_of(said[0]) if said else None
    image = text_of(entry.get("image")) if isinstance(entry, dict) else None
    if query is None or image is None:
        skipped.add(BROKEN, name)
        return None
    if len(said) < 2 or said[1] in (None, "", []):
        skipped.add(NO_ANSWER, name)
        return None
    folder = text_of(entry.get("image_path")) or file.stem
    picture = f"{folder}/{image}"
    pictures.setdefault(picture, file_picture(picture, file.parent / folder / image))
    types = entry.get("type") or []
    told = tuple(str(t) for t in types) if isinstance(types, list) else (str(types),)
    return Raw(picture, query.replace("<image>\n", "").replace("<image>", "").strip(), said[1], told)


def _class(raw: Raw, task: str, raws: Sequence[Raw]) -> Item | None:
    """Classes are those that the query lists, else all answers of the file."""
    gold = text_of(raw.answer)
    if gold is None:
        return None
    listed = _LISTED.search(raw.query)
    names = [name.strip() for name in listed.group(1).split(",")] if listed else [str(r.answer) for r in raws]
    options = tuple(dict.fromkeys(name for name in names if name))
    mine = next((option for option in options if normal(option) == normal(gold)), None)
    return None if mine is None else Item(raw.picture, question_of(raw.query, "label", options), (task,), (mine,))


def _vqa(options: tuple[str, ...], raw: Raw, task: str, raws: Sequence[Raw]) -> Item | None:
    gold = normal(text_of(raw.answer) or "")
    if gold not in options:
        return None
    question = question_of(raw.query, "yesno" if options == YES_NO else "choice", options)
    return Item(raw.picture, question, (task,), (gold,))


def _box(raw: Raw, task: str, raws: Sequence[Raw]) -> Item | None:
    """Four numbers, pixels of the picture, as text or as a list."""
    numbers = [float(v) for v in _NUMBER.findall(str(raw.answer))[:4]]
    if len(numbers) < 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        return None
    box: PixelBox = (numbers[0], numbers[1], numbers[2], numbers[3])
    return Item(raw.picture, question_of(raw.query, "box"), (task,), measure="box", boxes=(box,))


def _choice(raw: Raw, task: str, raws: Sequence[Raw]) -> Item | None:
    """A letter where the query offers letters, else words; it counts in each of its types."""
    gold = text_of(raw.answer)
    if gold is None:
        return None
    types = tuple(f"{task} {LHRS_TYPES.get(t, t)}" for t in raw.types) or (task,)
    letters = tuple(sorted(set(_LETTERED.findall(raw.query))))
    told = _LETTER.match(gold)
    if len(letters) >= 2 and told and told.group(1) in letters:
        return Item(raw.picture, question_of(raw.query, "choice", letters), types, (told.group(1),))
    return Item(raw.picture, question_of(raw.query, "open"), types, (gold,))
