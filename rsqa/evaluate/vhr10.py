"""NWPU VHR-10 (Cheng et al. 2014) as published: pictures with and without objects, a text file of boxes for each of the
first.
"""

from __future__ import annotations

from pathlib import Path

from rsqa.errors import SourceMissing
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, PixelBox
from rsqa.evaluate.pictures import SUFFIXES, file_picture
from rsqa.evaluate.reading import Skipped, question_of
from rsqa.tasks.detect import HowMany, all_of, is_there, the_only
from rsqa.tasks.question import YES_NO
from rsqa.train.set_files import VHR10, LeftOut, vhr10_objects

TRUTH, POSITIVE, NEGATIVE = "ground truth", "positive image set", "negative image set"

Objects = tuple[tuple[str, PixelBox], ...]


def read_vhr10(data: Path, boxes: HowMany) -> Benchmark:
    """Presence of each class in each picture, their boxes, and single objects as in grounding."""
    root = next((where for where in (data, *sorted(data.glob("*"))) if (where / TRUTH).is_dir()), None)
    if root is None:
        raise SourceMissing(
            f"no folder {TRUTH!r} in {data.name or '.'!r}; --data names the folder with {TRUTH!r} and {POSITIVE!r}"
        )
    skipped = Skipped()
    files = tuple(sorted((root / TRUTH).glob("*.txt")))
    pictures: dict[str, Picture] = {}
    items: list[Item] = []
    for file in files:
        objects = _objects(file, skipped)
        if objects is not None:
            name = f"positive/{file.stem}"
            pictures[name] = file_picture(name, _picture_file(root / POSITIVE, file.stem))
            items += [*presence(name, objects), *detections(name, objects, boxes)]
            items += singles(name, objects, "single objects")
    for path in sorted((root / NEGATIVE).glob("*")):
        if path.suffix.lower() in SUFFIXES:
            name = f"negative/{path.stem}"
            pictures[name] = file_picture(name, path)
            items += [*presence(name, ()), *detections(name, (), boxes)]
    return Benchmark(
        name="vhr10", tests=ItemSet(pictures, tuple(items)), files=files, skipped=skipped.by_reason,
        notes=("all pictures, whatever their split",),
    )  # fmt: skip


def presence(picture: str, objects: Objects) -> list[Item]:
    """Is there one of each class? Its probability scores the boxes."""
    there = {label for label, _ in objects}
    return [
        Item(picture, question_of(is_there(label), "yesno", YES_NO), ("presence",),
             ("yes" if label in there else "no",), label=label)
        for label in VHR10
    ]  # fmt: skip


def detections(picture: str, objects: Objects, boxes: HowMany) -> list[Item]:
    """All boxes of each class."""
    return [
        Item(picture, question_of(all_of(label, boxes), "box"), ("detection",), measure="detect", label=label,
             boxes=tuple(box for name, box in objects if name == label))
        for label in VHR10
    ]  # fmt: skip


def singles(picture: str, objects: Objects, type_: str) -> list[Item]:
    """Where a class has exactly one object, it can be pointed at."""
    names = [name for name, _ in objects]
    return [
        Item(picture, question_of(the_only(name), "box"), (type_,), measure="box", boxes=(box,), label=name)
        for name, box in objects
        if names.count(name) == 1
    ]


def _objects(file: Path, skipped: Skipped) -> Objects | None:
    """None where a line is not understood: boxes that are not known would count as wrongly found."""
    found: list[tuple[str, PixelBox]] = []
    for one in vhr10_objects(file):
        if isinstance(one, LeftOut):
            skipped.add(one.why, one.what)
            return None
        label, (x1, y1, x2, y2) = one
        if not (x1 < x2 and y1 < y2):
            skipped.add("malformed box", f"{label} in {file.name}")
            return None
        found.append((label, (x1, y1, x2, y2)))
    return tuple(found)


def _picture_file(folder: Path, stem: str) -> Path:
    files = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), folder / f"{stem}.jpg")
