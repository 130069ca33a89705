"""RSVQA-LR and RSVQA-HR (Lobry et al. 2020) as published: three JSON files per split and a folder of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsqa.errors import SourceMissing
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, Tally
from rsqa.evaluate.pictures import file_picture
from rsqa.evaluate.reading import ODD_ANSWER, Skipped, count_gold, question_of
from rsqa.evaluate.scoring import AREA_BUCKETS, COUNT_BUCKETS, bucket, normal
from rsqa.tasks.question import COUNTS, YES_NO, Kind, Question
from rsqa.train.set_files import INACTIVE, LeftOut, rsvqa_questions

NUMERIC = frozenset({"count", "area"})


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
    for item in _items(layout, data, split, skipped):
        if item.picture not in pictures:
            pictures[item.picture] = file_picture(item.picture, _picture_file(layout, data, item.picture))
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
        for item in _items(layout, data, "train", Skipped()):
            counts.setdefault((item.types[0], item.question.text), Counter()).update(item.gold)
    return counts


def _items(layout: Layout, data: Path, split: str, skipped: Skipped) -> Iterator[Item]:
    questions = data / layout.file(split, "questions")
    if not questions.is_file():
        raise SourceMissing(
            f"no {questions.name} in {data.name or '.'!r}; --data names the folder of it, its images and its answers"
        )
    for asked in rsvqa_questions(questions):
        if isinstance(asked, LeftOut):
            if asked.why != INACTIVE:
                skipped.add(asked.why, asked.what)
            continue
        if asked.type not in layout.shapes:
            skipped.add("question of another type", asked.what)
            continue
        question = question_of(asked.question, *layout.shapes[asked.type])
        gold = gold_option(asked.answer, question)
        if gold is None:
            skipped.add(ODD_ANSWER, asked.what)
        else:
            yield Item(asked.picture, question, (asked.type,), (gold,))


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
