"""The benchmark of the embedded model: its questions on planted rows, and on the real pictures where they are."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from truth_teller import examiner, truthful

from rsqa.evaluate import validation
from rsqa.evaluate.evaluate import Options, evaluate
from rsqa.evaluate.items import Benchmark
from rsqa.evaluate.pictures import to_png
from rsqa.evaluate.scene_items import area_items, balanced, box_items, count_items, presence_items, scene_tiles
from rsqa.evaluate.validation import LABEL_TEXTS, calibration_items, label_items, read_validation
from rsqa.tasks.question import YES_NO, Question
from rsqa.train.parts import part_of

DATA = pytest.mark.skipif("RSQA_TEST_DATA" not in os.environ, reason="RSQA_TEST_DATA names no folder of real pictures")


@pytest.fixture(scope="module")
def tiles():
    return scene_tiles("held-out", 1, 2)


def test_scenes_are_asked_evenly_and_truly(tiles):
    pictures, known = tiles
    told = dict(known)
    for items in (presence_items(known, "t"), area_items(known, "t")):
        for text in {item.question.text for item in items}:
            gold = Counter(item.gold[0] for item in items if item.question.text == text)
            assert len(set(gold.values())) == 1
    for item in count_items(known, "t"):
        label = item.question.text.removeprefix("How many ").removesuffix("s are there?")
        assert told[item.picture].counts[label] == int(item.gold[0])
    boxes = box_items(known, "t")
    assert boxes
    for item in boxes:
        assert told[item.picture].counts[item.label] == 1
        ((x1, y1, x2, y2),) = item.boxes
        assert (item.label, y1, x1, y2, x2) in told[item.picture].boxes
    assert {picture.group for picture in pictures.values()} == {"held-out scene 1", "held-out scene 2"}
    report, _ = evaluate(
        examiner(truthful_on(pictures, boxes)), Benchmark(name="b", tests=items_of(pictures, boxes)), Options()
    )
    assert report.lines[0].score == 1.0


def items_of(pictures, items):
    from rsqa.evaluate.items import ItemSet

    return ItemSet(pictures, tuple(items))


def truthful_on(pictures, items):
    return truthful(items_of(pictures, items))


def test_unknown_is_not_asked():
    known = [("a", True), ("b", None), ("c", False), ("d", None), ("e", False)]
    items = balanced(known, Question("q", "Is it?", "yesno", YES_NO), "t", np.random.default_rng(0))
    assert [item.gold for item in items] == [("yes",), ("no",)]
    assert {item.picture for item in items} <= {"a", "c", "e"}


def test_labels_are_balanced_per_label():
    rng = np.random.default_rng(0)
    image = to_png(np.zeros((3, 4, 4), np.uint8))
    rows = [
        {"id": str(i), "image": image, "labels": [x for k, x in enumerate(LABEL_TEXTS) if rng.random() < (k + 1) / 20]}
        for i in range(100)
    ]
    # People call the sea water; the label "water" leaves it out.
    labels = {f"ucm/{row['id']}": row["labels"] + ["water"] * ("sea" in row["labels"]) for row in rows}
    names = {text: label for label, text in LABEL_TEXTS.items()}
    items = label_items(rows).items
    for text in LABEL_TEXTS.values():
        gold = [item.gold for item in items if item.question.text == text]
        assert gold.count(("yes",)) == gold.count(("no",)) > 0
    assert all((names[i.question.text] in labels[i.picture]) == (i.gold == ("yes",)) for i in items)
    assert len({(i.picture, i.question.text) for i in items}) == len(items)
    at_sea = {i.gold for i in items if i.question.text == "Is there water?" and "sea" in labels[i.picture]}
    assert at_sea == {("yes",)}


@pytest.mark.data
@DATA
def test_real_pictures_are_those_of_their_part(monkeypatch):
    """Sizes of the small sets as the data's own description gives them; the floors of RSIVQA, fitted on train."""
    for name in ("SCENES", "CALIBRATION_SCENES"):
        monkeypatch.setattr(validation, name, 1)
    benchmark = read_validation(Path(os.environ["RSQA_TEST_DATA"]))
    parts = {part_of(name.split("/", 1)[1]) for name in benchmark.tests.pictures if "/" in name}
    assert parts == {"validation"}
    assert {part_of(name.split("/", 1)[1]) for name in benchmark.probe.pictures if "/" in name} == {"train"}
    n = Counter(type_ for item in benchmark.tests.items for type_ in item.types)
    assert {kind: n[f"RSIVQA {kind}"] for kind in ("theme", "yes/no", "location", "number")} == {
        "theme": 256, "yes/no": 116, "location": 41, "number": 36
    }  # fmt: skip
    assert n["VHR-10 single objects"] == 31
    assert n[validation.LABELS_TYPE] > 1400
    report, _ = evaluate(examiner(truthful(benchmark.tests)), benchmark, Options(blind=False))
    lines = {line.name: line for line in report.lines}
    off_list = {"RSIVQA number": 1, "RSIVQA number, bucketed": 1}  # "i don't know" can't be said in a number
    assert {name: round(line.n * (1 - line.score)) for name, line in lines.items() if line.score < 1} == off_list
    assert all(line.met for line in report.lines)
    floors = {"theme": 0.02, "yes/no": 0.78, "number": 0.19, "location": 0.34}
    assert {k: round(lines[f"RSIVQA {k}"].question_text, 2) for k in floors} == pytest.approx(floors, abs=0.035)  # ties
    assert 0.2 < lines["AID classes"].probe < 0.6
    kinds = {item.question.kind for item in calibration_items(Path(os.environ["RSQA_TEST_DATA"])).items}
    assert kinds == {"yesno", "choice", "count", "label"}
