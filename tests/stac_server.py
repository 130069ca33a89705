"""A server on this machine that answers item searches of the STAC API page by page, and serves the files they name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from range_requests import answer_range

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@dataclass
class Api:
    """What a server has and what it was asked."""

    folder: Path
    """Whose files it serves."""
    items: list[dict[str, Any]] = field(default_factory=list)
    page: int = 2
    """Items of an answer."""
    busy: int = 0
    """Answers of 503 to come."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """Query of each search, one a page."""
    address: str = ""

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        self.asked.append(query)
        begin = int(query.get("token", 0))
        end = begin + self.page
        following = {"rel": "next", "method": "GET", "href": f"{self.address}/v1/search?collections=c&token={end}"}
        links = [following] if end < len(self.items) else []
        return {"type": "FeatureCollection", "features": self.items[begin:end], "links": links}


def item(name: str, assets: dict[str, str], bbox: tuple[float, ...] | None = None, **properties: str) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [], "collection": "c",
        "geometry": None, **({} if bbox is None else {"bbox": bbox, "geometry": _rectangle(bbox)}),
        "properties": {"datetime": "2024-05-06T10:00:00Z"} | properties,
        "assets": {key: {"href": href, "type": COG} for key, href in assets.items()},
    }  # fmt: skip


def _rectangle(bbox: tuple[float, ...]) -> dict[str, Any]:
    west, south, east, north = bbox
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return {"type": "Polygon", "coordinates": [corners]}


@contextmanager
def serving(folder: Path) -> Iterator[Api]:
    api = Api(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.reply(with_body=False)

        def do_GET(self):
            self.reply(with_body=True)

        def reply(self, with_body: bool) -> None:
            parts = urlsplit(self.path)
            if api.busy:
                api.busy -= 1
                self.send_error(503)
            elif parts.path == "/v1/search":
                query = {name: value for name, [value] in parse_qs(parts.query).items()}
                answer_range(self, json.dumps(api.answer(query)).encode(), with_body)
            elif (path := api.folder / parts.path.lstrip("/")).is_file():
                answer_range(self, path.read_bytes(), with_body)
            else:
                self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        api.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield api
        running.shutdown()
