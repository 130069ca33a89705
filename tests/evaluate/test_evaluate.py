from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import planted
import pytest
from truth_teller import CARD, Teller, examiner, truthful

from rsqa.engines.base import Replies
from rsqa.errors import InputError, OutOfMemory, SourceRefused
from rsqa.evaluate import asking
from rsqa.evaluate.asking import ask
from rsqa.evaluate.baselines import constant_values, question_values
from rsqa.evaluate.calibrate import fitted_temperatures
from rsqa.evaluate.evaluate import Options, evaluate
from rsqa.evaluate.files import write_report
from rsqa.evaluate.items import Benchmark, Item, ItemSet, Picture, limited, tally
from rsqa.evaluate.pictures import bytes_picture, decode, to_png
from rsqa.evaluate.probe import probe_values
from rsqa.evaluate.registry import read_benchmark
from rsqa.evaluate.table import as_text
from rsqa.tasks.boxes import format_boxes, parse_boxes
from rsqa.tasks.question import YES_NO, Question

ROAD, LAKE = (Question("q", f"Is there a {thing}?", "yesno", YES_NO) for thing in ("road", "lake"))
PLAIN = Options()
NAME = Question("q", "What is it?", "open")


def shade(name, value, size=(8, 8)):
    return Picture(name, lambda: np.full((3, *size), value, np.uint8), name)


def two_questions(n=20):
    """A road where the picture's number is even, a lake on every fifth; picture i is of shade i."""
    pictures = {f"p{i:02}": shade(f"p{i:02}", i, (8, 8 + i % 2)) for i in range(n)}
    items = []
    for i, name in enumerate(pictures):
        items.append(Item(name, ROAD, ("road",), ("yes" if i % 2 == 0 else "no",)))
        items.append(Item(name, LAKE, ("lake",), ("yes" if i % 5 == 0 else "no",)))
    return ItemSet(pictures, tuple(items))


def run(engine, tests, how=PLAIN, **more):
    return evaluate(examiner(engine), Benchmark(name="b", tests=tests, **more), how)


def test_a_constant_engine_scores_what_the_constant_does():
    report, _ = run(Teller(lambda chip, question: "no"), two_questions())
    lines = {line.name: line for line in report.lines}
    assert (lines["road"].score, lines["lake"].score, lines["lake"].constant) == (0.5, 0.8, 0.8)
    assert lines["road"].constant == 0.5
    assert lines["OA, all items"].score == pytest.approx(0.65)
    assert lines["lake"].no_image == 0.8
    assert lines["lake"].low <= 0.8 <= lines["lake"].high


def test_who_looks_beats_who_does_not():
    tests = two_questions()
    report, told = run(truthful(tests), tests)
    assert all(line.score == 1.0 for line in report.lines)
    assert all(line.no_image == 0.0 for line in report.lines)  # grey is a picture that it does not know: off the list
    assert [one.score for one in told] == [1.0] * 40


def test_averages_leave_numbers_out():
    tests = two_questions()
    report, _ = run(Teller(lambda chip, question: "no"), tests, numeric=frozenset({"lake"}))
    lines = {line.name: line.score for line in report.lines}
    assert lines["AA, mean of types"] == pytest.approx(0.65)
    assert lines["AA without numeric types"] == 0.5


def test_a_picture_is_asked_once_and_in_one_session():
    engine = Teller(lambda chip, question: "yes")
    ask(examiner(engine), two_questions(), lambda done, n: None)
    assert [(questions, shape) for questions, shape, _ in engine.prepared] == [
        ((ROAD, LAKE), (8, 8)), ((ROAD, LAKE), (8, 9))
    ]  # fmt: skip


def test_pictures_are_opened_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(asking, "MOST_OPEN", 3)
    opened, most = [], []

    def lazy(i):
        opened.append(i)
        return np.full((3, 8, 8), i, np.uint8)

    def say(chip, question):
        most.append(len(opened) - int(chip.min()))
        return "yes"

    pictures = {f"p{i:02}": Picture(f"p{i:02}", lambda i=i: lazy(i), "g") for i in range(12)}
    tests = ItemSet(pictures, tuple(Item(name, ROAD, ("t",), ("yes",)) for name in pictures))
    ask(examiner(Teller(say)), tests, lambda done, n: None)
    assert opened == list(range(12))
    assert max(most) <= 3


def test_grey_pictures_are_asked_once_per_size_and_question():
    seen = []
    run(Teller(lambda chip, question: seen.append(chip.max()) or "yes"), two_questions())
    assert seen.count(128) == 2 * 2


def test_unread_pictures_leave_the_denominator_and_are_named(tmp_path):
    planted.vhm(tmp_path)
    benchmark = read_benchmark("vhm", tmp_path)
    report, told = evaluate(examiner(truthful(benchmark.tests)), benchmark, Options(blind=False))
    assert report.left_out["missing pictures"] == ("RSVQA_LR-presence_RSVQA/gone.png",)
    assert report.pictures_unread == 1
    assert len(told) == report.n_items == len(benchmark.tests.items) - 1
    (tmp_path / "cls_AID" / "a.png").write_bytes(b"\x89PNG not at all")
    broken, _ = evaluate(examiner(truthful(benchmark.tests)), benchmark, Options(blind=False))
    assert broken.left_out["unreadable pictures"] == ("cls_AID/a.png",)


def test_nothing_to_read_is_an_error(tmp_path):
    planted.rsivqa(tmp_path)
    for file in tmp_path.glob("*/*.png"):
        file.unlink()
    with pytest.raises(InputError, match=r"no picture can be opened \(2 missing pictures\)"):
        evaluate(examiner(Teller(lambda c, q: "")), read_benchmark("rsivqa", tmp_path), Options())
    with pytest.raises(InputError, match="nothing to ask"):
        run(Teller(lambda c, q: ""), ItemSet({}, ()))


def test_wrong_bytes_and_deep_pixels_are_refused(tmp_path):
    with pytest.raises(SourceRefused, match="can't be decoded"):
        decode(b"GIF89a", "x")
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(SourceRefused, match="mode I;16"):
        decode((tmp_path / "deep.tif").read_bytes(), "deep.tif")
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    assert (bytes_picture("x", to_png(pixels)).load() == pixels).all()


def test_written_answers_are_put_behind_the_same_words():
    engine = Teller(lambda chip, question: " Yes. " if "road" in question.text else "perhaps")
    tests = two_questions(4)
    report, told = evaluate(examiner(engine, generate=True), Benchmark(name="b", tests=tests), Options(published=True))
    asked = {(q.text, q.kind) for questions, _, _ in engine.prepared for q in questions}
    assert asked == {("{VQA} Is there a road? ", "open"), ("{VQA} Is there a lake? ", "open")}
    assert {line.name: line.score for line in report.lines} == {
        "road": 0.5, "lake": 0.0, "OA, all items": 0.25, "AA, mean of types": 0.25
    }  # fmt: skip
    assert told[0].answer.value == "Yes."
    assert report.provenance.decoding == "greedy text"
    assert report.calibration == ()


def test_out_of_memory_halves_the_batch():
    class Cramped(Teller):
        def prepare(self, questions, tile_shape, batch):
            session = super().prepare(questions, tile_shape, batch)
            if batch > 1:
                session.answer = self.refuse
            return session

        def refuse(self, chips):
            raise OutOfMemory("too large")

    engine = Cramped(lambda chip, question: "yes")
    report, _ = run(engine, two_questions())
    assert report.statuses == {"ok": 40}
    assert {batch for _, _, batch in engine.prepared} == {4, 2, 1}


def test_statuses_and_what_is_off_the_list():
    tests = two_questions(4)
    report, _ = run(Teller(lambda chip, question: "maybe"), tests)
    assert report.statuses == {"off_list": 8}
    assert {line.score for line in report.lines} == {0.0}


def test_levels_of_boxes_and_misses():
    where = [Question("q", f"the {label}", "box") for label in ("dot", "ship", "hall")]
    boxes = ((0, 0, 32, 32), (0, 0, 33, 32), (0, 0, 97, 96))
    tests = ItemSet(
        {"p": shade("p", 1, (100, 100))},
        tuple(Item("p", q, ("VG",), measure="box", boxes=(box,)) for q, box in zip(where, boxes, strict=True)),
    )
    says = {"the dot": "[[0,0,320,320]]", "the ship": "nowhere", "the hall": "[[0,0,970,600]]"}
    report, _ = run(Teller(lambda chip, question: says[question.text]), tests)
    (got,) = report.boxes
    assert got.sizes == {"small": (1, 1.0), "medium": (1, 0.0), "large": (1, 1.0)}
    assert (got.n, got.at_50, got.at_70) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert got.mean_iou == pytest.approx((1 + 0 + 600 / 960) / 3)
    assert report.statuses == {"ok": 2, "unparsed": 1}
    only = ItemSet(tests.pictures, tests.items[:1])
    assert "large – of 0" in as_text(run(Teller(lambda chip, question: "[]"), only)[0])


@pytest.mark.parametrize(("boxes", "planes"), [("many", 1.0), ("one", 0.5)])
def test_every_box_of_an_answer_counts_and_is_as_sure_as_the_object_s_presence(tmp_path, boxes, planes):
    """Two planes on the first picture; there a vehicle is seen, too, where presence says that there is none."""
    planted.vhr10(tmp_path)
    tests = read_benchmark("vhr10", tmp_path, boxes=boxes).tests
    truth = truthful(tests)
    first = tests.pictures["positive/001"].load().tobytes()

    def say(chip, question):
        if question.kind == "box" and "vehicle" in question.text and chip.tobytes() == first:
            return "[[0,0,500,500]]"
        said = truth.say(chip, question)
        several = question.text.startswith("every") or question.kind != "box"
        return said if several else format_boxes(parse_boxes(said)[:1])

    report, _ = run(Teller(say), tests)
    assert {label: ap for label, _, ap in report.detection.by_class if ap is not None} == {
        "airplane": planes, "ship": 1.0, "vehicle": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("box_format", "said", "iou"),
    [
        ("qwen2vl", "<|box_start|>(100,200),(300,400)<|box_end|>", 1),
        ("qwen2vl", "[[100,200,300,400]]", 0),
        ("geochat", "{<10><20><30><40>|<0>}", 1),
        ("geochat", "{<5><25><35><35>|<90>}", 0.2 * 0.1 / (0.2 * 0.2 + 0.1 * 0.3 - 0.2 * 0.1)),
        ("tinyrs", "(100,200),(300,400)", 0),
    ],
)
def test_boxes_are_read_as_the_card_says(box_format, said, iou):
    item = Item("p", Question("q", "the ship", "box"), ("VG",), measure="box", boxes=((10, 20, 30, 40),))
    tests = ItemSet({"p": shade("p", 1, (100, 100))}, (item,))
    report, _ = run(Teller(lambda chip, question: said, replace(CARD, box_format=box_format)), tests)
    assert report.boxes[0].mean_iou == pytest.approx(iou)
    assert not report.notes


def test_question_text_is_not_fitted_on_the_picture_that_it_is_asked_about():
    """Each text occurs on one picture only: nothing can be known from it; and on two pictures: everything."""
    once = [Item(f"p{i:02}", Question("q", f"Is there {i}?", "yesno", YES_NO), ("t",), ("yes",)) for i in range(20)]
    once[7] = replace(once[7], gold=("no",))
    assert question_values(once, {})[7] == "yes"
    items = list(two_questions().items)
    lake = [value for item, value in zip(items, question_values(items, {}), strict=True) if item.question == LAKE]
    assert set(lake) == {"no"}
    train = tally([Item("x", LAKE, ("lake",), ("yes",))])
    assert question_values(items, train)[1] == constant_values(items, [(8, 8)] * 40, train)[1] == "yes"


def test_a_sub_sample_is_the_same_every_time():
    tests = two_questions()
    few = limited(tests, 5)
    assert few.items == limited(tests, 5).items
    assert len(few.pictures) == 5
    assert len(few.items) == 10
    report, _ = run(truthful(tests), tests, Options(limit=5))
    assert "sub-sample: 5 of 20 pictures, shuffled with seed 0" in report.notes


def test_the_probe_sees_colours():
    dark, light = shade("d", 10), shade("l", 240)
    items = (Item("d", ROAD, ("t",), ("yes",)), Item("l", ROAD, ("t",), ("no",)))
    both = ItemSet({"d": dark, "l": light}, items)
    new = ItemSet({"e": shade("e", 12)}, (Item("e", ROAD, ("t",), ("no",)), Item("e", LAKE, ("t",), ("no",))))
    assert probe_values(both, both) == ["yes", "no"]
    assert probe_values(both, new) == ["yes", None]


def test_temperatures_are_those_of_the_hits():
    """Right in seven of ten, and as sure of all as 0.94 to 0.05: the temperature makes 0.7 of it."""
    tests = two_questions()
    truth = truthful(tests)
    turned = {"yes": "no", "no": "yes"}

    def say(chip, question):
        gold = truth.say(chip, question)
        return turned[gold] if chip.min() % 10 >= 7 else gold

    fitted = fitted_temperatures(Teller(say), tests)
    assert fitted.keys() == {"yesno"}
    assert fitted["yesno"].n == 40
    assert fitted["yesno"].temperature == pytest.approx(np.log(0.94 / 0.05) / np.log(0.7 / 0.3), rel=0.03)


def test_calibration_is_told_before_and_after():
    tests = two_questions()
    card = replace(CARD, temperatures={"yesno": 2.0})
    report, _ = run(Teller(truthful(tests).say, card), tests)
    (line,) = report.calibration
    assert (line.kind, line.temperature, line.n) == ("yesno", 2.0, 40)
    assert line.before == pytest.approx(1 - 0.94 / 0.99, abs=1e-3)
    assert line.after > line.before  # always right: any doubt is too much


def test_the_report_as_files(tmp_path):
    tests = two_questions()
    report, told = run(Teller(lambda chip, question: "no"), tests)
    write_report(tmp_path, report, told)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert lines[0].keys() >= {"picture", "question", "gold", "value", "text", "confidence", "status", "right"}
    assert [line["right"] for line in lines] == [item.gold == ("no",) for item in tests.items]
    assert json.loads((tmp_path / "report.json").read_text())["n_items"] == 40
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_run_gives_the_same_report():
    tests = two_questions()
    reports = [run(truthful(tests), tests)[0] for _ in range(2)]
    assert reports[0] == reports[1]
    other = ItemSet(tests.pictures | {"p00": shade("p00", 99)}, tests.items)
    assert run(truthful(other), other)[0].provenance.pixels != reports[0].provenance.pixels


def test_a_cut_off_text_is_no_answer():
    class Cut(Teller):
        def prepare(self, questions, tile_shape, batch):
            session = super().prepare(questions, tile_shape, batch)
            whole = session._reply
            session._reply = lambda question, chips: Replies(
                None, whole(question, chips).text, np.zeros(len(chips), np.float32), np.zeros(len(chips), bool)
            )
            return session

    tests = ItemSet({"p": shade("p", 1)}, (Item("p", NAME, ("t",), ("pond",)),))
    report, told = run(Cut(lambda chip, question: "pond"), tests)
    assert report.statuses == {"truncated": 1}
    assert (told[0].score, told[0].answer.text) == (0.0, "pond")
