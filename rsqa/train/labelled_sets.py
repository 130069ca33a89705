"""Readers of published sets of labelled pictures: each gives questions with answers, and says what it leaves out.

They are generators, so that sets of a million questions need no memory of their own.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from pyarrow import ArrowException

from rsqa.errors import InputError, SourceMissing
from rsqa.tasks.boxes import Box, format_boxes, parse_boxes
from rsqa.tasks.labels import ask_class
from rsqa.train.picture_files import Look, look
from rsqa.train.records import scan
from rsqa.train.set_files import Asked, LeftOut, rsivqa_questions, rsvqa_questions, vhr10_objects
from rsqa.train.tally import Unfit

Kind = Literal["vqa", "captions", "classes", "boxes"]
PICTURES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture."""

    id: str
    """Of the picture, as its set names it."""
    image: str
    """Path within the folder of pictures."""
    kind: Kind
    question: str
    """In plain words; of captions empty, of boxes the words that name the object."""
    answer: str
    """Of boxes as `[[x1,y1,x2,y2]]`."""


@dataclass(frozen=True, slots=True)
class Held:
    """A picture that its set holds as bytes; comes before its questions."""

    image: str
    content: bytes


Found = Item | LeftOut | Held


class PictureFolder:
    """Finds pictures by the names that sets give them, and looks at each header once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceMissing(f"no folder {folder.name} of pictures; name it with --images")
        self._names: dict[str, list[str]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in PICTURES:
                relative = path.relative_to(folder).as_posix()
                for name in {relative, path.name, path.stem}:
                    self._names.setdefault(name, []).append(relative)
        self._look = cache(lambda relative: look(folder / relative))

    def find(self, name: str) -> tuple[str, Look] | Unfit:
        """Path within the folder and header of a picture, by path, file name or file name without ending."""
        found = self._names.get(name, [])
        if len(found) != 1:
            return Unfit("several pictures of this name" if found else "no such picture")
        seen = self._look(found[0])
        return Unfit(seen.fault) if seen.fault else (found[0], seen)


def rsvqa(source: Path, pictures: PictureFolder) -> Iterator[Found]:
    """A `…_questions.json` of RSVQA with its images and answers, or a folder with one of them."""
    questions = _one_file(source, "*questions.json", "the questions of one split, …_questions.json")
    yield from (_shown(one, pictures) for one in rsvqa_questions(questions))


def rsivqa(source: Path, pictures: PictureFolder) -> Iterator[Found]:
    """A text file of RSIVQA."""
    yield from (_shown(one, pictures) for one in rsivqa_questions(_one_file(source, "*.txt", "a text file")))


def _shown(one: Asked | LeftOut, pictures: PictureFolder) -> Found:
    """The question with its picture."""
    if isinstance(one, LeftOut):
        return one
    found = pictures.find(one.picture)
    if isinstance(found, Unfit):
        return LeftOut(f"{one.what} ({one.picture})", found.why, one.picture)
    return Item(one.picture, found[0], "vqa", one.question, one.answer)


def folders(source: Path, pictures: PictureFolder) -> Iterator[Found]:
    """A folder of pictures per class."""
    classes = {path: class_name(path.name) for path in sorted(source.iterdir()) if path.is_dir()}
    if len(classes) < 2:
        raise InputError(f"{source.name} holds {len(classes)} folders; give one with a folder of pictures per class")
    question = ask_class(classes.values())
    for folder, name in classes.items():
        for path in sorted(folder.iterdir()):
            relative = path.relative_to(source).as_posix()
            if path.suffix.lower() not in PICTURES:
                yield LeftOut(relative, "no picture file", relative)
                continue
            found = pictures.find(relative)
            if isinstance(found, Unfit):
                yield LeftOut(relative, found.why, relative)
            else:
                yield Item(relative, found[0], "classes", question, name)


def class_name(folder: str) -> str:
    """`DenseResidential`, `dense_residential` -> `dense residential`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder)
    return " ".join(re.split(r"[\s_-]+", spaced.strip())).lower()


def boxes(source: Path, pictures: PictureFolder) -> Iterator[Found]:
    """NWPU VHR-10's text files, or a JSON or CSV file of boxes in pixels.

    JSON: `{"image", "label", "box": [x0, y0, x1, y1]}` or `{"image", "objects": [{"label", "box"}, …]}` in a list or a
    line each. CSV: columns image, label, x0, y0, x1, y1.
    """
    readers = {".json": _json_boxes, ".jsonl": _json_boxes, ".csv": _csv_boxes}
    if not source.is_dir() and source.suffix.lower() not in readers:
        raise InputError(f"{source.name} is no folder of text files, JSON or CSV; boxes come in one of these")
    by_picture: dict[str, list[tuple[str, Sequence[Any]]]] = {}
    for one in (_vhr10_boxes if source.is_dir() else readers[source.suffix.lower()])(source):
        if isinstance(one, LeftOut):
            yield one
            continue
        name, label, box = one
        if not name or not label:
            yield LeftOut(name or "box", "no label" if name else "no image", name)
        else:
            by_picture.setdefault(name, []).append((label, box))
    for name, objects in by_picture.items():
        found = pictures.find(name)
        if isinstance(found, Unfit):
            yield from (LeftOut(name, found.why, name) for _ in objects)
        else:
            yield from located(name, found[0], objects, found[1])


Labelled = Iterator[tuple[str, str, Sequence[Any]] | LeftOut]
"""Picture, label, (x0, y0, x1, y1) in pixels."""


def _vhr10_boxes(source: Path) -> Labelled:
    for file in sorted(source.glob("*.txt")):
        for one in vhr10_objects(file):
            yield one if isinstance(one, LeftOut) else (file.stem, *one)


def _json_boxes(source: Path) -> Labelled:
    for _, raw in scan(source):
        record = raw if isinstance(raw, dict) else {}
        objects = record.get("objects", [record])
        for thing in objects if isinstance(objects, list) else [None]:
            known = thing if isinstance(thing, dict) else {}
            box = known.get("box")
            yield str(record.get("image") or ""), str(known.get("label") or ""), box if isinstance(box, list) else ()


def _csv_boxes(source: Path) -> Labelled:
    with source.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        if missing := [c for c in ("image", "label", "x0", "y0", "x1", "y1") if c not in (rows.fieldnames or ())]:
            raise InputError(f"{source.name} has no column {missing[0]!r}; boxes need image, label, x0, y0, x1, y1")
        for row in rows:
            yield row["image"] or "", row["label"] or "", [row[corner] for corner in ("x0", "y0", "x1", "y1")]


def located(picture: str, image: str, objects: Sequence[tuple[str, Sequence[Any]]], seen: Look) -> Iterator[Found]:
    """Where is the …? for every label that one object alone carries: of several the words would not say which."""
    labels = [label for label, _ in objects]
    for label, box in objects:
        what = f"{label} in {picture}"
        share = _share(box, seen)
        if isinstance(share, Unfit):
            yield LeftOut(what, share.why, picture)
        elif labels.count(label) > 1:
            yield LeftOut(what, "several objects of this label", picture)
        else:
            yield Item(picture, image, "boxes", label, format_boxes([share]))


def _share(box: Sequence[Any], seen: Look) -> Box | Unfit:
    """(x0, y0, x1, y1) in pixels -> shares of the picture."""
    try:
        x0, y0, x1, y1 = (float(value) for value in box)
    except (ValueError, TypeError):
        return Unfit("malformed box")
    if not (x0 < x1 and y0 < y1):
        return Unfit("malformed box")
    if x0 < 0 or y0 < 0 or x1 > seen.width or y1 > seen.height:
        return Unfit("box outside the picture")
    share = (x0 / seen.width, y0 / seen.height, x1 / seen.width, y1 / seen.height)
    return share if parse_boxes(format_boxes([share])) else Unfit("box thinner than a thousandth")


_COLUMN: Mapping[Kind, str] = {"vqa": "vqa", "captions": "captions", "classes": "cls", "boxes": "objects"}


def parquet(source: Path, kinds: Sequence[Kind]) -> Iterator[Found]:
    """Rows of id, image (a file's bytes) and any of cls, captions, vqa and objects; `kinds` empty: all there are.

    vqa and objects are lists or JSON.
    """
    file = _one_file(source, "*.parquet", "a Parquet file")
    try:
        table = pq.ParquetFile(file)
        columns = table.schema_arrow.names
        wanted = [kind for kind in (kinds or _COLUMN) if kinds or _COLUMN[kind] in columns]
        if missing := [c for c in ("id", "image", *(_COLUMN[kind] for kind in wanted)) if c not in columns]:
            raise InputError(f"{file.name} has no column {missing[0]!r}; it has {', '.join(columns)}")
        names = pq.read_table(file, columns=["cls"])["cls"].unique().to_pylist() if "classes" in wanted else []
        question = ask_class(class_name(name) for name in names if name)
        seen_ids: set[str] = set()
        for batch in table.iter_batches(64, columns=["id", "image", *(_COLUMN[kind] for kind in wanted)]):
            for row in batch.to_pylist():
                yield from _of_row(row, wanted, question, seen_ids)
    except (ArrowException, OSError) as error:
        raise InputError(f"{file.name} can't be read as Parquet ({error}); fetch it again") from error


def _of_row(row: Mapping[str, Any], kinds: Sequence[Kind], class_question: str, ids: set[str]) -> Iterator[Found]:
    picture, content = str(row["id"]), row["image"]
    seen = look(content) if isinstance(content, bytes) else Look(fault="no picture")
    fault = "id appears twice" if picture in ids else seen.fault
    if not re.fullmatch(r"[\w()+-][\w .()+-]*", picture):
        fault = "id is no file name"
    if fault:
        yield LeftOut(picture, fault, picture)
        return
    ids.add(picture)
    ending = f".{seen.form.lower()}"
    image = picture if Path(picture).suffix.lower() == ending else picture + ending
    yield Held(image, content)
    for kind in kinds:
        yield from _of_kind(kind, row, picture, image, class_question, seen)


def _of_kind(
    kind: Kind, row: Mapping[str, Any], picture: str, image: str, class_question: str, seen: Look
) -> Iterator[Found]:
    value = row[_COLUMN[kind]]
    try:
        things = json.loads(value) if value and kind in ("vqa", "boxes") and isinstance(value, str) else value
        if not things:
            yield LeftOut(picture, f"no {kind}", picture)
        elif kind == "classes":
            yield Item(picture, image, kind, class_question, class_name(str(things)))
        elif kind == "captions":
            for caption in dict.fromkeys(" ".join(str(text).split()) for text in things):
                yield Item(picture, image, kind, "", caption) if caption else LeftOut(picture, "empty caption", picture)
        elif kind == "vqa":
            for pair in things:
                question, answer = str(pair["question"]).strip(), str(pair["answer"]).strip()
                asked = Item(picture, image, kind, question, answer)
                yield asked if question and answer else LeftOut(picture, "empty question or answer", picture)
        else:
            yield from located(picture, image, [(str(o["label"]), o["box"]) for o in things], seen)
    except (ValueError, TypeError, KeyError):
        yield LeftOut(picture, f"{_COLUMN[kind]} not as expected", picture)


def _one_file(source: Path, pattern: str, what: str) -> Path:
    if source.is_file():
        return source
    found = sorted(source.glob(pattern)) if source.is_dir() else []
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise SourceMissing(f"{source.name} must be {what}, or a folder with exactly one; found {names}")
    return found[0]
