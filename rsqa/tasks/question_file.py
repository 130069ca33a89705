"""Questions as people write them: on the command line, and in text, CSV and JSONL files.

    # one question a line
    water: Is there water? [yes|no]          an id before, the type of the answer behind; both may be left out
    How many ships are there? [count: 0|1-10|more than 10]
    Which is it? [choice: farmland|forest|city]
    Is it a rural or an urban area?          yesno, choice, count or open is taken from the words

CSV has a header and JSONL an object a line, both with the fields `question` (or `text`), `id`, `type` (or `kind`) and
`options` (`a|b`; in JSONL also a list); only the question is needed.

Everything that is not understood is a QuestionError that names the line: a question that is guessed wrongly costs a
whole run.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsqa.errors import QuestionError
from rsqa.tasks.lines import MAX_LINES, clean, read_lines
from rsqa.tasks.question import COUNTS, ID_PATTERN, YES_NO, Kind, Question
from rsqa.tasks.question_words import infer

MAX_QUESTIONS = MAX_LINES
ID_CHARACTERS = 32

_ID_PREFIX = re.compile(r"([^\s:]+):(?:\s+(.*))?")
_TYPE_SUFFIX = re.compile(r"(.*?)\s*\[([^\[\]]*)\]")
_TYPES = "[yes|no], [count], [count: 0|1-10|more than 10], [choice: a|b], [open]"

_FIELD_OF = {
    "id": "id",
    "question": "question",
    "text": "question",
    "type": "type",
    "kind": "type",
    "options": "options",
}


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions in the order in which they were asked, and what the user should know about them."""

    questions: tuple[Question, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A question before it has an id; `where` names its line."""

    where: str
    id: str | None
    text: str
    kind: Kind
    options: tuple[str, ...]


def gather_questions(texts: Sequence[str] = (), file: Path | None = None) -> QuestionSet:
    """Questions of the command line, then those of the file. Raises QuestionError, also when there is none."""
    entries = [_argument_entry(text, f"--question {number}") for number, text in enumerate(texts, start=1)]
    if file is not None:
        in_file = list(_file_entries(file))
        if not in_file:
            raise QuestionError(f"{file.name}: no question in it; write one a line")
        entries += in_file
    if not entries:
        raise QuestionError("no question; ask with -q TEXT or --question-file FILE")
    if len(entries) > MAX_QUESTIONS:
        raise QuestionError(f"{len(entries)} questions, the most is {MAX_QUESTIONS}; ask the rest in another run")
    return _with_ids(entries)


def _file_entries(file: Path) -> Iterator[_Entry]:
    suffix = file.suffix.lower()
    if suffix == ".json":
        raise QuestionError(f"{file.name}: a JSON document; write one JSON object a line and name the file .jsonl")
    lines = read_lines(file, "question")
    if suffix == ".csv":
        yield from _csv_entries(lines, file.name)
    else:
        parse = _json_entry if suffix in (".jsonl", ".ndjson") else _line_entry
        for where, line in lines:
            yield parse(line, where)


def _argument_entry(text: str, where: str) -> _Entry:
    return _line_entry(clean(text, where, "question"), where)


def _line_entry(text: str, where: str) -> _Entry:
    """`id: question [type]`, id and type optional."""
    id_: str | None = None
    # Only a word before the first colon and a blank behind it make an id: `https://…` and `at 10:30` are left alone.
    if prefix := _ID_PREFIX.fullmatch(text):
        id_, text = prefix[1], prefix[2] or ""
    type_: str | None = None
    if suffix := _TYPE_SUFFIX.fullmatch(text):
        text, type_ = suffix[1], suffix[2]
    return _entry(where, id_, text, type_)


def _csv_entries(lines: Iterable[tuple[str, str]], name: str) -> Iterator[_Entry]:
    columns: list[str] | None = None
    for where, line in lines:
        try:
            [row] = csv.reader([line], strict=True, skipinitialspace=True)
        except (csv.Error, ValueError) as error:
            raise QuestionError(f"{where}: not a row of CSV ({error}); quote text that holds commas") from error
        if columns is None:
            columns = _fields(row, where)
            if "question" not in columns:
                raise QuestionError(f"{where}: the header {line!r} has no column question; name the columns there")
            continue
        if len(row) != len(columns):
            raise QuestionError(f"{where}: {len(row)} cells under {len(columns)} columns; quote text that holds commas")
        cells = dict(zip(columns, row, strict=True))
        yield _entry(where, cells.get("id"), cells["question"], cells.get("type"), _split(cells.get("options")))


def _json_entry(line: str, where: str) -> _Entry:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{where}: not a JSON object ({error}); write one object a line") from error
    if not isinstance(raw, dict):
        raise QuestionError(f'{where}: not a JSON object; write {{"question": "Is there water?"}}')
    cells: dict[str, str] = {}
    options: tuple[str, ...] = ()
    for field, value in zip(_fields(raw, where), raw.values(), strict=True):
        if field == "options" and isinstance(value, list) and all(isinstance(item, str) for item in value):
            options = tuple(clean(item, where, "question") for item in value)
        elif field == "options" and isinstance(value, str):
            options = _split(clean(value, where, "question"))
        elif isinstance(value, str):
            cells[field] = clean(value, where, "question")
        elif value is not None:
            raise QuestionError(f"{where}: {field} is {value!r:.40}; write it as text, options also as a list of texts")
    return _entry(where, cells.get("id"), cells.get("question", ""), cells.get("type"), options)


def _fields(names: Iterable[str], where: str) -> list[str]:
    """Names of columns or keys -> the fields that they mean, each at most once."""
    fields: list[str] = []
    for name in names:
        field = _FIELD_OF.get(name.strip().lower())
        if field is None or field in fields:
            fault = "unknown field" if field is None else "a second field for the same thing:"
            raise QuestionError(f"{where}: {fault} {name!r}; a question has question, id, type and options")
        fields.append(field)
    return fields


def _split(options: str | None) -> tuple[str, ...]:
    return tuple(option.strip() for option in options.split("|")) if options and options.strip() else ()


def _entry(where: str, id_: str | None, text: str, type_: str | None, options: tuple[str, ...] = ()) -> _Entry:
    """Check the pieces of a question; an empty id or type means that it was left out."""
    text = text.strip()
    if not text:
        raise QuestionError(f"{where}: no question; write what is asked")
    if id_ and not ID_PATTERN.fullmatch(id_):
        rule = f"a letter, then letters, digits, - or _, at most {ID_CHARACTERS} in all"
        raise QuestionError(f"{where}: {id_!r} is not an id; use {rule}")
    if type_:
        kind, listed = _answer_type(type_, where)
        if listed and options:
            raise QuestionError(f"{where}: options in the type {type_!r} and beside it; keep one of them")
        options = listed or options
    elif options:
        kind = "yesno" if _is_yes_no(options) else "choice"
    else:
        kind, options = infer(text)
    return _Entry(where, id_ or None, text, kind, _checked_options(kind, options, where))


def _answer_type(type_: str, where: str) -> tuple[Kind, tuple[str, ...]]:
    """`count: 0|1-10` -> ("count", ("0", "1-10"))."""
    name, colon, listed = type_.partition(":")
    options = _split(listed)
    match name.strip().lower():
        case "yesno":
            return "yesno", options
        case "count":
            return "count", options
        case "choice":
            return "choice", options
        case "open":
            return "open", options
    if not colon and "|" in type_:
        options = _split(type_)
        return ("yesno" if _is_yes_no(options) else "choice"), options
    raise QuestionError(f"{where}: unknown type of answer {type_!r}; write {_TYPES}")


def _is_yes_no(options: tuple[str, ...]) -> bool:
    return sorted(option.lower() for option in options) == sorted(YES_NO)


def _checked_options(kind: Kind, options: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Options as a Question wants them; those of yes/no and of counts are known."""
    if kind == "open":
        if options:
            raise QuestionError(f"{where}: an open question has no options; write [choice: {'|'.join(options)}]")
        return ()
    if kind == "yesno":
        if options and not _is_yes_no(options):
            raise QuestionError(f"{where}: yes/no with the options {', '.join(options)}; write [choice: …]")
        return YES_NO
    if kind == "count" and not options:
        return COUNTS
    if len(options) < 2:
        raise QuestionError(f"{where}: a {kind} needs at least two options; write [{kind}: a|b]")
    if not all(options):
        raise QuestionError(f"{where}: an empty option in {'|'.join(options)!r}; remove the extra |")
    if len({option.casefold() for option in options}) < len(options):
        raise QuestionError(f"{where}: an option twice in {'|'.join(options)!r}; keep one")
    return options


def _with_ids(entries: list[_Entry]) -> QuestionSet:
    """Merge exact repeats and give every question an id. Given ids stay; those made from the text step aside."""
    first: dict[tuple[object, ...], _Entry] = {}
    taken: dict[str, str] = {}  # id in lower case, as a file system may see it -> where it was given
    warnings = []
    for entry in entries:
        asked = (entry.id, entry.text, entry.kind, entry.options)
        if asked in first:
            warnings.append(f"{entry.where} repeats {first[asked].where}; asked once")
            continue
        first[asked] = entry
        if entry.id is not None and (other := taken.setdefault(entry.id.lower(), entry.where)) != entry.where:
            raise QuestionError(f"{entry.where}: id {entry.id!r} is taken by {other}; rename one")
    numbers: dict[str, int] = {}
    questions = []
    for entry in first.values():
        id_ = entry.id or _free_id(_slug(entry.text), taken, numbers)
        taken.setdefault(id_.lower(), entry.where)
        questions.append(Question(id_, entry.text, entry.kind, entry.options))
    return QuestionSet(tuple(questions), tuple(warnings))


def ids_of(texts: Iterable[str]) -> list[str]:
    """An id for each text, all different whatever their case."""
    taken: dict[str, str] = {}
    numbers: dict[str, int] = {}
    ids = []
    for text in texts:
        ids.append(_free_id(_slug(text), taken, numbers))
        taken[ids[-1]] = text
    return ids


def _slug(text: str) -> str:
    """`Is there a ship?` -> `is-there-a-ship`, whole words as far as they fit."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug[:1].isalpha():
        slug = f"q-{slug}".rstrip("-")
    if len(slug) > ID_CHARACTERS:
        slug = slug[: ID_CHARACTERS + 1].rpartition("-")[0] or slug[:ID_CHARACTERS]
    return slug


def _free_id(slug: str, taken: dict[str, str], numbers: dict[str, int]) -> str:
    """The slug, or the slug with the first free number from 2 on; `numbers` remembers where to go on."""
    id_ = slug
    while id_ in taken:
        numbers[slug] = numbers.get(slug, 1) + 1
        tail = f"-{numbers[slug]}"
        id_ = slug[: ID_CHARACTERS - len(tail)].rstrip("-") + tail
    return id_
