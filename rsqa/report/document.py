"""One HTML file that needs nothing else: no network, no other file. All of its text is data, never markup or code.

Numbers are packed: arrays one behind another, gzipped, base64. Words are JSON, in which no `<` is left, and reach the
page as text nodes. A Content-Security-Policy lets nothing run but the page's own script, known by its hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCRIPTS = ("data.js", "map.js", "panel.js", "main.js")
"""In this order one script."""
_TYPES = {"|u1": "Uint8Array", "<u2": "Uint16Array", "<u4": "Uint32Array", "<f4": "Float32Array"}
_ALIGN = 4


@dataclass(slots=True)
class Packed:
    """Arrays one behind another."""

    content: bytearray = field(default_factory=bytearray)

    def add(self, array: NDArray[Any]) -> dict[str, Any]:
        """-> how the script finds the array: its type, where it begins (bytes) and how many numbers it has."""
        self.content.extend(b"\0" * (-len(self.content) % _ALIGN))
        flat = np.ascontiguousarray(array).ravel()
        flat = flat.astype(flat.dtype.newbyteorder("<"))
        where = {"type": _TYPES[flat.dtype.str], "at": len(self.content), "n": flat.size}
        self.content.extend(flat.tobytes())
        return where

    def add_strings(self, strings: Sequence[str]) -> dict[str, Any]:
        """-> the same, of the bytes of a JSON list."""
        return self.add(np.frombuffer(json.dumps(strings).encode(), np.uint8))


def write_page(title: str, facts: Mapping[str, Any], packed: Packed, pictures: Mapping[str, bytes]) -> bytes:
    """-> the page. facts: what the script knows by name; pictures: id of each -> WEBP."""
    style = _page_file("page.css")
    script = "\n".join(_page_file(name) for name in SCRIPTS)
    shown = [
        f'<script type="text/plain" id="{html.escape(name)}">{_base64(content)}</script>'
        for name, content in pictures.items()
    ]
    blanks = {
        "POLICY": (
            f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "TITLE": html.escape(title),
        "STYLE": style,
        "FACTS": in_script(facts),
        "ARRAYS": _base64(gzip.compress(bytes(packed.content), 6, mtime=0)),
        "PICTURES": "\n".join(shown),
        "SCRIPT": script,
    }
    page = _page_file("page.html")
    pieces = page.split("@@")  # text, name of a blank, text, … : what is filled in is not looked at again
    return "".join(blanks[piece] if i % 2 else piece for i, piece in enumerate(pieces)).encode()


def in_script(value: Any) -> str:
    """JSON that can stand between <script> and </script> whatever it says."""
    text = json.dumps(value, allow_nan=False)  # ASCII, so no separator that a script could trip over
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page_file(name: str) -> str:
    return files("rsqa.report").joinpath("page", name).read_text(encoding="utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _digest(text: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(text.encode()).digest())
