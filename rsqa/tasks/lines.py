"""Lines of words that people write: files of questions and labels, arguments. What is odd is told with its line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from rsqa.errors import QuestionError

MAX_LINE_BYTES = 4096
MAX_LINES = 10_000
MAX_FILE_BYTES = MAX_LINE_BYTES * MAX_LINES

_NEWLINE = re.compile(rb"\r\n|\r|\n")
# Control characters but the tab, line and paragraph separators, marks that reorder text, stray BOMs and surrogates
# (what a shell passes on that is not UTF-8): none belongs in a question, and each can hide what is really asked.
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_CHAT_TOKEN = re.compile(r"<\|.*?\|>")


def read_lines(file: Path, what: str) -> Iterator[tuple[str, str]]:
    """-> (where, clean text) of the lines that are neither blank nor comments. QuestionError; `what`: a question, …"""
    data = _read(file, what)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise QuestionError(f"{file.name} line 1, byte 1: UTF-16; save the file as UTF-8")
    for number, raw in enumerate(_NEWLINE.split(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        where = f"{file.name} line {number}"
        if len(raw) > MAX_LINE_BYTES:
            raise QuestionError(f"{where}: {len(raw)} bytes, a line has at most {MAX_LINE_BYTES}; shorten it")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise QuestionError(f"{where}, byte {error.start + 1}: not UTF-8; save the file as UTF-8") from error
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        yield where, clean(line, where, what)


def _read(file: Path, what: str) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise QuestionError(f"can't read {what} file {str(file)!r}: {error.strerror}; check the path") from error
    if len(data) > MAX_FILE_BYTES:
        raise QuestionError(f"{file.name}: over {MAX_FILE_BYTES // 1_000_000} MB; is it a {what} file?")
    return data


def clean(text: str, where: str, what: str) -> str:
    """Refuse what must not reach a model or a terminal; NFC, so that nothing depends on who typed it."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_LINE_BYTES:
        raise QuestionError(f"{where}: longer than {MAX_LINE_BYTES} bytes; shorten it")
    if found := _FORBIDDEN.search(text):
        byte = len(text[: found.start()].encode("utf-8", "surrogatepass")) + 1
        raise QuestionError(f"{where}, byte {byte}: character U+{ord(found[0]):04X} can't be in a {what}; remove it")
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if found := _CHAT_TOKEN.search(text):
        raise QuestionError(f"{where}: {found[0]!r} steers the model and can't be in a {what}; remove it")
    return text
