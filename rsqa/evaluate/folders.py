"""Scene classification where the class is the folder: EuroSAT, UC Merced, AID."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rsqa.errors import SourceMissing
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture
from rsqa.evaluate.pictures import SUFFIXES, file_picture
from rsqa.evaluate.reading import question_of
from rsqa.tasks.labels import ask_class
from rsqa.tasks.schemes import AID_NAMES, EUROSAT_NAMES, UCM_NAMES

CLASSES: Mapping[str, Mapping[str, str]] = {"eurosat": EUROSAT_NAMES, "ucm": UCM_NAMES, "aid": AID_NAMES}
"""Benchmark -> name of a folder -> the class in words."""


def read_folders(name: str, data: Path) -> Benchmark:
    """All pictures of all class folders, which lie in `data` or in one folder of it."""
    known = CLASSES[name]
    root = next((where for where in (data, *_folders(data)) if any((where / c).is_dir() for c in known)), None)
    if root is None:
        raise SourceMissing(
            f"no class folder of {name} in {data.name or '.'!r}; --data names the folder that holds {', '.join(known)}"
        )
    question = question_of(ask_class(known.values()), "label", tuple(known.values()))
    pictures: dict[str, Picture] = {}
    items = []
    for folder, words in known.items():
        for path in sorted((root / folder).glob("*")):
            if path.suffix.lower() in SUFFIXES:
                picture = f"{folder}/{path.name}"
                pictures[picture] = file_picture(picture, path)
                items.append(Item(picture, question, ("class",), (words,)))
    if not items:
        raise SourceMissing(f"the class folders in {root.name!r} hold no pictures ({', '.join(SUFFIXES)})")
    absent = [folder for folder in known if not (root / folder).is_dir()]
    others = [f.name for f in _folders(root) if f.name not in known]
    notes = [f"folders without a class of {name}, not asked: {', '.join(others)}"] if others else []
    notes += [f"classes without a folder: {', '.join(absent)}"] if absent else []
    return Benchmark(
        name=name, tests=ItemSet(pictures, tuple(items)), notes=("all pictures, whatever their split", *notes)
    )


def _folders(data: Path) -> list[Path]:
    return sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
