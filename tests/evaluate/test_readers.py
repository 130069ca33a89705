"""Every reader on small files of the published schema."""

from __future__ import annotations

import json

import planted
import pytest
from truth_teller import examiner, truthful

from rsqa.errors import InputError, SourceMissing, UsageError
from rsqa.evaluate.evaluate import Options, evaluate
from rsqa.evaluate.reading import NO_ANSWER, ODD_ANSWER
from rsqa.evaluate.registry import BENCHMARKS, read_benchmark
from rsqa.evaluate.scoring import AREA_BUCKETS, COUNT_BUCKETS
from rsqa.tasks.question import COUNTS, YES_NO

PLANTED = {
    "rsvqa-lr": planted.rsvqa_lr, "rsvqa-hr": planted.rsvqa_hr, "rsivqa": planted.rsivqa, "vhm": planted.vhm,
    "vhr10": planted.vhr10, "eurosat": planted.eurosat,
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_who_tells_the_truth_is_right_everywhere(tmp_path, name):
    PLANTED[name](tmp_path)
    benchmark = read_benchmark(name, tmp_path)
    report, _ = evaluate(examiner(truthful(benchmark.tests)), benchmark, Options())
    assert {line.name: line.score for line in report.lines} == {line.name: 1.0 for line in report.lines}
    assert all(boxes.at_50 == boxes.at_70 == 1.0 for boxes in report.boxes)
    assert report.detection is None or report.detection.mean == 1.0
    assert report.statuses.keys() == {"ok"}


def test_rsvqa_is_read_by_ids_and_not_by_places(tmp_path):
    planted.rsvqa_lr(tmp_path)
    benchmark = read_benchmark("rsvqa-lr", tmp_path)
    asked = [(i.picture, i.types[0], i.question.text, i.gold[0]) for i in benchmark.tests.items]
    in_buckets = {
        "12": COUNT_BUCKETS[2],
        "between 0 and 10": COUNT_BUCKETS[1],
        "between 101 and 1000": COUNT_BUCKETS[3],
    }
    assert asked == [
        (str(image), type_, text, in_buckets.get(gold, gold))
        for image, type_, text, gold in planted.LR_ROWS
        if gold not in (None, "perhaps")
    ]
    assert benchmark.skipped == {"no answer": ("question 18",), ODD_ANSWER: ("question 19",)}
    options = {i.types[0]: i.question.options for i in benchmark.tests.items}
    assert options == {
        "presence": YES_NO, "comp": YES_NO, "rural_urban": ("rural", "urban"), "count": COUNT_BUCKETS
    }  # fmt: skip


def test_rsvqa_hr_has_areas_in_buckets_counts_as_numbers_and_a_second_test(tmp_path):
    planted.rsvqa_hr(tmp_path, "test_phili")
    benchmark = read_benchmark("rsvqa-hr", tmp_path, "test_phili")
    assert benchmark.name == "rsvqa-hr test_phili"
    assert [i.gold[0] for i in benchmark.tests.items] == [AREA_BUCKETS[3], "7", AREA_BUCKETS[0], "no", AREA_BUCKETS[2]]
    assert benchmark.tests.items[1].question.options == COUNTS
    assert benchmark.tests.pictures["2"].load().shape == (3, 20, 20)


def test_rsvqa_baselines_are_fitted_on_the_train_split_where_it_is(tmp_path):
    planted.rsvqa_lr(tmp_path)
    assert read_benchmark("rsvqa-lr", tmp_path).train == {}
    planted.rsvqa_lr(tmp_path, "train", [(9, "presence", "Is there a road?", "yes")] * 3)
    assert read_benchmark("rsvqa-lr", tmp_path).train == {("presence", "Is there a road?"): {"yes": 3}}


def test_a_stranger_s_json_breaks_nothing(tmp_path):
    planted.rsvqa_lr(tmp_path)
    rows = [3, None, {"id": []}, {"id": 1}, {"id": 2, "type": ["count"], "question": 5, "img_id": {}, "answers_ids": 4},
            {"id": 3, "type": "presence", "question": "Is it?", "img_id": 1, "answers_ids": [{}]},
            {"id": 4, "type": "presence", "question": "Is it?", "img_id": 99, "answers_ids": [510]}]  # fmt: skip
    (tmp_path / "LR_split_test_questions.json").write_text(json.dumps({"questions": rows}))
    skipped = read_benchmark("rsvqa-lr", tmp_path).skipped
    assert skipped == {
        "no id": tuple(f"entry {n} of the questions" for n in range(3)), "no answer": ("question 3",),
        "its picture is inactive or not listed": ("question 1", "question 2", "question 4"),
    }  # fmt: skip


def test_rsivqa_lines_are_cut_at_the_last_question_mark(tmp_path):
    planted.rsivqa(tmp_path)
    benchmark = read_benchmark("rsivqa", tmp_path)
    assert [(i.picture, i.question.text, i.types[0], i.gold[0]) for i in benchmark.tests.items] == [
        ("airport_1.png", "Is there a road?", "yes/no", "yes"),
        ("airport_1.png", "what is the theme of this picture?", "theme", "airport"),
        ("P0000", "how many small vehicle in this picture?", "number", "21"),
        ("P0000", "How many ships are there?", "number", "9"),
        ("P0000", "Is it urban??", "yes/no", "no"),
    ]
    assert benchmark.tests.pictures["P0000"].load().shape == (3, 30, 50)  # the line names no suffix
    assert benchmark.skipped == {
        "line is not image:question?answer": ("lines.txt line 6",), "empty answer": ("lines.txt line 7",)
    }  # fmt: skip


def test_vhm_files_tell_their_task_by_name(tmp_path):
    planted.vhm(tmp_path)
    benchmark = read_benchmark("vhm", tmp_path)
    shapes = {(i.types, i.question.kind, i.question.options, i.gold) for i in benchmark.tests.items}
    classes = ("dense residential area", "school")
    assert shapes == {
        (("cls_AID",), "label", classes, ("school",)), (("cls_AID",), "label", classes, ("dense residential area",)),
        (("RSVQA_LR-presence_RSVQA",), "yesno", YES_NO, ("yes",)),
        (("RSVQA_LR-presence_RSVQA",), "yesno", YES_NO, ("no",)),
        (("RSVQA_LR-rural_urban_RSVQA",), "choice", ("rural", "urban"), ("urban",)),
        (("VG_DOIR_RSVG_test",), "box", (), ()),
        (("LHRS-Bench colour", "LHRS-Bench reasoning"), "choice", ("A", "B"), ("B",)),
        (("LHRS-Bench identity",), "open", (), ("an airport",)),
    }  # fmt: skip
    assert all("<image>" not in item.question.text for item in benchmark.tests.items)
    boxes = [item.boxes for item in benchmark.tests.items if item.boxes]
    assert boxes == [((10.0, 20.0, 40.0, 60.0),), ((0.0, 0.0, 150.0, 90.0),)]
    assert benchmark.skipped == {NO_ANSWER: ("RSVQA_LR-presence_RSVQA.json item 3",)}
    assert {item.types[0] for item in read_benchmark("vhm", tmp_path, files=["cls_AID.json"]).tests.items} == {
        "cls_AID"
    }


def test_vhr10_asks_for_presence_boxes_and_single_objects(tmp_path):
    planted.vhr10(tmp_path)
    benchmark = read_benchmark("vhr10", tmp_path)
    items = benchmark.tests.items
    single = [(i.picture, i.label, i.boxes) for i in items if i.measure == "box"]
    assert single == [
        ("positive/001", "ship", ((5, 60, 25, 90),)), ("positive/002", "vehicle", ((20, 20, 60, 60),))
    ]  # fmt: skip
    planes = next(i for i in items if i.measure == "detect" and i.boxes)
    assert (planes.label, planes.boxes) == ("airplane", ((10, 10, 50, 40), (100, 10, 140, 40)))
    there = {(i.picture, i.label) for i in items if i.gold == ("yes",)}
    assert there == {("positive/001", "airplane"), ("positive/001", "ship"), ("positive/002", "vehicle")}
    assert sum(i.gold == ("no",) for i in items) == 30 - 3
    # A picture whose boxes are not all known is not asked.
    assert benchmark.skipped == {"line is not (x1,y1),(x2,y2),class 1 to 10": ("003.txt line 1",)}


def test_all_objects_of_a_kind_are_asked_for_as_the_model_was_taught(tmp_path):
    planted.vhr10(tmp_path)
    asked = {
        boxes: {i.measure: i.question.text for i in read_benchmark("vhr10", tmp_path, boxes=boxes).tests.items
                if i.label == "ship" and i.question.kind == "box"}
        for boxes in ("one", "many")
    }  # fmt: skip
    assert asked == {
        "one": {"detect": "the ship", "box": "the ship"}, "many": {"detect": "every ship", "box": "the ship"}
    }  # fmt: skip


def test_folders_name_the_class(tmp_path):
    planted.eurosat(tmp_path)
    (tmp_path / "2750" / "Moon").mkdir()
    benchmark = read_benchmark("eurosat", tmp_path)
    assert {i.gold[0] for i in benchmark.tests.items} == {"annual crop", "forest", "sea or lake"}
    assert len(benchmark.tests.items[0].question.options) == 10
    assert "folders without a class of eurosat, not asked: Moon" in benchmark.notes


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_is_told(tmp_path, name):
    with pytest.raises(SourceMissing, match="--data names"):
        read_benchmark(name, tmp_path)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"name": "rsvqa-l"}, UsageError, "did you mean 'rsvqa-lr'"),
        ({"name": "coco"}, UsageError, "choose one of validation"),
        ({"name": "aid", "split": "test"}, UsageError, "no split 'test'; choose none"),
        ({"name": "rsvqa-lr", "split": "train"}, UsageError, "choose test or val"),
        ({"name": "aid", "files": ["x.json"]}, UsageError, "only vhm"),
        ({"name": "vhm", "files": ["odd.json"]}, UsageError, "'odd.json' names no task"),
        ({"name": "vhm", "files": ["cls_X.json"]}, SourceMissing, "no cls_X.json"),
    ],
)
def test_what_can_not_be_read_is_told(tmp_path, how, error, words):
    with pytest.raises(error, match=words):
        read_benchmark(data=tmp_path, **how)


@pytest.mark.parametrize(
    ("content", "words"), [('{"images": [{]}', "is no JSON list"), ('{"rows": []}', "not begin with a list 'images'")]
)
def test_a_file_of_another_kind_is_told(tmp_path, content, words):
    planted.rsvqa_lr(tmp_path)
    (tmp_path / "LR_split_test_images.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read_benchmark("rsvqa-lr", tmp_path)


def test_no_folder_at_all_is_told(tmp_path):
    with pytest.raises(SourceMissing, match="no folder"):
        read_benchmark("aid", tmp_path / "gone")
