"""An object store of this process, by moto, whose requests can be made to fail."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "answers"


@dataclass
class ObjectServer:
    """`fault` sees (method, name) of each request; what it returns is done instead of, or to, the request."""

    address: str = ""
    fault: Callable[[str, str], str | None] | None = None
    """-> None, "gone" (503), "denied" (403), "cut" (only half of what is written is kept), "late" (lists no part)."""
    seen: list[tuple[str, str]] = field(default_factory=list)

    def named(self, method: str) -> list[str]:
        """Names of requests of that method, in their order."""
        return [name for seen, name in self.seen if seen == method]


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    store = DomainDispatcherApplication(create_backend_app)
    told = ObjectServer()

    def answer(environ, start):
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}/")
        if "list-type" in environ["QUERY_STRING"]:
            method = "LIST"
        told.seen.append((method, name))
        fault = told.fault(method, name) if told.fault else None
        n_bytes = int(environ.get("CONTENT_LENGTH") or 0)
        if fault in ("gone", "denied"):
            code, word = (503, "ServiceUnavailable") if fault == "gone" else (403, "AccessDenied")
            environ["wsgi.input"].read(n_bytes)
            start(f"{code} {word}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{word}</Code><Message>{word}</Message></Error>".encode()]
        if fault == "cut":
            content = environ["wsgi.input"].read(n_bytes)[: n_bytes // 2]
            environ.update({"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))})
            for key in [key for key in environ if "CHECKSUM" in key or "CONTENT_MD5" in key or "DECODED" in key]:
                del environ[key]
        if fault == "late":
            answered = store(
                environ, lambda status, headers, _=None: start(status, [("Content-Type", "application/xml")])
            )
            return [
                re.sub(rb"<Contents>(?:(?!</Contents>).)*?/parts/.*?</Contents>", b"", b"".join(answered), flags=re.S)
            ]
        return store(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    told.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
