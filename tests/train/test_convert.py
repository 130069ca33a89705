"""Published sets as conversations: planted files of each schema with their known faults."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsqa.errors import InputError, OutputError, SourceMissing, UsageError
from rsqa.train.check import check
from rsqa.train.convert import convert
from rsqa.train.labelled_sets import class_name
from rsqa.train.parts import part_of


def picture(path, side=(100, 200), form=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", side[::-1]).save(path, form)


def records(out):
    """(image, question, answer) of what was written; each has one exchange and its image tag first."""
    found = json.loads((out / "conversations.json").read_text())
    for record in found:
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
        assert record["conversations"][0]["value"].startswith("<image>\n")
    return [(r["image"], r["conversations"][0]["value"][8:], r["conversations"][1]["value"]) for r in found]


def reasons(out):
    return {why: told["count"] for why, told in json.loads((out / "report.json").read_text())["left_out"].items()}


@pytest.fixture
def rsvqa(tmp_path):
    """The published schema with its stubs: ids are not places in the list here."""
    source = tmp_path / "set"
    for name in ("3.tif", "5.tif"):
        picture(source / "Images_LR" / name)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(source / "Images_LR/6.tif")
    stub = {"id": 0, "active": False}
    images = [
        stub,
        {"id": 3, "active": True},
        {"id": 5, "active": True},
        {"id": 6, "active": True},
        {"id": 9, "active": True},
    ]
    asked = [(1, 3, "Is it a rural or an urban area", [11]), (2, 5, "How many roads are there?", [12]),
             (4, 6, "Is there water?", [11]), (5, 9, "Is there water?", [11]), (6, 3, "Is there a road?", []),
             (7, 3, "Is there a farm?", [13]), (8, 0, "Is there a lake?", [11])]  # fmt: skip
    keys = ("id", "img_id", "question", "answers_ids")
    questions = [stub] + [dict(zip(keys, one, strict=True), type="presence", active=True) for one in asked]
    answers = [stub, {"id": 11, "answer": "rural", "active": True}, {"id": 12, "answer": "7", "active": True},
               {"id": 13, "active": False}]  # fmt: skip
    for key, entries in (("images", images), ("questions", questions), ("answers", answers)):
        (source / f"LR_split_train_{key}.json").write_text(json.dumps({key: entries}))
    return source


def test_rsvqa(rsvqa, tmp_path):
    done = convert("rsvqa", rsvqa, tmp_path / "out")
    assert records(tmp_path / "out") == [
        ("Images_LR/3.tif", "{VQA} Is it a rural or an urban area ", "rural"),
        ("Images_LR/5.tif", "{IT} How many roads are there? ", "7"),
    ]
    assert reasons(tmp_path / "out") == {
        "inactive": 1, "no answer": 2, "no such picture": 1, "picture of more than 8 bits a band": 1,
        "its picture is inactive or not listed": 1,
    }  # fmt: skip
    assert (done.n_records, done.n_pictures, done.kinds, done.images) == (2, 2, {"vqa": 2}, rsvqa)
    assert check(done.file, done.images).left_out.total == 0


def test_rsvqa_by_its_questions_file(rsvqa, tmp_path):
    (rsvqa / "LR_split_val_questions.json").write_text('{"questions": []}')
    with pytest.raises(SourceMissing, match=r"found LR_split_train_questions\.json, LR_split_val_questions\.json"):
        convert("rsvqa", rsvqa, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert convert("rsvqa", rsvqa / "LR_split_train_questions.json", tmp_path / "out").n_records == 2
    (rsvqa / "LR_split_train_answers.json").unlink()
    with pytest.raises(SourceMissing, match=r"no file LR_split_train_answers\.json"):
        convert("rsvqa", rsvqa / "LR_split_train_questions.json", tmp_path / "two")


def test_rsivqa(tmp_path):
    picture(tmp_path / "P0000.png")
    picture(tmp_path / "airport_1.jpg")
    lines = ["P0000: how many planes are there in the picture?21", "airport_1.jpg:is there a runway?yes",
             "", "no colon?yes", "airport_1.jpg: no question", "airport_1.jpg:is it?", "x.jpg:is it?yes"]  # fmt: skip
    (tmp_path / "aid.txt").write_text("\n".join(lines))
    convert("rsivqa", tmp_path / "aid.txt", tmp_path / "out")
    assert records(tmp_path / "out") == [
        ("P0000.png", "{IT} how many planes are there in the picture? ", "21"),
        ("airport_1.jpg", "{VQA} is there a runway? ", "yes"),
    ]
    assert reasons(tmp_path / "out") == {
        "line is not image:question?answer": 2,
        "empty answer": 1,
        "no such picture": 1,
    }


def test_folders(tmp_path):
    for name in ("DenseResidential/a.jpg", "river/b.png", "river/c.jpg"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set/river/c.jpg").write_bytes(b"none")
    (tmp_path / "set/river/notes.txt").write_text("none")
    convert("folders", tmp_path / "set", tmp_path / "out")
    asked = (
        "{CLS} Classify the image within one of the given classes: dense residential, river. "
        "Answer with one word or short phrase."
    )
    assert records(tmp_path / "out") == [
        ("DenseResidential/a.jpg", asked, "dense residential"),
        ("river/b.png", asked, "river"),
    ]
    assert reasons(tmp_path / "out") == {"no picture file": 1, "picture can't be read": 1}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("BareLand", "bare land"), ("bare_land", "bare land"), ("storage-tanks", "storage tanks"), ("Port", "port")],
)
def test_class_name(folder, name):
    assert class_name(folder) == name


def test_boxes_of_vhr10(tmp_path):
    picture(tmp_path / "positive/001.jpg")
    lines = [
        "(20,10),(100,60),1 ",
        "( 0, 0),( 10,10), 2",
        "(5,5),(9,9),2",
        "(0,0),(201,10),4",
        "nonsense",
        "(0,0),(9,9),11",
    ]
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/001.txt").write_text("\n".join(lines))
    convert("boxes", tmp_path / "truth", tmp_path / "out", images=tmp_path / "positive")
    assert records(tmp_path / "out") == [
        ("001.jpg", "{VG} airplane ", "[[100,100,500,600]]"),
    ]
    assert reasons(tmp_path / "out") == {
        "several objects of this label": 2, "box outside the picture": 1,
        "line is not (x1,y1),(x2,y2),class 1 to 10": 2,
    }  # fmt: skip


BOXES = [("a.png", "ship", [20, 10, 100, 60]), ("a.png", "pier", [3, 1, 3, 9]), ("b.png", "ship", [0, 0, 0.01, 50]),
         ("none.png", "ship", [0, 0, 9, 9]), ("a.png", "", [0, 0, 9, 9])]  # fmt: skip
BOX_REASONS = {"malformed box": 1, "box thinner than a thousandth": 1, "no such picture": 1, "no label": 1}


def box_csv():
    rows = [",".join(map(str, (image, label, *box))) for image, label, box in BOXES]
    return "image,label,x0,y0,x1,y1\n" + "\n".join(rows) + "\n"


def box_objects():
    return json.dumps([{"image": image, "objects": [{"label": label, "box": box}]} for image, label, box in BOXES])


def box_lines():
    return "\n".join(json.dumps({"image": image, "label": label, "box": box}) for image, label, box in BOXES)


@pytest.mark.parametrize(
    ("name", "write"),
    [("b.csv", box_csv), ("b.json", box_objects), ("b.jsonl", box_lines)],
    ids=["csv", "json", "lines"],
)
def test_boxes_of_a_file(tmp_path, name, write):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / name).write_text(write())
    convert("boxes", tmp_path / name, tmp_path / "out")
    assert records(tmp_path / "out") == [("a.png", "{VG} ship ", "[[100,100,500,600]]")]
    assert reasons(tmp_path / "out") == BOX_REASONS


def content(form="WEBP", side=(100, 200)):
    file = io.BytesIO()
    Image.new("RGB", side[::-1]).save(file, form)
    return file.getvalue()


@pytest.fixture
def table(tmp_path):
    """Rows as those of the labelled pictures in Parquet, one of each fault."""
    row = {
        "id": "a.webp", "image": content(), "cls": "River", "labels": ["water"],
        "captions": ["A  river .", "A river ."],
        "vqa": json.dumps([{"question": "is there water?", "answer": "yes"}]),
        "objects": json.dumps([{"label": "ship", "box": [20, 10, 100, 60]}]),
    }  # fmt: skip
    empty = {"cls": "", "captions": [], "vqa": None, "objects": "[]"}
    other = [row | {"id": "b.jpg"} | empty | {"cls": "port"}, row | {"id": "../c"}, row | {"id": "d", "image": b"x"}]
    rows = [row, row, *other, row | {"id": "e.webp"} | empty | {"vqa": "[{", "objects": "{}"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_parquet(table, tmp_path):
    done = convert("parquet", table, tmp_path / "out")
    asked = (
        "{CLS} Classify the image within one of the given classes: port, river. Answer with one word or short phrase."
    )
    assert records(tmp_path / "out") == [
        ("a.webp", "{VQA} is there water? ", "yes"),
        ("a.webp", "Describe this image.", "A river ."),
        ("a.webp", asked, "river"),
        ("a.webp", "{VG} ship ", "[[100,100,500,600]]"),
        ("b.jpg.webp", asked, "port"),
    ]
    assert reasons(tmp_path / "out") == {
        "id appears twice": 1, "id is no file name": 1, "picture can't be read": 1, "no vqa": 1,
        "vqa not as expected": 1, "no captions": 2, "no classes": 1, "no boxes": 2,
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == ["a.webp", "b.jpg.webp"]
    assert (tmp_path / "out/images/a.webp").read_bytes() == content()
    assert check(done.file, done.images).left_out.total == 0


def test_kinds(table, tmp_path):
    done = convert("parquet", table, tmp_path / "out", kinds=("boxes", "captions"))
    assert done.kinds == {"boxes": 1, "captions": 1}


def test_parts_are_cut_by_picture(tmp_path):
    rows = [{"id": f"{i}.webp", "image": content(side=(8, 8)), "cls": "ab"[i % 2], "vqa": None} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    place = {f"{i}.webp": zlib.crc32(f"{i}.webp".encode()) % 100 for i in range(60)}
    held, learned = ({n for n, at in place.items() if low <= at < high} for low, high in ((0, 15), (18, 100)))
    for part, expected in (("validation", held), ("train", learned)):
        convert("parquet", tmp_path / "t.parquet", tmp_path / part, part=part)
        assert {image for image, _, _ in records(tmp_path / part)} == expected
        assert {p.name for p in (tmp_path / part / "images").iterdir()} == expected
        assert {image for image in expected if part_of(image) != part} == set()
        # Of each picture a class and no questions: what is left out is told of this part alone.
        assert reasons(tmp_path / part) == {"other part": 2 * (60 - len(expected)), "no vqa": len(expected)}


def test_grpo(table, tmp_path):
    done = convert("parquet", table, tmp_path / "out", grpo=True)
    lines = [json.loads(line) for line in done.file.read_text().splitlines()]
    assert [(line["answer_type"], line["answer"]) for line in lines] == [
        ("1", "yes"), ("1", "river"), ("2", "[[100,100,500,600]]"), ("1", "port"),
    ]  # fmt: skip
    assert lines[0] == {"image": "a.webp", "question": "{VQA} is there water? ", "answer_type": "1", "answer": "yes"}
    assert reasons(tmp_path / "out")["caption: no one right answer"] == 1
    found = check(done.file, done.images)
    assert (found.form, found.n_usable, found.left_out.total) == ("grpo", 4, 0)


def test_nothing_is_written_when_nothing_is_left(tmp_path):
    (tmp_path / "a.txt").write_text("x.jpg:is it?yes\n")
    with pytest.raises(InputError, match=r"nothing of a\.txt can be converted: 1 no such picture"):
        convert("rsivqa", tmp_path / "a.txt", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a.txt").write_text("x.jpg:is it?yes\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="out is there already"):
        convert("rsivqa", tmp_path / "a.txt", tmp_path / "out")
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("form", "kinds", "images", "message"),
    [("other", (), None, "unknown format"), ("folders", ("vqa",), None, "folders holds no 'vqa'"),
     ("parquet", (), "x", "leave --images away")],
)  # fmt: skip
def test_requests_that_make_no_sense(tmp_path, form, kinds, images, message):
    with pytest.raises(UsageError, match=message):
        convert(form, tmp_path, tmp_path / "out", images=images and tmp_path, kinds=kinds)


@pytest.mark.parametrize("form", ["rsvqa", "rsivqa", "boxes", "parquet", "folders"])
def test_sources_that_are_not_there(tmp_path, form):
    with pytest.raises(SourceMissing, match="no file or folder none"):
        convert(form, tmp_path / "none", tmp_path / "out")
    (tmp_path / "bad.parquet").write_bytes(b"none")
    (tmp_path / "bad.csv").write_bytes(b"none")
    bad = {"boxes": "bad.csv", "parquet": "bad.parquet"}
    with pytest.raises(InputError):
        convert(form, tmp_path / bad[form] if form in bad else tmp_path, tmp_path / "out")
