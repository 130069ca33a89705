"""Records of a JSON list or of JSON lines, found once and read again by their place in the file.

A file of 1.4 million conversations is some gigabytes as Python objects; as places it is a few bytes a record.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rsqa.errors import InputError, SourceChanged, SourceMissing
from rsqa.train.tally import Unfit

_CHUNK = 1 << 20
"""Bytes read at once."""
_LONGEST = 1 << 26
"""Characters that one record may have. Without a bound a missing bracket would load the whole file."""
_BLANK = " \t\r\n\ufeff"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in its file."""

    offset: int
    """Bytes from the start."""
    length: int
    """Bytes."""


def scan(file: Path) -> Iterator[tuple[Place, Any]]:
    """Every record in order with its place; a line that is no JSON gives `Unfit`.

    Raises SourceMissing when there is no such file, InputError when a list breaks off or is no list of JSON: what
    follows the break can't be found.
    """
    if not file.is_file():
        raise SourceMissing(f"no file {file.name} of training records; give a JSON list or JSON lines")
    with file.open("rb") as stream:
        start = stream.read(4096)
        stream.seek(0)
        if start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            yield from _scan_list(stream, file.name)
        else:
            yield from _scan_lines(stream)


def scan_member(file: Path, key: str) -> Iterator[Any]:
    """The items of the list in a file `{"key": […]}`. Raises as `scan`."""
    if not file.is_file():
        raise SourceMissing(f"no file {file.name}; the set is not complete, fetch it")
    with file.open("rb") as stream:
        start = re.match(rb'[\s\xef\xbb\xbf]*\{\s*"' + key.encode() + rb'"\s*:\s*(?=\[)', stream.read(4096))
        if start is None:
            raise InputError(
                f'{file.name} does not begin with a list {key!r}, {{"{key}": […]}}; give the published file'
            )
        stream.seek(start.end())
        for _, value in _scan_list(stream, file.name):
            yield value


def _scan_lines(stream: BinaryIO) -> Iterator[tuple[Place, Any]]:
    offset = 0
    for line in stream:
        if line.strip():
            yield Place(offset, len(line)), _parsed(line)
        offset += len(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Unfit("line is no JSON")


def _scan_list(stream: BinaryIO, name: str) -> Iterator[tuple[Place, Any]]:
    text = _Text(stream)
    try:
        yield from text.list_items()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is no JSON list: what stands at byte {text.offset:,} can't be read ({error}); "
            "write the file again, or one record per line"
        ) from error


class _Text:
    """A window of decoded text that slides over a file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._json = json.JSONDecoder()
        self._text, self._at, self._ended = "", 0, False
        self.offset = 0
        """Bytes from the start of the file to where the window's reader stands."""

    def list_items(self) -> Iterator[tuple[Place, Any]]:
        """The items of the one list that the file is. Raises ValueError where it breaks off."""
        self._skip_blanks()
        self._take(1)  # the bracket that the caller has seen
        following = self._skip_blanks()
        while following != "]":
            yield self._item()
            following = self._skip_blanks()
            if following == ",":
                self._take(1)
                self._skip_blanks()
            elif following != "]":
                raise ValueError("no comma or bracket follows the record before it")

    def _skip_blanks(self) -> str:
        """Go to the next character that is not blank -> it, empty at the end of the file."""
        while True:
            while self._at == len(self._text) and not self._ended:
                self._more()
            here = self._text[self._at : self._at + 1]
            if not here or here not in _BLANK:
                return here
            self._take(1)

    def _take(self, n: int) -> None:
        self.offset += len(self._text[self._at : self._at + n].encode())
        self._at += n

    def _item(self) -> tuple[Place, Any]:
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # A number may go on in the next chunk: only what is followed by something is known to be whole.
                if end < len(self._text) or self._ended:
                    break
            except ValueError:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise
            self._more()
        start = self.offset
        self._take(end - self._at)
        return Place(start, self.offset - start), value

    def _more(self) -> None:
        """Read on; at least as much as is held, so that a long record is not parsed again and again."""
        read = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not read
        self._text, self._at = self._text[self._at :] + self._decode(read, final=self._ended), 0


class RecordFile:
    """Reads records by their places. Safe to use from several threads and after a fork."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._descriptor = os.open(file, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, place: Place) -> Any:
        """The record at a place that `scan` found. Raises SourceChanged when it is no longer there."""
        try:
            return json.loads(os.pread(self._descriptor, place.length, place.offset).decode("utf-8-sig"))
        except ValueError as error:
            raise SourceChanged(
                f"{self.file.name} is not the file it was at the start: no record at byte {place.offset}; "
                "start again with --resume"
            ) from error
