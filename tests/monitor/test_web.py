"""Who hears of a pass over the network, by a server of our own that can be out of sorts."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from made_dataset import write_answers
from painted_scenes import watch_text, when

from rsqa.errors import ExitCode, UsageError
from rsqa.monitor import web
from rsqa.monitor.check import check_watch
from rsqa.monitor.run import run_pass
from rsqa.monitor.watch import read_watch

SECRET = "k3y-nobody-may-read"


class Server(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard, self.answers = [], []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, content))
        code = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(web, "PAUSES_S", (0.0, 0.0))
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("PORT_WEBHOOK", made.address)
        monkeypatch.setenv("PORT_PING", made.address)
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def watch(tmp_path):
    """A monitor that has seen a tile change, and told nobody yet."""
    (tmp_path / "incoming").mkdir()
    for night, shares in enumerate([[[0.1, 0.9]], [[0.9, 0.9]]]):
        write_answers(tmp_path / "port.monitor", when(night), shares, name=f"{night}.tif", fingerprint=f"{night:064x}")

    def make(tell):
        (tmp_path / "WATCH.toml").write_text(watch_text(change="confirmations = 1", tell=tell))
        return read_watch(tmp_path / "WATCH.toml")

    run_pass(make(""), lambda event: None)  # the rule is new to it, so it is silent
    file = tmp_path / "port.monitor/told.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ids": []}))
    return make


def told(watch):
    said = []
    return run_pass(watch, said.append), [event.text for event in said]


def test_a_webhook_hears_what_changed(watch, server):
    server.answers = [503, 429, 200]
    report, _ = told(watch('webhook_env = "PORT_WEBHOOK"'))
    assert (report.exit_code, report.changes) == (ExitCode.DONE, 1)
    assert len(server.heard) == 3
    assert len({content for _, content in server.heard}) == 1  # so that it can be told apart from others
    path, content = server.heard[-1]
    assert path == f"/{SECRET}"
    about = json.loads(content)
    assert (about["monitor"], about["n_changes"]) == ("WATCH", 1)
    [change] = about["changes"]
    assert (change["tile_id"], change["value_after"], change["confirmed"]) == ("0/0", "yes", when(1).isoformat())
    assert about["text"].startswith("2026-01-02 10:30 tile 0/0 mark: no -> yes")
    assert told(watch('webhook_env = "PORT_WEBHOOK"'))[0].changes == 0
    assert len(server.heard) == 3


@pytest.mark.parametrize(
    ("answers", "n_heard", "why"), [([500, 500, 500], 3, "HTTP 500"), ([404], 1, "HTTP 404"), ([302], 1, "HTTP 302")]
)
def test_what_was_not_heard_is_told_again(watch, server, answers, n_heard, why):
    server.answers = answers
    report, said = told(watch('webhook_env = "PORT_WEBHOOK"'))
    assert (report.exit_code, len(server.heard)) == (ExitCode.UNEXPECTED, n_heard)
    assert said[-1] == (
        f"the webhook of PORT_WEBHOOK was not reached: {why}; 1 changes are told again by the next pass"
    )
    report, _ = told(watch('webhook_env = "PORT_WEBHOOK"'))
    assert (report.exit_code, report.changes) == (ExitCode.DONE, 1)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/" + SECRET, "http://127.0.0.1:1/\n" + SECRET, "http://[/" + SECRET]
)
def test_no_secret_is_said(watch, server, monkeypatch, url, tmp_path):
    monkeypatch.setenv("PORT_WEBHOOK", url)
    monkeypatch.setenv("PORT_PING", url)
    report, said = told(watch('webhook_env = "PORT_WEBHOOK"\nping_env = "PORT_PING"'))
    assert report.exit_code == ExitCode.UNEXPECTED  # of the webhook
    assert len(said) >= 3
    assert SECRET not in "".join(said)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [content for content in written if SECRET.encode() in content]


def test_pings_tell_how_it_went(watch, server, tmp_path):
    tell = 'ping_env = "PORT_PING"'
    assert told(watch(tell))[0].exit_code == ExitCode.DONE
    assert [path for path, _ in server.heard] == [f"/{SECRET}/start", f"/{SECRET}/0"]
    (tmp_path / "incoming/bad.tif").write_bytes(b"II*\0 no tiff")
    assert told(watch(tell))[0].exit_code == ExitCode.TILES_FAILED
    assert server.heard[-1][0] == f"/{SECRET}/3"


@pytest.mark.parametrize("url", ["", "ftp://x", "http://127.0.0.1:1/x"])
def test_no_ping_fails_a_pass(watch, server, monkeypatch, url):
    monkeypatch.setenv("PORT_PING", url)
    report, said = told(watch('ping_env = "PORT_PING"'))
    assert report.exit_code == ExitCode.DONE
    assert [text for text in said if "PORT_PING" in text]


def test_a_webhook_that_is_nowhere_is_told_before_any_work(watch, monkeypatch):
    monkeypatch.delenv("PORT_WEBHOOK", raising=False)
    monkeypatch.delenv("PORT_PING", raising=False)
    with pytest.raises(UsageError, match="PORT_WEBHOOK, which is not set"):
        told(watch('webhook_env = "PORT_WEBHOOK"'))
    with pytest.raises(UsageError, match="PORT_WEBHOOK, which is not set"):
        check_watch(watch('webhook_env = "PORT_WEBHOOK"'))
    assert any("PORT_PING, which is not set" in text for text in check_watch(watch('ping_env = "PORT_PING"')).warnings)
