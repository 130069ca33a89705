"""Files in an object store: named below one URL, each written by one request, so whole or not there at all.

A request that fails for a reason that may pass is made again, a few times; what fails for good is one line for the
user. Credentials are what the store's own library finds (environment, profile, machine); nothing here sees them.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rsqa.errors import OutputError, UsageError

T = TypeVar("T")
R = TypeVar("R")

PAUSES_S = (1.0, 4.0)
"""Between the tries of a request."""
AT_ONCE = 16
"""Requests in flight: a small one waits 20 to 100 ms for its answer, whatever it carries."""
_S3: Mapping[str, Any] = {
    # The tries are counted here. Large files go in pieces of 50 MB, which a slow line has two minutes for.
    "max_concurrency": 1,  # within a file: more than one would ask for its size before each reading
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 120, "retries": {"total_max_attempts": 1}},
}
STORES: Mapping[str, tuple[str, Mapping[str, Any]]] = {"s3": ("s3fs", _S3), "s3a": ("s3fs", _S3), "memory": ("", {})}
"""Scheme -> package that speaks it, and how. `memory` is one process's own, for tests."""


def is_url(out: str) -> bool:
    """Whether an output is named by its address, not by a folder."""
    return "://" in out


class ObjectStore:
    """Names are relative, with `/` between their parts; any thread may ask."""

    def __init__(self, url: str) -> None:
        """Asks nobody yet. UsageError for an address that no output can have."""
        scheme, place = urlsplit(url).scheme, urlsplit(url).netloc
        if "@" in place:
            raise UsageError("--out with a password in its address asked; give it by the environment or a profile")
        if scheme not in STORES:
            raise UsageError(f"--out {url!r} asked; name a folder, or s3://BUCKET/PREFIX")
        package, options = STORES[scheme]
        if package and find_spec(package) is None:
            raise UsageError(f"--out {url!r} asked, {package} is not installed; pip install 'rsqa[s3]'")
        if not place or not urlsplit(url).path.strip("/") or "?" in url or "#" in url:
            raise UsageError(f"--out {url!r} asked; name a bucket and a prefix in it: {scheme}://BUCKET/PREFIX")
        import fsspec

        self.url = url.rstrip("/")
        self._faults = _faults(package)
        self._files = fsspec.filesystem(scheme, use_listings_cache=False, **options)
        self._root = self._files._strip_protocol(self.url)

    def get(self, name: str) -> bytes | None:
        """The file's bytes; None where there is none."""
        try:
            content: bytes = self._ask("read", self._files.cat_file, self._path(name))
        except FileNotFoundError:
            return None
        return content

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write or replace a file."""
        with self._bucket():
            self._ask("write", self._files.pipe_file, self._path(name), bytes(content))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there; -> False when it is.

        Of several that try at once one wins, where the store knows `If-None-Match`.
        """
        if self.get(name) is not None:
            return False
        path = self._path(name)
        try:
            with self._bucket():
                self._ask("write", lambda: self._files.pipe_file(path, content, mode="create"))
        except OutputError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.ENOSYS:
                self.put(name, content)
                return True
            if self.get(name) is None:
                raise
            return False
        return True

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Write files of a folder under the same names."""

        def one(name: str) -> None:
            self._ask("write", self._files.put_file, str(folder / name), self._path(name))

        with self._bucket():
            self.each(one, names)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, whether they are there or not."""

        def one(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._ask("remove", self._files.rm_file, self._path(name))

        self.each(one, names)

    def names(self, under: str = "") -> list[str]:
        """Files below a name that ends in `/`, or all; a store may be late to list what was just written."""
        try:
            found = self._ask("list", self._files.find, self._path(under).rstrip("/"))
        except FileNotFoundError:
            return []
        return [path[len(self._root) + 1 :] for path in found if path.startswith(self._path(under))]

    def each(self, do: Callable[[T], R], things: Iterable[T]) -> list[R]:
        """The results for all things, several at a time. Raises what the first of them raises."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(do, thing) for thing in things]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _ask(self, verb: str, request: Callable[..., R], *arguments: Any) -> R:
        """What the request returns. FileNotFoundError when what is asked for is not there, else OutputError."""
        for pause_s in (*PAUSES_S, None):
            try:
                return request(*arguments)
            except FileNotFoundError:
                raise
            except self._faults as error:
                if pause_s is None or isinstance(error, PermissionError | FileExistsError) or _for_good(error):
                    raise self._failed(verb, error) from error
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _bucket(self) -> Iterator[None]:
        """Nothing but its bucket can be missing where a file is written."""
        try:
            yield
        except FileNotFoundError as error:
            raise OutputError(f"can't write {self.url!r}: there is no such bucket; make it, or name another") from error

    def _failed(self, verb: str, error: Exception) -> OutputError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, PermissionError) or _for_good(error):
            remedy = "check the credentials and what they allow (AWS_PROFILE, AWS_ACCESS_KEY_ID, …)"
        else:
            remedy = "what is committed is kept; run the same command again"
        return OutputError(f"can't {verb} {self.url!r}: {reason}; {remedy}")


def _faults(package: str) -> tuple[type[Exception], ...]:
    """What a request raises when it fails."""
    if not package:
        return (OSError,)
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    return OSError, ClientError, BotoCoreError


def _for_good(error: Exception) -> bool:
    """Whether it is about credentials, which a second try has no more of: botocore has a class for each way."""
    return "Credential" in type(error).__name__ or "Profile" in type(error).__name__
