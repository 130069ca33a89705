"""What the files of published sets say, before any picture is looked at: conversion and evaluation read them here.

Readers are generators, so that sets of a million questions need no memory of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsqa.train.records import scan_member

INACTIVE = "inactive"
"""Why a stub is left out, which keeps the place of what was withdrawn."""
VHR10 = (
    "airplane", "ship", "storage tank", "baseball diamond", "tennis court", "basketball court", "ground track field",
    "harbor", "bridge", "vehicle",
)  # fmt: skip
"""Classes 1 to 10 of NWPU VHR-10."""
_VHR10_LINE = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about one picture, in plain words."""

    what: str
    """Names it in reports."""
    picture: str
    """As the set names it, with an ending or without."""
    question: str
    answer: str
    type: str = ""
    """As the set names it; empty where it does not."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was left out, and why."""

    what: str
    why: str
    id: str = ""
    """Of its picture, empty when not known: a stub belongs to no part."""


def rsvqa_questions(questions: Path) -> Iterator[Asked | LeftOut]:
    """RSVQA LR, HR and xBEN (Lobry et al. 2020): a `…_questions.json`, beside it its images and answers.

    Lists keep places for what was withdrawn, so items are found by id, never by their place.
    """
    beside = {key: questions.with_name(questions.name.replace("questions", key)) for key in ("images", "answers")}
    active = {image["id"] for image in scan_member(beside["images"], "images") if _active(image)}
    answers = {a["id"]: text_of(a.get("answer")) for a in scan_member(beside["answers"], "answers") if _active(a)}
    for number, entry in enumerate(scan_member(questions, "questions")):
        what = f"question {entry['id']}" if _known(entry) else f"entry {number} of the questions"
        if not _active(entry):
            yield LeftOut(what, INACTIVE if _known(entry) else "no id")
            continue
        picture, ids = entry.get("img_id"), entry.get("answers_ids")
        first = ids[0] if isinstance(ids, list) and ids else None
        if not isinstance(picture, int | str) or picture not in active:
            yield LeftOut(what, "its picture is inactive or not listed")
        elif not isinstance(first, int | str) or first not in answers:
            yield LeftOut(what, "no answer")
        else:
            text, kind = text_of(entry.get("question")), text_of(entry.get("type"))
            yield _whole(Asked(what, str(picture), text or "", answers[first] or "", kind or ""))


def rsivqa_questions(file: Path) -> Iterator[Asked | LeftOut]:
    """RSIVQA (Zheng et al. 2021): lines `image:question?answer`; some images have no ending."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            what = f"{file.name} line {number}"
            picture, colon, rest = line.strip().partition(":")
            question, mark, answer = rest.rpartition("?")  # a question may have two marks, an answer has none
            if picture.strip() and colon and mark:
                question = f"{question.strip()}?" if question.strip() else ""
                yield _whole(Asked(what, picture.strip(), question, answer.strip()))
            else:
                yield LeftOut(what, "line is not image:question?answer")


def vhr10_objects(file: Path) -> Iterator[tuple[str, tuple[int, int, int, int]] | LeftOut]:
    """NWPU VHR-10 (Cheng et al. 2014): a text file a picture, a line `(x1,y1),(x2,y2),class` an object.

    -> class in words and (x1, y1, x2, y2), pixels, as it stands there.
    """
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            match = _VHR10_LINE.match(line.strip())
            if match and 1 <= int(match[5]) <= len(VHR10):
                x1, y1, x2, y2 = map(int, match.groups()[:4])
                yield VHR10[int(match[5]) - 1], (x1, y1, x2, y2)
            elif line.strip():
                yield LeftOut(f"{file.name} line {number}", "line is not (x1,y1),(x2,y2),class 1 to 10", file.stem)


def text_of(value: Any) -> str | None:
    """A non-empty text or a number as text, else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _whole(asked: Asked) -> Asked | LeftOut:
    if asked.question and asked.answer:
        return asked
    return LeftOut(asked.what, "empty question" if asked.answer else "empty answer", asked.picture)


def _known(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), int | str)


def _active(entry: Any) -> bool:
    return _known(entry) and bool(entry.get("active", True))
