"""Servers of tests answer as those of rasters do: with the part of a file that is asked for."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler


def answer_range(handler: BaseHTTPRequestHandler, content: bytes, with_body: bool) -> None:
    asked = re.match(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
    first, last = (int(asked[1]), min(int(asked[2]), len(content) - 1)) if asked else (0, len(content) - 1)
    handler.send_response(206 if asked else 200)
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(last + 1 - first))
    if asked:
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
    handler.end_headers()
    if with_body:
        handler.wfile.write(content[first : last + 1])
