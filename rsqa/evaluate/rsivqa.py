"""RSIVQA (Zheng et al. 2021) as published: text files with a line for each question."""

from __future__ import annotations

from pathlib import Path

from rsqa.errors import SourceMissing
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture
from rsqa.evaluate.pictures import file_picture, picture_index
from rsqa.evaluate.reading import Skipped, count_gold, question_of
from rsqa.evaluate.scoring import normal
from rsqa.tasks.question import COUNTS, YES_NO, Question
from rsqa.train.set_files import LeftOut, rsivqa_questions


def read_rsivqa(data: Path) -> Benchmark:
    """All lines of all `*.txt` in the folder: there is no official split. Pictures may lie anywhere below it."""
    files = tuple(sorted(data.glob("*.txt")))
    if not files:
        raise SourceMissing(f"no *.txt in {data.name or '.'!r}; --data names the folder that holds the lines of RSIVQA")
    index = picture_index(data)
    skipped = Skipped()
    pictures: dict[str, Picture] = {}
    items = []
    for file in files:
        for asked in rsivqa_questions(file):
            if isinstance(asked, LeftOut):
                skipped.add(asked.why, asked.what)
                continue
            name = asked.picture
            if name not in pictures:  # DOTA's lines name no suffix
                pictures[name] = file_picture(name, index.get(name.lower(), data / name))
            items.append(human_item(name, asked.question, asked.answer))
    tests = ItemSet(pictures, tuple(items))
    return Benchmark(
        name="rsivqa", tests=tests, numeric=frozenset({"number"}), files=files, skipped=skipped.by_reason,
        notes=("no official split: all lines are asked",),
    )  # fmt: skip


def human_item(picture: str, text: str, answer: str, prefix: str = "") -> Item:
    """A question as people wrote it; its type is told by its words, so that no answer shines through.

    Numbers are digits; an answer that is none of the options, as "i cannot see it", can't be given and stays wrong.
    """
    question, type_ = human_question(text)
    gold = normal(answer)
    if question.options == COUNTS and gold.isdecimal():
        gold = count_gold(gold)
    return Item(picture, question, (f"{prefix}{type_}",), (gold,))


def human_question(text: str) -> tuple[Question, str]:
    """-> the question and its type: number, theme, location or yes/no."""
    said = text.lower()
    if "how many" in said or "number of" in said:
        return question_of(text, "count", COUNTS), "number"
    for sign in ("theme", "location", "where"):
        if sign in said:
            return question_of(text, "open"), "location" if sign == "where" else sign
    if said.startswith(("what", "which")):
        return question_of(text, "open"), "other"
    return question_of(text, "yesno", YES_NO), "yes/no"
