"""Rasters on a server: read as if they were here, and given up in time where there is none."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from range_requests import answer_range
from truth_rasters import places, read_all

from rsqa.errors import SourceRefused
from rsqa.raster.describe import open_source
from rsqa.raster.folders import expand


class Ranges(BaseHTTPRequestHandler):
    """Serves parts of files below `folder`; the first `busy` answers are 503."""

    folder: Path
    busy = 0

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.folder / self.path.split("?")[0].lstrip("/")
        if type(self).busy:
            type(self).busy -= 1
            self.send_error(503)
        elif not path.is_file():
            self.send_error(404)
        else:
            answer_range(self, path.read_bytes(), with_body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    class Handler(Ranges):
        folder = tmp_path

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", Handler
        running.shutdown()


def test_a_raster_on_a_server_is_read_as_one_here(write, server):
    address, handler = server
    path = write(places(500, 600), driver="COG", blocksize=256, compress="deflate", overviews="none")
    [(remote, name)] = expand([f"{address}/{Path(path).name}?key=secret"])
    assert name.endswith("a.tif")
    handler.busy = 2
    source = open_source(remote, name=name)
    found, _ = read_all(source, 200)
    for tile, (pixels, _, valid_frac, error) in read_all(open_source(path, name="a.tif"), 200)[0].items():
        np.testing.assert_array_equal(found[tile][0], pixels)
        assert found[tile][2:] == (valid_frac, error)


def test_what_a_server_has_not_is_said_without_its_secrets(server):
    [(remote, name)] = expand([f"{server[0]}/none.tif?key=secret"])
    with pytest.raises(SourceRefused, match="none") as caught:
        open_source(remote, name=name)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_given_up_in_time():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [(remote, name)] = expand([f"https://127.0.0.1:{port}/a.tif?key=secret"])
    started = time.monotonic()
    with pytest.raises(SourceRefused) as caught:
        open_source(remote, name=name)
    assert time.monotonic() - started < 60
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_addresses_are_paths_of_gdal():
    typed = ["https://host/x/a.tif", "http://host/b.tif", "s3://bucket/c.tif", "/vsicurl/https://host/d.tif"]
    paths = [path for path, _ in expand(typed)]
    assert paths[:3] == ["/vsicurl/https://host/x/a.tif", "/vsicurl/http://host/b.tif", "/vsis3/bucket/c.tif"]
    assert paths[3] == typed[3]
