"""`rsqa data` as its users run it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from rsqa import cli


@pytest.fixture
def classes(tmp_path):
    for name in ("port/a.png", "river/b.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (30, 40)).save(tmp_path / "set" / name)
    (tmp_path / "set/river/c.png").write_bytes(b"none")
    return tmp_path / "set"


def test_convert_and_check(classes, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.run(["data", "convert", "folders", str(classes), str(out), "--kind", "classes"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out / 'conversations.json'}\n"
    assert "2 records (2 classes) about 2 pictures" in said.err
    assert "picture can't be read" in said.err
    assert cli.run(["data", "check", str(out / "conversations.json"), "--images", str(classes)]) == 0
    assert capsys.readouterr().out == "2 of 2 records (conversations) can be used\n"
    (classes / "river/b.png").unlink()
    assert cli.run(["data", "check", str(out / "conversations.json"), "--images", str(classes)]) == 4
    assert capsys.readouterr().out.splitlines() == [
        "1 of 2 records (conversations) can be used",
        "left out because  records  as",
        "no such picture         1  record 2 (river/b.png)",
    ]
    assert cli.run(["data", "check", str(out / "conversations.json"), "--images", str(classes), "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["left_out"] == {"no such picture": {"count": 1, "examples": ["record 2 (river/b.png)"]}}
    assert (told["records"], told["usable"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "folders", "none", "out"], 4, "no file or folder none"),
        (["convert", "folders", ".", "out", "--kind", "words"], 2, "unknown kind 'words'"),
        (["convert", "other", ".", "out"], 2, "FORMAT"),
        (["check", "none.json", "--images", "."], 4, "no file none.json"),
    ],
)
def test_faults_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["data", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
