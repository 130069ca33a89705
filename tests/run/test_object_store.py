"""The same promises where the output is in an object store."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import replace

import pytest

from rsqa.errors import ExitCode, OutputError, OutputLocked, UsageError
from rsqa.run import folder, lease, stored
from rsqa.run.pipeline import ask, finish
from rsqa.run.place import place_at
from rsqa.run.request import Request
from rsqa.sinks import objects
from rsqa.sinks.objects import ObjectStore
from rsqa.tasks.question import Question

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

from object_server import BUCKET, object_server  # noqa: E402

VOLATILE = ("run.json", "performance.parquet", ".rsqa.lock")
WATER = Question("water", "Is there water?", "yesno", ("yes", "no"))
SCENE = Question("scene", "Describe the scene.", "open")
KEYS = {"AWS_ACCESS_KEY_ID": "canary-id", "AWS_SECRET_ACCESS_KEY": "canary-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server():
    """One for all tests: s3fs keeps its connections."""
    with pytest.MonkeyPatch.context() as patch, object_server() as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": server.address, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def store(server, request, monkeypatch):
    """An empty prefix, of a server without faults; pauses are short."""
    monkeypatch.setattr(objects, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(lease, "SETTLE_S", 0.01)
    monkeypatch.setattr(stored, "LOOK_S", 0.01)
    server.fault = None
    server.seen.clear()
    yield ObjectStore(f"s3://{BUCKET}/{abs(hash(request.node.name))}/run")
    server.fault = None


def request(raster, out, **options):
    return Request(
        sources=(str(raster),), questions=(WATER, SCENE), out=out, tile_px=56, part_tiles=12, batch_size=4,
        device="cpu", model="rsqa.testing:EchoEngine", **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def local(raster, tmp_path_factory):
    """Name -> hash of what the same run writes to a folder."""
    out = tmp_path_factory.mktemp("local") / "out"
    assert ask(request(raster, out)).exit_code == ExitCode.DONE
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.name not in VOLATILE
    }


def files(store):
    """What is promised to be the same -> its hash, as another client sees it."""
    names = [name for name in store.names() if name not in VOLATILE]
    return {name: hashlib.sha256(store.get(name)).hexdigest() for name in names}


def parts_of(server, store):
    return [name.rpartition("/")[2] for name in server.named("PUT") if "/parts/" in name]


def test_the_same_bytes_as_in_a_folder_each_part_by_one_request(raster, server, store, local):
    report = ask(request(raster, store.url))
    assert report.exit_code == ExitCode.DONE
    assert report.to_json()["out"] == store.url
    assert files(store) == local
    assert store.get("run.json") is not None
    assert store.get(lease.LOCK) is None
    assert len(parts_of(server, store)) == len(set(parts_of(server, store))) == report.n_parts >= 6


def test_nothing_new_writes_nothing(raster, server, store):
    ask(request(raster, store.url))
    before = {name: store.get(name) for name in store.names()}
    server.seen.clear()
    again = ask(request(raster, store.url))
    assert (again.exit_code, again.engine_calls, again.parts_resumed) == (ExitCode.DONE, 0, again.n_parts)
    assert {name.rpartition("/")[2] for name in server.named("PUT")} == {lease.LOCK}
    assert {name: store.get(name) for name in store.names()} == before


def test_finish_tells_that_all_is_whole_last_and_leaves_no_old_chunk(raster, server, store, local):
    ask(request(raster, store.url))
    performance = store.get("performance.parquet")
    store.put("tiles.zarr/of/an/older/run", b"0")
    store.put("notes.txt", b"not ours")
    server.seen.clear()
    assert finish(store.url).exit_code == ExitCode.DONE
    changes = [(method, name.partition("/run/")[2]) for method, name in server.seen if method in ("PUT", "DELETE")]
    changes = [change for change in changes if change[1] != lease.LOCK]
    assert {*changes[:2]} == {("DELETE", "item.json"), ("DELETE", "run.json")}
    assert changes[-2:] == [("PUT", "item.json"), ("PUT", "run.json")]
    assert files(store) == {**local, "notes.txt": hashlib.sha256(b"not ours").hexdigest()}
    assert store.get("performance.parquet") == performance


def test_another_plan_is_refused_and_overwrite_removes_what_is_ours(raster, store, local):
    ask(request(raster, store.url, min_valid=0.9))
    store.put("notes.txt", b"not ours")
    with pytest.raises(UsageError, match=r"min_valid: 0\.9 there, 0\.5 asked"):
        ask(request(raster, store.url))
    assert ask(request(raster, store.url, overwrite=True)).exit_code == ExitCode.DONE
    assert files(store).keys() - local.keys() == {"notes.txt"}
    assert files(store).items() >= local.items()


def test_a_part_that_is_gone_or_damaged_is_done_again(raster, server, store, local):
    ask(request(raster, store.url))
    whole = store.get("parts/00000001.parquet")
    store.put("parts/00000001.parquet", whole[:200] + b"\0" + whole[201:])  # its footer tells nothing
    store.delete(["parts/00000003.parquet"])
    server.seen.clear()
    report = ask(request(raster, store.url))
    assert report.parts_resumed == report.n_parts - 2
    assert sorted(parts_of(server, store)) == ["00000001.parquet", "00000003.parquet"]
    assert files(store) == local


def test_errors_are_tried_again_in_place_of_the_old_part(raster, store):
    ask(request(raster, store.url))
    again = ask(request(raster, store.url, retry_errors=True))
    assert again.engine_calls == 0  # there are none


def test_a_request_that_fails_is_made_again(raster, server, store, local):
    failed = set()

    def twice(method, name):
        tries = [(method, name, n) for n in range(2)]
        left = [one for one in tries if one not in failed]
        failed.update(left[:1])
        return "gone" if left and method in ("PUT", "GET") else None

    server.fault = twice
    assert ask(request(raster, store.url)).exit_code == ExitCode.DONE
    server.fault = None
    assert len(failed) > 12
    assert files(store) == local


@pytest.mark.parametrize("moment", ["parts/00000002", "answers.parquet", "item.json", "run.json", "plan.json"])
def test_a_write_that_fails_for_good_is_one_line_and_the_next_run_mends_it(raster, server, store, local, moment):
    server.fault = lambda method, name: "gone" if method == "PUT" and moment in name else None
    with pytest.raises(OutputError, match=r"can't write 's3://.*; what is committed is kept") as told:
        ask(request(raster, store.url))
    assert "\n" not in str(told.value)
    assert store.get("run.json") is None
    server.fault = None
    assert ask(request(raster, store.url)).exit_code == ExitCode.DONE
    assert files(store) == local


def test_a_write_that_was_acknowledged_and_is_cut_is_found_and_done_again(raster, server, store, local, monkeypatch):
    monkeypatch.setattr(folder, "SEEN_S", 0.1)
    server.fault = lambda method, name: "cut" if method == "PUT" and "parts/00000002" in name else None
    with pytest.raises(OutputError, match=r"parts/00000002\.parquet is damaged or missing"):
        ask(request(raster, store.url))
    assert store.get("run.json") is None
    server.fault = None
    again = ask(request(raster, store.url))
    assert again.parts_resumed == again.n_parts - 1
    assert files(store) == local


def test_a_store_that_lists_late_costs_work_and_no_answer(raster, server, store, local):
    server.fault = lambda method, name: "late" if method == "LIST" else None
    assert ask(request(raster, store.url)).exit_code == ExitCode.DONE
    assert ask(request(raster, store.url)).parts_resumed == 0  # none was seen
    server.fault = None
    assert files(store) == local


@pytest.mark.parametrize(
    ("fault", "url", "match"),
    [
        ("denied", f"s3://{BUCKET}/x", "(denied|Denied).*check the credentials"),
        (None, "s3://there-is-no-such-bucket/x", "no such bucket"),
    ],
)
def test_a_store_that_does_not_let_us_in_is_one_line(raster, server, store, fault, url, match):
    server.fault = lambda method, name: fault
    with pytest.raises(OutputError, match=match) as told:
        ask(request(raster, url))
    assert "\n" not in str(told.value)
    assert "canary" not in str(told.value)
    assert not [name for name in server.named("PUT") if not name.endswith(lease.LOCK)]


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ftp://host/x", "name a folder, or s3://BUCKET/PREFIX"),
        ("s3://bucket", "a prefix in it"),
        ("s3://bucket/x?versionId=1", "a prefix in it"),
        ("s3://key:canary@bucket/x", "password in its address"),
    ],
)
def test_addresses_that_no_output_has(url, match):
    with pytest.raises(UsageError, match=match) as told:
        place_at(url)
    assert "canary" not in str(told.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"s3fs is not installed; pip install 'rsqa\[s3\]'"):
        place_at("s3://bucket/x")


def test_finish_of_a_mistyped_address_writes_nothing(store):
    with pytest.raises(OutputError, match=rf"{store.url}' holds no plan\.json"):
        finish(store.url)
    assert store.names() == []


def test_finish_says_how_many_parts_are_missing(raster, store):
    n_parts = ask(request(raster, store.url)).n_parts
    store.delete(["parts/00000000.parquet"])
    with pytest.raises(UsageError, match=f"{n_parts - 1} of {n_parts} parts of '{store.url}'"):
        finish(store.url)


# The lock


@pytest.fixture
def theirs():
    """A holder on another machine that has just renewed its lock."""
    return lease.Holder("elsewhere", 7, "p", "r", "2026-01-01T00:00:00+00:00", time.time())


def held_by(store, holder):
    store.put(lease.LOCK, lease._packed(holder))


def test_of_two_runs_the_second_is_told_who_writes_and_how_to_go_on(raster, store):
    with (
        lease.leased(store),
        pytest.raises(OutputLocked, match=f"process {os.getpid()} on .*; if it is no more") as told,
    ):
        ask(request(raster, store.url))
    assert f"{store.url}/{lease.LOCK}" in str(told.value)
    assert store.names() == []


def test_only_one_of_many_gets_the_lock(store):
    def attempt(number):
        return store.create(lease.LOCK, str(number).encode())

    assert sum(store.each(attempt, range(12))) == 1


def test_a_holder_elsewhere_is_waited_for_until_it_is_silent(store, theirs):
    held_by(store, theirs)
    with pytest.raises(OutputLocked, match="process 7 on elsewhere"), lease.leased(store):
        pass
    held_by(store, replace(theirs, renewed=time.time() - lease.SILENT_S - 1))
    with lease.leased(store):
        pass
    assert store.get(lease.LOCK) is None


def test_a_dead_process_of_this_machine_holds_nothing(store, theirs, monkeypatch):
    here = replace(theirs, host=lease.socket.gethostname(), pid=os.getpid())  # of an earlier container
    held_by(store, here)
    with lease.leased(store):
        pass
    monkeypatch.setattr(lease, "lives", lambda pid: True)
    held_by(store, replace(here, pid=os.getpid() + 1))
    with pytest.raises(OutputLocked), lease.leased(store):
        pass


def test_the_lock_is_renewed_while_it_is_held(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    with lease.leased(store):
        first = json.loads(store.get(lease.LOCK))["renewed"]
        deadline = time.monotonic() + 20
        while json.loads(store.get(lease.LOCK))["renewed"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(store.get(lease.LOCK))["renewed"] > first


def test_who_lost_the_lock_publishes_nothing(raster, server, store, theirs, monkeypatch):
    derive = stored.StoredPlace.gather

    def slept(self, numbers, n_parts):
        derive(self, numbers, n_parts)
        held_by(store, theirs)

    monkeypatch.setattr(stored.StoredPlace, "gather", slept)
    with pytest.raises(OutputLocked, match="process 7 on elsewhere"):
        ask(request(raster, store.url))
    assert store.get("answers.parquet") is None
    assert json.loads(store.get(lease.LOCK))["run"] == theirs.run  # and theirs stays


# Processes


@pytest.fixture
def stored_asking(asking, store):
    return replace(asking, out=store.url)


def test_worker_processes_write_their_parts_themselves(stored_asking, uninterrupted, server, store):
    done = stored_asking.run("--workers", "2")
    assert done.returncode == 0, done.stderr
    assert files(store) == uninterrupted.files()
    assert not done.stderr


def test_a_killed_driver_is_followed_by_the_same_command(stored_asking, uninterrupted, server, store):
    running = stored_asking.start(delay_s=0.3)
    deadline = time.monotonic() + 100
    while len(parts_of(server, store)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert store.get(lease.LOCK) is not None
    committed = len(store.names("parts/"))
    assert 0 < committed < uninterrupted.committed()
    server.seen.clear()
    done = stored_asking.run("--verbose", "--log-file", str(stored_asking.log) + ".txt")
    assert done.returncode == 0, done.stderr
    assert len(parts_of(server, store)) == uninterrupted.committed() - committed
    assert files(store) == uninterrupted.files()
    said = done.stderr + done.stdout + (stored_asking.log.parent / (stored_asking.log.name + ".txt")).read_text()
    assert "canary" not in said


def test_without_credentials_it_is_one_line_and_exit_5(stored_asking, server, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    done = stored_asking.run()
    assert done.returncode == 5
    assert len(done.stderr.strip().splitlines()) == 1
    assert "credentials" in done.stderr


def test_a_network_that_is_gone_is_one_line_and_exit_5(stored_asking, server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    done = stored_asking.run()
    assert done.returncode == 5
    assert len(done.stderr.strip().splitlines()) == 1
    assert "run the same command again" in done.stderr
    assert time.monotonic() - began < 100
