"""Conversations in the published format: which are refused and why, and the bytes of both templates."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsqa.engines.cards import CARDS
from rsqa.errors import InputError
from rsqa.tasks.prompts import REASONING_SYSTEM, prefix_text
from rsqa.train.conversations import (
    Conversation,
    box_fault,
    chain,
    framed,
    index_conversations,
    read_conversation,
    read_conversations,
)
from rsqa.train.packing import IGNORE
from rsqa.train.tally import Unfit

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from real_vocab import qwen_tokenizer


def record(image="a.png", **turns):
    values = turns.get("values", ["<image>\n{VQA} Is there water? ", "yes"])
    said = [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]
    return {"conversations": said} | ({} if image is None else {"image": image})


def picture(path, side=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, side[::-1]).save(path)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (record(), Conversation("a.png", (("{VQA} Is there water? ", "yes"),))),
        (record(["a.png"]), Conversation("a.png", (("{VQA} Is there water? ", "yes"),))),
        (record(None, values=["Hi", "Hello."]), Conversation("", (("Hi", "Hello."),))),
        (record(values=["<image>\nA?", "a", "B?", "b"]), Conversation("a.png", (("A?", "a"), ("B?", "b")))),
        (record(values=["<image>A?", "a"]), Conversation("a.png", (("A?", "a"),))),
        (record(values=["A?\n<image>", "a"]), Conversation("a.png", (("A?", "a"),), moved=True)),
        (record(values=["A?\n<image>\nB?", "a"]), Conversation("a.png", (("A?\nB?", "a"),), moved=True)),
        (record(["a.png", "b.png"]), "several images"),
        (record([]), "image is no path"),
        (record(3), "image is no path"),
        (record(values=[]), "empty conversation"),
        ({"image": "a.png"}, "empty conversation"),
        ({"image": "a.png", "conversations": [{"from": "human"}]}, "turn without text"),
        ({"image": "a.png", "conversations": record()["conversations"][::-1]}, "wrong order of speakers"),
        (record(values=["<image>\nA?"]), "last question has no answer"),
        (record(values=["A?", "a"]), "no image tag in the first question"),
        (record(values=["<image>\n<image>\nA?", "a"]), "image tag out of place"),
        (record(values=["<image>\nA?", "a", "<image>\nB?", "b"]), "image tag out of place"),
        (record(None, values=["<image>\nA?", "a"]), "image tag without an image"),
        (record(values=["<image>\n ", "a"]), "empty question"),
        (record(values=["<image>\nA?", " "]), "empty answer"),
        (record(values=["<image>\nA?<|im_end|>", "a"]), "text holds a control token"),
        (record(values=["<image>\n{VG} ship ", "[[1,2,3,4000]]"]), "box outside the picture"),
        ([], "record is no object"),
        (Unfit("line is no JSON"), "line is no JSON"),
    ],
)
def test_read_conversation(raw, expected):
    assert read_conversation(raw) == (Unfit(expected) if isinstance(expected, str) else expected)


KEYS = st.sampled_from(["image", "conversations", "from", "value"])
LEAVES = st.none() | st.text(max_size=9) | st.integers()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner)))
def test_no_json_makes_the_reader_raise(raw):
    assert isinstance(read_conversation(raw), Conversation | Unfit)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("[[0,0,1000,1000]]", ""),
        ("[[1,2,3,4],[5,6,7,8]]", ""),
        ("<reasoning>At [1].</reasoning><answer>[[1,2,3,4]]</answer>", ""),
        ("a ship", "no box in the answer"),
        ("[[1,2,3]]", "malformed box"),
        ("[[0.1,0.2,0.3,0.4]]", "malformed box"),
        ("[[3,2,1,4]]", "malformed box"),
        ("[[1,2,3,1001]]", "box outside the picture"),
        ("[[1,2,3,4],[-5,6,7,8]]", "box outside the picture"),
    ],
)
def test_box_fault(answer, fault):
    assert box_fault(answer) == fault


@pytest.fixture(scope="module")
def qwen():
    tokenizer = qwen_tokenizer()
    return tokenizer, lambda text: tokenizer.encode(text, add_special_tokens=False).ids


TWO = Conversation("a.png", (("{VQA} Is there water? ", "yes"), ("How large is it?", "About 3 ha.\nIt is blue.")))
SFT = (
    "<|im_start|>system\nYou are a helpful assistant.\n<|im_end|>\n<|im_start|>user\n<|vision_start|>",
    "<|vision_end|>",
    "{VQA} Is there water? \n<|im_end|>\n<|im_start|>assistant\nyes\n<|im_end|>\n"
    "<|im_start|>user\nHow large is it?\n<|im_end|>\n<|im_start|>assistant\nAbout 3 ha.\nIt is blue.\n<|im_end|>\n",
    ["yes\n<|im_end|>\n", "About 3 ha.\nIt is blue.\n<|im_end|>\n"],
)
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
    "<|vision_end|>",
    "{VQA} Is there water? <|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    "<|im_start|>user\nHow large is it?<|im_end|>\n<|im_start|>assistant\nAbout 3 ha.\nIt is blue.<|im_end|>",
    ["yes<|im_end|>", "About 3 ha.\nIt is blue.<|im_end|>"],
)


def whole(one):
    """All tokens of a chain: those that are read, and the last, which is only predicted."""
    return [*one.ids, one.labels[-1]]


@pytest.mark.parametrize(("form", "expected"), [("sft", SFT), ("chat", CHAT)])
def test_template_bytes_and_label_mask(qwen, form, expected):
    tokenizer, encode = qwen
    before, after, text, learned = expected
    frame, made = framed(encode, form, True), chain(TWO, encode, form)

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)

    assert (decode(frame.before), decode(frame.after), decode(whole(made))) == (before, after, text)
    spans = "".join(decode([label]) if label != IGNORE else "\0" for label in made.labels).split("\0")
    assert [span for span in spans if span] == learned
    # Cut as it is or tokenised in one piece: the same tokens.
    assert [*frame.before, *frame.after, *whole(made)] == encode(before + after + text)


@pytest.mark.parametrize("form", ["sft", "chat"])
def test_labels_follow_their_tokens(qwen, form):
    made = chain(TWO, qwen[1], form)
    tokens = whole(made)
    assert all(label in (IGNORE, after) for label, after in zip(made.labels, tokens[1:], strict=True))


def test_text_alone_has_no_picture_tokens(qwen):
    tokenizer, encode = qwen
    alone = Conversation("", (("Hi", "Hello."),))
    frame, made = framed(encode, "sft", False), chain(alone, encode, "sft")
    expected = (
        "<|im_start|>system\nYou are a helpful assistant.\n<|im_end|>\n"
        "<|im_start|>user\nHi\n<|im_end|>\n<|im_start|>assistant\nHello.\n<|im_end|>\n"
    )
    assert frame.after == ()
    assert [*frame.before, *whole(made)] == encode(expected)
    assert tokenizer.decode([*frame.before, *whole(made)], skip_special_tokens=False) == expected


@pytest.mark.parametrize("card", ["tinyrs", "tinyrs-r1"])
def test_the_chat_form_frames_as_inference_does(qwen, card):
    style = CARDS[card].prompt
    frame = framed(qwen[1], "chat", True, style.system)
    assert [list(frame.before), list(frame.after)] == [qwen[1](text) for text in prefix_text(style)]
    assert CARDS["tinyrs-r1"].prompt.system == REASONING_SYSTEM


PLAIN = st.text(
    st.characters(codec="utf-8", exclude_characters="<|>", exclude_categories=["Cs"]), min_size=1, max_size=30
)


@given(question=PLAIN, answer=PLAIN.filter(lambda text: not text[0].isspace()), form=st.sampled_from(["sft", "chat"]))
def test_split_is_joined(qwen, question, answer, form):
    encode = qwen[1]
    end = "\n<|im_end|>" if form == "sft" else "<|im_end|>"
    made = chain(Conversation("a.png", ((question, answer),)), encode, form)
    text = f"{question}{end}\n<|im_start|>assistant\n{answer}{end}" + "\n" * (form == "sft")
    frame = framed(encode, form, True)
    assert [*frame.after, *whole(made)] == encode("<|vision_end|>" + text)


def planted(folder):
    """A file with good records and one of each fault of a picture."""
    picture(folder / "p/a.png", (40, 30))
    picture(folder / "b.png", (56, 84))
    (folder / "broken.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep.tif")
    names = ["p/a.png", "none.png", "b.png", "broken.png", "p/a.png", "deep.tif", "../b.png", "none.png"]
    records = [record(name) for name in names] + [record(values=[]), record(None, values=["Hi", "Hello."])]
    records.append(record("b.png", values=["Look: <image>\nA?", "a"]))
    return records


@pytest.mark.parametrize("lines", [False, True])
def test_index(tmp_path, lines):
    records = planted(tmp_path)
    file = tmp_path / "c.json"
    file.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    found = index_conversations(file, tmp_path)
    assert found.left_out.report() == {
        "no such picture": {"count": 2, "examples": ["record 2 (none.png)"]},
        "empty conversation": {"count": 1, "examples": ["record 9"]},
        "image path leaves the folder": {"count": 1, "examples": ["record 7 (../b.png)"]},
        "picture can't be read": {"count": 1, "examples": ["record 4 (broken.png)"]},
        "picture of more than 8 bits a band": {"count": 1, "examples": ["record 6 (deep.tif)"]},
    }
    assert (found.n_read, found.n_moved, len(found)) == (11, 1, 5)
    assert [found[i] for i in range(5)] == [read_conversation(records[i]) for i in (0, 2, 4, 9, 10)]
    sizes = [tuple(found.size[p]) if p >= 0 else None for p in found.picture]
    assert sizes == [(40, 30), (56, 84), (40, 30), None, (56, 84)]
    assert found.n_chars.tolist() == [found[i].n_chars for i in range(5)]
    assert found.pixels(found[1]).shape == (3, 56, 84)


def test_bad_records_stop_the_start_with_one_line(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(planted(tmp_path)))
    with pytest.raises(InputError) as error:
        read_conversations(file, tmp_path, skip_bad=False)
    assert str(error.value) == (
        "6 of 11 records of c.json can't be used, most (2): no such picture, first record 2 (none.png); mend them "
        "(rsqa data check lists all reasons) or leave them out with skip_bad = true"
    )
    assert len(read_conversations(file, tmp_path, skip_bad=True)) == 5


def test_nothing_usable_is_an_error(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps([record("none.png")]))
    with pytest.raises(InputError, match=r"no usable record in c\.json of 1"):
        read_conversations(file, tmp_path, skip_bad=True)
    file.write_text("[]")
    with pytest.raises(InputError, match="no usable record"):
        read_conversations(file, tmp_path, skip_bad=False)


def test_a_picture_cut_off_in_the_middle_is_named(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    file = tmp_path / "c.json"
    file.write_text(json.dumps([record("a.jpg")]))
    found = read_conversations(file, tmp_path, skip_bad=False)
    with pytest.raises(InputError, match=r"can't decode picture a\.jpg \(.*truncated.*\); replace or remove it"):
        found.pixels(found[0])


def test_16_bit_colour_is_refused_although_pillow_opens_it(tmp_path):
    import struct
    import zlib

    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + bytes(12) for _ in range(2)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", rows) + part(b"IEND", b""))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
    (tmp_path / "c.json").write_text(json.dumps([record("a.png")]))
    found = index_conversations(tmp_path / "c.json", tmp_path)
    assert found.left_out.counts == {"picture of more than 8 bits a band": 1}
