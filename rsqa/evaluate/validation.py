"""The benchmark of the embedded model: pictures and scenes that it never learned from, in every kind of question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, joined, tally
from rsqa.evaluate.pictures import bytes_picture
from rsqa.evaluate.reading import question_of
from rsqa.evaluate.rsivqa import human_item
from rsqa.evaluate.scene_items import (
    area_items,
    balanced,
    box_items,
    count_items,
    counted,
    presence_items,
    presence_type,
    scene_presence,
    scene_tiles,
)
from rsqa.evaluate.vhr10 import singles
from rsqa.tasks.labels import ask_class
from rsqa.tasks.question import YES_NO
from rsqa.tasks.schemes import AID_NAMES, UCM_NAMES
from rsqa.train.parts import Part, part_of
from rsqa.train.pictures import read_rows
from rsqa.train.words import shown_labels

SCENES = 30
HELD_OUT_SEED = 1
"""Evaluation scenes have the seeds from here up, training scenes from a million."""
PROBE_SEED = 500_000
"""Scenes that the colour probe is fitted on: training styles, no training seed."""
CALIBRATION_SEED, CALIBRATION_SCENES = 700_000, 12
CAPTION_TEXT = "Describe the image."
CAPTIONED = 250
"""Pictures of a source that are described."""
LABEL_TEXTS = {
    "airplane": "Is there an airplane?", "bare-soil": "Is there bare soil?", "buildings": "Is there a building?",
    "cars": "Is there a car?", "chaparral": "Is there chaparral?", "court": "Is there a court?",
    "dock": "Is there a dock?", "field": "Is there a field?", "grass": "Is there grass?",
    "mobile-home": "Is there a mobile home?", "pavement": "Is there pavement?", "sand": "Is there sand?",
    "sea": "Is there sea?", "ship": "Is there a ship?", "tanks": "Is there a storage tank?",
    "trees": "Is there a tree?", "water": "Is there water?",
}  # fmt: skip
LABELS_TYPE, HELD_OUT, BOXES_TYPE = "UC Merced labels", presence_type("held-out"), "procedural boxes"
CLASS_TYPES = {"ucm": "UC Merced classes", "aid": "AID classes"}
_CLASS_NAMES: Mapping[str, Mapping[str, str]] = {"ucm": UCM_NAMES, "aid": AID_NAMES}
_TITLES = {"ucm": "UC Merced", "aid": "AID"}
BARS = {LABELS_TYPE: 0.80, CLASS_TYPES["ucm"]: 0.80, CLASS_TYPES["aid"]: 0.70, HELD_OUT: 0.90, BOXES_TYPE: 0.60}

Row = Mapping[str, Any]


def read_validation(data: Path) -> Benchmark:
    """Validation pictures of `ucm`, `aid` and `vhr10.parquet`, and scenes of unseen seeds and styles."""
    rows = {name: read_rows(data, name) for name in ("ucm", "aid", "vhr10")}
    real = {name: _of_part(rows[name], "validation") for name in rows}
    learned = {name: _of_part(rows[name], "train") for name in rows}
    held_out, trained = (scene_tiles(style, HELD_OUT_SEED, SCENES) for style in ("held-out", "train"))
    tests = joined([
        label_items(real["ucm"]), *(class_items(name, real[name]) for name in CLASS_TYPES),
        ItemSet(held_out[0], (
            *presence_items(held_out[1], HELD_OUT), *area_items(held_out[1], "procedural rural or urban"),
            *count_items(held_out[1], "procedural count"), *box_items(held_out[1], BOXES_TYPE),
        )),
        ItemSet(trained[0], tuple(presence_items(trained[1], presence_type("train")))),
        human_items(real["ucm"]), *(caption_items(name, real[name]) for name in CLASS_TYPES),
        single_items(real["vhr10"]),
    ])  # fmt: skip
    presence = scene_presence("train", PROBE_SEED, SCENES)
    as_tested = tuple(Item(i.picture, i.question, (HELD_OUT,), i.gold) for i in presence.items)
    probe = joined([*(class_items(name, learned[name]) for name in CLASS_TYPES), ItemSet(presence.pictures, as_tested)])
    return Benchmark(
        name="validation", tests=tests, train=_train(learned), probe=probe, bars=BARS,
        files=tuple(data / f"{name}.parquet" for name in rows),
        notes=("labels, presence and areas are balanced; classes are asked with all class names of their set",),
    )  # fmt: skip


def calibration_items(data: Path) -> ItemSet:
    """Pictures and scenes that are neither learned from nor validated on: every kind of closed question."""
    real = {name: _of_part(read_rows(data, name), "calibration") for name in CLASS_TYPES}
    pictures, tiles = scene_tiles("train", CALIBRATION_SEED, CALIBRATION_SCENES)
    scenes = (*presence_items(tiles, "presence"), *area_items(tiles, "area"), *count_items(tiles, "count"))
    return joined(
        [label_items(real["ucm"]), *(class_items(name, real[name]) for name in real), ItemSet(pictures, scenes)]
    )


def _train(learned: Mapping[str, Sequence[Row]]) -> dict[tuple[str, str], Counter[str]]:
    """Right answers where the train part asks as the validation part does. Balanced questions have no such part."""
    sets = [human_items(learned["ucm"])]
    for name in CLASS_TYPES:
        sets += [class_items(name, learned[name]), caption_items(name, learned[name])]
    return tally(joined(sets).items)


def _of_part(rows: Iterable[Row], part: Part) -> list[Row]:
    return [row for row in rows if part_of(row["id"]) == part]


def _pictures(name: str, rows: Iterable[Row]) -> dict[str, Picture]:
    return {f"{name}/{row['id']}": bytes_picture(f"{name}/{row['id']}", row["image"]) for row in rows}


def label_items(rows: Sequence[Row]) -> ItemSet:
    """As many "no" as "yes" for each of the 17 labels of UC Merced, drawn at random."""
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for label, text in LABEL_TEXTS.items():
        known = [(f"ucm/{row['id']}", label in shown_labels(row["labels"])) for row in rows]
        items += balanced(known, question_of(text, "yesno", YES_NO), LABELS_TYPE, rng)
    return ItemSet(_pictures("ucm", rows), tuple(items))


def class_items(name: str, rows: Sequence[Row]) -> ItemSet:
    """Which class, all class names of the set as options."""
    names = _CLASS_NAMES[name]
    question = question_of(ask_class(names.values()), "label", tuple(names.values()))
    items = (Item(f"{name}/{row['id']}", question, (CLASS_TYPES[name],), (names[row["cls"]],)) for row in rows)
    return ItemSet(_pictures(name, rows), tuple(items))


def human_items(rows: Sequence[Row]) -> ItemSet:
    """RSIVQA's own questions over UC Merced."""
    items: list[Item] = []
    for row in rows:
        for pair in json.loads(row["vqa"] or "[]"):
            item = human_item(f"ucm/{row['id']}", pair["question"], pair["answer"], "RSIVQA ")
            items += counted(item) if item.question.kind == "count" else [item]
    return ItemSet(_pictures("ucm", rows), tuple(items))


def caption_items(name: str, rows: Sequence[Row]) -> ItemSet:
    """A description of some pictures, against all that people wrote."""
    described = sorted((row for row in rows if row["captions"]), key=lambda row: str(row["id"]))
    order = np.random.default_rng(0).permutation(len(described))[:CAPTIONED]
    question = question_of(CAPTION_TEXT, "open")
    items = tuple(
        Item(f"{name}/{row['id']}", question, (f"{_TITLES[name]} captions",), tuple(row["captions"]), "f1")
        for row in (described[i] for i in order)
    )
    return ItemSet(_pictures(name, rows), items)


def single_items(rows: Sequence[Row]) -> ItemSet:
    """Where the only object of its class is, on VHR-10 pictures."""
    items: list[Item] = []
    for row in rows:
        objects = [(one["label"], tuple(one["box"])) for one in json.loads(row["objects"])]
        items += singles(f"vhr10/{row['id']}", tuple(objects), "VHR-10 single objects")
    return ItemSet(_pictures("vhr10", rows), tuple(items))
