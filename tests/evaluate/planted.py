"""Small files of the published schemas, with pictures whose pixels are their number."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image


def picture(path, number, size=(20, 20)):
    """`size` (H, W); lossless where the suffix allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 7 * number % 256, number
    Image.fromarray(pixels).save(path)


def rsvqa(folder, prefix, pictures, suffix, split, rows):
    """`rows`: (image, type, question, answer or None). Lists hold places for what was withdrawn."""
    images = [{"id": 0, "active": False}]
    questions = [{"id": 0, "active": False}, {"id": 1, "active": False}]
    answers = [{"id": 0, "active": False}]
    for image in sorted({row[0] for row in rows}):
        images.append({"id": image, "original_name": f"{image}.tif", "questions_ids": [], "active": True})
        picture(folder / pictures / f"{image}{suffix}", image)
    for number, (image, type_, question, answer) in enumerate(rows, 10):
        questions.append(
            {"id": number, "img_id": image, "type": type_, "question": question,
             "answers_ids": [500 + number] if answer is not None else [], "active": True}
        )  # fmt: skip
        if answer is not None:  # written backwards: places are not ids
            answers.insert(0, {"id": 500 + number, "question_id": number, "answer": answer, "active": True})
    for what, content in (("images", images), ("questions", questions), ("answers", answers)):
        (folder / f"{prefix}_split_{split}_{what}.json").write_text(json.dumps({what: content}))


LR_ROWS = [
    (1, "presence", "Is there a road?", "yes"), (1, "comp", "Are there more roads than lakes?", "no"),
    (1, "rural_urban", "Is it a rural or an urban area", "rural"), (1, "count", "How many roads?", "12"),
    (2, "presence", "Is there a road?", "no"), (2, "count", "How many roads?", "between 0 and 10"),
    (2, "count", "How many lakes?", "between 101 and 1000"), (3, "count", "How many lakes?", "0"),
    (3, "presence", "Is there a lake?", None), (3, "presence", "Is there a sea?", "perhaps"),
]  # fmt: skip


def rsvqa_lr(folder, split="test", rows=LR_ROWS):
    rsvqa(folder, "LR", "Images_LR", ".tif", split, rows)


def rsvqa_hr(folder, split="test"):
    rows = [
        (1, "area", "What is the area covered by roads?", "123m2"), (1, "count", "How many roads?", "7"),
        (2, "area", "What is the area covered by lakes?", "0 m2"), (2, "presence", "Is there a lake?", "no"),
        (2, "area", "What is the area covered by roads?", "between 11 m2 and 100 m2"),
    ]  # fmt: skip
    rsvqa(folder, "USGS", "Data", ".png", split, rows)


def talk(image, query, answer, **more):
    turns = [{"from": "human", "value": f"<image>\n{query}"}, {"from": "gpt", "value": answer}]
    return {"image": image, "conversations": turns, **more}


def vhm(folder):
    """Five files; one picture is missing, one item has no answer."""
    ask = "Classify the image within one of the given classes: dense residential area, school. Answer with one word."
    files = {
        "cls_AID": [talk("a.png", ask, "School"), talk("b.png", ask, "dense residential area", image_path="x")],
        "RSVQA_LR-presence_RSVQA": [talk("a.png", "Is there a road?", "Yes"), talk("gone.png", "Is it?", "no"),
                                    {"image": "a.png", "conversations": [{"from": "human", "value": "Is it?"}]}],
        "RSVQA_LR-rural_urban_RSVQA": [talk("a.png", "Is it a rural or an urban area", "urban")],
        "VG_DOIR_RSVG_test": [talk("a.png", "the plane", "[[10,20,40,60]]", size=[999, 1]),
                              talk("a.png", "the wide lake", [0, 0, 150, 90])],
        "LHRS-Bench": [talk("a.png", "Which colour?\nA. red\nB. blue", "B. blue", type=["2", "11"]),
                       talk("b.png", "What is it?", "an airport", type=["1"], image_path="x")],
    }  # fmt: skip
    for name, items in files.items():
        (folder / f"{name}.json").write_text(json.dumps(items))
        picture(folder / name / "a.png", 5, (100, 200))
    picture(folder / "x" / "b.png", 6)
    (folder / "counting_dota-test_open.json").write_text("[]")


def vhr10(folder):
    (folder / "ground truth").mkdir(parents=True)
    (folder / "ground truth" / "001.txt").write_text("(10,10),(50,40),1\n(100,10),(140,40),1 \n( 5,60),(25,90),2\n\n")
    (folder / "ground truth" / "002.txt").write_text("(20,20),(60,60), 10\r\n")
    (folder / "ground truth" / "003.txt").write_text("(20,20),(60,60),11\n")
    for number in (1, 2, 3):
        picture(folder / "positive image set" / f"{number:03}.jpg", 40 * number, (100, 200))
    picture(folder / "negative image set" / "001.jpg", 200, (100, 200))


def rsivqa(folder):
    (folder / "lines.txt").write_text(
        "airport_1.png:Is there a road?yes\nairport_1.png:what is the theme of this picture?Airport\n"
        "P0000: how many small vehicle in this picture?21\nP0000: How many ships are there?nine\n\n"
        "airport_1.png no colon\nairport_1.png:is it?\nP0000:Is it urban?? no\n"
    )
    picture(folder / "AID" / "airport_1.png", 1)
    picture(folder / "DOTA" / "P0000.png", 2, (30, 50))


def eurosat(folder):
    for number, name in enumerate(("AnnualCrop", "Forest", "SeaLake")):
        for k in range(3):
            picture(folder / "2750" / name / f"{name}_{k}.png", 10 * number + k)
