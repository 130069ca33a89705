"""Records found by their place in lists and lines, whatever white space, alphabet and chunks they are read in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import InputError, SourceChanged, SourceMissing
from rsqa.train import records
from rsqa.train.records import RecordFile, scan, scan_member
from rsqa.train.tally import Unfit

VALUES = st.one_of(
    st.integers(), st.text(max_size=40), st.dictionaries(st.text(max_size=5), st.text(max_size=40), max_size=3)
)


@given(values=st.lists(VALUES, max_size=12), indent=st.sampled_from([None, 2]), ascii_=st.booleans(),
       chunk=st.integers(1, 50), mark=st.booleans())  # fmt: skip
def test_a_list_is_read_as_json_reads_it(tmp_path_factory, values, indent, ascii_, chunk, mark):
    file = tmp_path_factory.mktemp("list") / "r.json"
    file.write_text("\ufeff" * mark + json.dumps(values, indent=indent, ensure_ascii=ascii_), "utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        found = list(scan(file))
    again = RecordFile(file)
    assert [value for _, value in found] == values
    assert [again.read(place) for place, _ in found] == values


@given(values=st.lists(VALUES.filter(bool), min_size=1, max_size=12), blank=st.sampled_from(["", "\n", " \n"]))
def test_lines_are_read_one_by_one(tmp_path_factory, values, blank):
    file = tmp_path_factory.mktemp("lines") / "r.jsonl"
    file.write_text(blank + "".join(json.dumps(value) + "\n" + blank for value in values))
    found = list(scan(file))
    again = RecordFile(file)
    assert [value for _, value in found] == values
    assert [again.read(place) for place, _ in found] == values


def test_a_bad_line_is_one_bad_record(tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n\xff\n{"a": 2}\n')
    assert [value for _, value in scan(file)] == [
        {"a": 1},
        Unfit("line is no JSON"),
        Unfit("line is no JSON"),
        {"a": 2},
    ]


@pytest.mark.parametrize(
    "text", ['[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1},]', '[{"a": }]', "[", b'[{"a": "\xff"}]']
)
def test_a_list_that_breaks_off_is_an_error(tmp_path, text):
    file = tmp_path / "r.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"r\.json is no JSON list"):
        list(scan(file))


def test_a_file_that_changes_is_told(tmp_path):
    file = tmp_path / "r.json"
    file.write_text('[{"a": 1}, {"a": 2}]')
    places = [place for place, _ in scan(file)]
    again = RecordFile(file)
    file.write_text('[{"a": "another"}, {"a": 2}]')
    with pytest.raises(SourceChanged, match=r"r\.json is not the file it was"):
        again.read(places[1])


def test_no_file(tmp_path):
    with pytest.raises(SourceMissing, match=r"no file none\.json"):
        list(scan(tmp_path / "none.json"))


def test_the_list_of_an_object(tmp_path):
    file = tmp_path / "q.json"
    file.write_text('\n{ "questions" : [{"id": 0}, {"id": 1}]}')
    assert list(scan_member(file, "questions")) == [{"id": 0}, {"id": 1}]
    with pytest.raises(InputError, match="does not begin with a list 'answers'"):
        list(scan_member(file, "answers"))
