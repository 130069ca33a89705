"""From STAC to rasters: from disk to disk, from a server to servers."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rsqa.errors import SourceMissing, SourceRefused, UsageError
from rsqa.raster import stac
from rsqa.raster.stac import Dated, resolved

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
NOON = datetime(2024, 5, 6, 10, 0, tzinfo=UTC)


RANGE = {"start_datetime": "2024-05-06T10:00:00Z", "end_datetime": "2024-05-07T10:00:00Z"}


def rasters(argument: str, asset: str | None) -> list[Dated]:
    return list(resolved(argument, asset).rasters)


def described(href: str) -> dict[str, str]:
    return {"href": href, "type": COG if href.endswith("tif") else "image/jpeg"}


def item(
    folder: Path, name: str = "item.json", datetime: str | None = "2024-05-06T12:00:00+02:00", **assets: str
) -> str:
    (folder / name).write_text(json.dumps({
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
        "properties": {"datetime": datetime} | RANGE, "assets": {key: described(href) for key, href in assets.items()},
    }))  # fmt: skip
    return str(folder / name)


def collection(folder: Path, *items: str) -> str:
    (folder / "collection.json").write_text(json.dumps({
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "d", "license": "other",
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": href} for href in items],
    }))  # fmt: skip
    return str(folder / "collection.json")


@pytest.fixture
def server(tmp_path):
    """A server of tmp_path -> its address; what is called busy is so twice."""
    busy = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if "busy" in self.path and len(busy) < 2:
                busy.append(self.path)
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_item_names_its_only_tiff_or_the_asset_asked_for(tmp_path):
    path = item(tmp_path, visual="sub/TCI.tif", thumbnail="look.jpg")
    assert rasters(path, None) == rasters(path, "visual") == [Dated(str(tmp_path / "sub/TCI.tif"), NOON)]
    assert rasters(path, "thumbnail")[0].argument == str(tmp_path / "look.jpg")
    two = item(tmp_path, "two.json", red="B04.tif", green="B03.tif")
    with pytest.raises(UsageError, match=r"has 2 TIFFs; choose with --asset: red, green"):
        rasters(two, None)
    with pytest.raises(SourceMissing, match=r"'two.json' has no asset 'blue'; choose with --asset: red, green"):
        rasters(two, "blue")


def test_a_range_of_time_is_its_begin(tmp_path):
    assert rasters(item(tmp_path, datetime=None, a="a.tif"), None)[0].acquired == NOON


def test_a_collection_names_its_items(tmp_path):
    (tmp_path / "sub").mkdir()
    item(tmp_path, "a.json", a="a.tif")
    item(tmp_path / "sub", "b.json", a="../b.tif")
    found = rasters(collection(tmp_path, "a.json", "./sub/b.json"), None)
    assert found == [Dated(str(tmp_path / name), NOON) for name in ("a.tif", "b.tif")]
    with pytest.raises(SourceRefused, match="no STAC items"):
        rasters(collection(tmp_path), None)


def test_an_address_names_addresses(tmp_path, server, monkeypatch):
    monkeypatch.setattr(stac, "PAUSES_S", (0.0, 0.0, 0.0))
    item(tmp_path, "busy.json", a="a.tif")
    item(tmp_path, "far.json", a="s3://bucket/a.tif")
    collection(tmp_path, "busy.json", "far.json")
    found = rasters(f"{server}/collection.json", None)
    assert [one.argument for one in found] == [f"{server}/a.tif", "s3://bucket/a.tif"]
    with pytest.raises(SourceMissing, match=r"none\.json' can't be fetched: HTTP Error 404"):
        rasters(f"{server}/none.json?key=secret", None)


@pytest.mark.parametrize("href", ["https://example.org/a.tif", "http://example.org/a.tif", "s3://b/a.tif"])
def test_what_lies_on_disk_names_addresses_as_the_user_would(tmp_path, href):
    assert rasters(item(tmp_path, a=href), "a") == [Dated(href, NOON)]


@pytest.mark.parametrize("href", ["/vsicurl/http://example.org/a.tif", "file:///etc/passwd", "gs://bucket/a.tif"])
def test_what_lies_on_disk_names_nothing_by_other_means(tmp_path, href):
    with pytest.raises(SourceRefused, match=r"'item.json' names the asset 'a' at .*command line"):
        rasters(item(tmp_path, a=href), "a")


def test_a_list_of_items_is_read_from_disk(tmp_path):
    found = [json.loads(Path(item(tmp_path, f"{name}.json", visual=f"{name}.tif")).read_text()) for name in "ab"]
    (tmp_path / "found.json").write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    assert rasters(str(tmp_path / "found.json"), None) == [Dated(str(tmp_path / f"{n}.tif"), NOON) for n in "ab"]


@pytest.mark.parametrize("href", ["file:///etc/passwd", "/vsizip//etc/a.zip", "gs://bucket/a.tif"])
def test_what_lies_on_a_server_names_nothing_on_disk(tmp_path, server, href):
    item(tmp_path, a=href)
    try:
        [found] = rasters(f"{server}/item.json", "a")
    except SourceRefused:
        return
    assert found.argument.startswith(f"{server}/")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"type": "Catalog"}', '{"type": "Feature"}', '{"type": "Collection", "links": 1}', "\xff"],
)
def test_what_is_no_stac_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(SourceRefused, match=r"a\.json") as caught:
        rasters(str(tmp_path / "a.json"), None)
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceMissing, match="there is no file"):
        rasters(str(tmp_path / "none.json"), None)


def test_a_server_that_is_not_there_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(stac, "PAUSES_S", (0.0,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(SourceMissing, match=r"item\.json' can't be fetched") as caught:
        rasters(f"http://user:word@127.0.0.1:{port}/item.json?key=secret", None)
    assert time.monotonic() - started < 20
    assert "word" not in str(caught.value)
    assert "secret" not in str(caught.value)
