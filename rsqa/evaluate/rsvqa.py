"""RSVQA-LR and RSVQA-HR (Lobry et al. 2020) as published: three JSON files per split and a folder of pictures.

Lists keep places for what was withdrawn (`"active": false`), so everything is looked up by its id, never by its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsqa.errors import InputError
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, Tally
from rsqa.evaluate.pictures import file_picture
from rsqa.evaluate.reading import BROKEN, NO_ANSWER, ODD_ANSWER, Skipped, count_gold, question_of, read_json, text_of
from rsqa.evaluate.scoring import AREA_BUCKETS, COUNT_BUCKETS, bucket, normal
from rsqa.tasks.question import COUNTS, YES_NO, Kind, Question

NUMERIC = frozenset({"count", "area"})
_AREA = re.compile(r"\d+\s*m2")


@dataclass(frozen=True, slots=True)
class Layout:
    """How one of the two sets is laid out."""

    name: str
    prefix: str
    pictures: str
    suffixes: tuple[str, ...]
    shapes: dict[str, tuple[Kind, tuple[str, ...]]]
    """Type -> kind and options."""

    def file(self, split: str, what: str) -> str:
        """`LR_split_test_questions.json`."""
        return f"{self.prefix}_split_{split}_{what}.json"


_YES: tuple[Kind, tuple[str, ...]] = ("yesno", YES_NO)
LR = Layout(
    "rsvqa-lr", "LR", "Images_LR", (".tif",),
    {"presence": _YES, "comp": _YES, "rural_urban": ("choice", ("rural", "urban")), "count": ("count", COUNT_BUCKETS)},
)  # fmt: skip
HR = Layout(
    "rsvqa-hr", "USGS", "Data", (".tif", ".png"),
    {"presence": _YES, "comp": _YES, "area": ("count", AREA_BUCKETS), "count": ("count", COUNTS)},
)  # fmt: skip


def read_rsvqa(layout: Layout, data: Path, split: str) -> Benchmark:
    """One split. InputError when its files are missing or of another schema."""
    skipped = Skipped()
    pictures: dict[str, Picture] = {}
    items = []
    for picture, item in _items(layout, data, split, skipped):
        if picture not in pictures:
            pictures[picture] = file_picture(picture, _picture_file(layout, data, picture))
        items.append(item)
    files = tuple(data / layout.file(split, what) for what in ("images", "questions", "answers"))
    return Benchmark(
        name=f"{layout.name} {split}", tests=ItemSet(pictures, tuple(items)), train=_train(layout, data),
        numeric=NUMERIC, files=files, skipped=skipped.by_reason,
    )  # fmt: skip


def _train(layout: Layout, data: Path) -> Tally:
    """Right answers of the train split, where it is there."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    if (data / layout.file("train", "questions")).is_file():
        for _, item in _items(layout, data, "train", Skipped()):
            counts.setdefault((item.types[0], item.question.text), Counter()).update(item.gold)
    return counts


def _items(layout: Layout, data: Path, split: str, skipped: Skipped) -> Iterator[tuple[str, Item]]:
    images = _active(layout, data, split, "images")
    answers = _active(layout, data, split, "answers")
    for number, asked in _active(layout, data, split, "questions").items():
        name = f"question {number}"
        text, kind, picture = text_of(asked.get("question")), text_of(asked.get("type")), asked.get("img_id")
        if text is None or kind not in layout.shapes or not isinstance(picture, int | str) or picture not in images:
            skipped.add(BROKEN, name)
            continue
        ids = asked.get("answers_ids")
        answer = answers.get(ids[0]) if isinstance(ids, list) and ids and isinstance(ids[0], int | str) else None
        said = None if answer is None else text_of(answer.get("answer"))
        if said is None:
            skipped.add(NO_ANSWER, name)
            continue
        question = question_of(text, *layout.shapes[kind])
        gold = gold_option(said, question)
        if gold is None:
            skipped.add(ODD_ANSWER, name)
            continue
        yield str(picture), Item(str(picture), question, (kind,), (gold,))


def _active(layout: Layout, data: Path, split: str, what: str) -> dict[Any, dict[str, Any]]:
    path = data / layout.file(split, what)
    content = read_json(path, f"{layout.file(split, 'questions')} and its images and answers")
    rows = content.get(what) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InputError(f"{path.name} has no list {what!r}; it is not a file of {layout.name}, fetch it again")
    return {
        row["id"]: row
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("id"), int | str) and row.get("active", True)
    }


def gold_option(said: str, question: Question) -> str | None:
    """The option that a published answer means, whichever vocabulary of buckets it is in; None: none of them."""
    plain = normal(said)
    if question.options == COUNTS:
        return count_gold(plain) if plain.isdecimal() else None
    if question.options in (COUNT_BUCKETS, AREA_BUCKETS):
        place = bucket(said, "m2" if question.options == AREA_BUCKETS else "")
        return None if place is None else question.options[place]
    return plain if plain in question.options else None


def _picture_file(layout: Layout, data: Path, name: str) -> Path:
    files = [data / layout.pictures / f"{name}{suffix}" for suffix in layout.suffixes]
    return next((file for file in files if file.is_file()), files[0])
