"""Input that means harm, through the commands that would take it: one line, its exit code, and nothing happens."""

from __future__ import annotations

import io
import re
import resource
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

import rsqa.cli
from rsqa.errors import ExitCode
from rsqa.monitor.tell import run_program
from rsqa.monitor.watch import read_watch

pytestmark = pytest.mark.timeout(120)
ENGINE = ("--model", "rsqa.testing:EchoEngine", "--device", "cpu", "--batch-size", "4", "--part-tiles", "64")
WATER = ("-q", "Is there water?")
POWERFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What moves a cursor, opens a link or turns text around; ends of lines are not."""


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """run(arguments) -> (exit code, stdout, stderr); both are safe on a terminal."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        code = rsqa.cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert not POWERFUL.search(out + err)
        return code, out, err

    return command


@pytest.fixture
def refused(run):
    """refused(arguments, code) -> the one line that says why."""

    def command(*arguments: object, code: ExitCode = ExitCode.INPUT) -> str:
        found, out, err = run(*arguments)
        assert found == code
        assert not out
        assert err.startswith("rsqa: error: ")
        assert err.count("\n") == 1
        return err

    return command


def write(path: Path, width: int = 120, height: int = 100, **options) -> Path:
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "width": width, "height": height}
    with rasterio.open(path, "w", **profile | {"transform": from_origin(5e5, 4.6e6, 1, 1)} | options) as file:
        if not options:
            file.write(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))
    return path


# ---- bombs: little is stored, much is declared


SPARSE = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "sparse_ok": True, "bigtiff": "yes"}


def test_a_million_by_million_pixels_that_are_not_there_cost_nothing(run):
    """It is within the limits: what is declared absent is neither held in memory nor seen by the model."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb = write(Path("bomb.tif"), 1_000_000, 1_000_000, **SPARSE)
    assert bomb.stat().st_size < 1 << 20
    code, _, err = run("ask", bomb, *WATER, *ENGINE, "--tile-px", "4096", "--max-duration", "1s")
    assert code == ExitCode.OUT_OF_TIME
    assert "60,025 tiles" in err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (512 << 10)


def test_more_than_that_is_refused(refused):
    bomb = write(Path("bomb.tif"), 1_000_001, 1_000_000, **SPARSE)
    assert "declares 1000001000000 pixels" in refused("ask", bomb, *WATER, *ENGINE)


def png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*c) for c in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b""))
    )


def jpeg(side: int) -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (64, 64)).save(memory, "JPEG")
    content = bytearray(memory.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def jp2(side: int) -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (64, 64)).save(memory, "JPEG2000")
    old, new = struct.pack(">II", 64, 64), struct.pack(">II", side, side)
    return memory.getvalue().replace(old, new)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", png(30_000), "blocks of 2574 MB, the limit is 256 MB"),
        ("a.png", png(2**31 - 1), "Invalid IHDR"),
        ("a.jpg", jpeg(60_000), "blocks of 10299 MB"),
        ("a.jp2", jp2(2**31 - 1), "a.jp2"),
    ],
)
def test_a_picture_that_would_fill_memory_is_refused(refused, name, content, said):
    Path(name).write_bytes(content)
    assert len(content) < 10_000
    assert said in refused("classify", name, "--labels", "water,town", *ENGINE)


# ---- names that mean something to GDAL


@pytest.mark.parametrize(
    "name",
    [
        "NETCDF:a.nc:v", "HDF5:/etc/passwd", "GTIFF_DIR:1:a.tif", "GPKG:/etc/passwd:x", "zip://a.zip", "zip+https://{}",
        "vrt:///etc/passwd", "WMS:http://{}/", "WCS:http://{}/", "ftp://{}/a.tif", "file:///etc/passwd",
        "MEM:::DATAPOINTER=1,PIXELS=2,LINES=2", "<VRTDataset/>", "<GDAL_WMS><ServerUrl>http://{}/</ServerUrl></GDAL_WMS>",
        "a.tif,b.tif", "PG:host=127.0.0.1 dbname=x", "-", "a\0b.tif",
    ],
)  # fmt: skip
def test_a_name_is_the_name_of_a_file(refused, unasked, name):
    assert "there is no file" in refused("ask", *WATER, *ENGINE, "--", name.format(unasked))


@pytest.mark.parametrize("name", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "/vsisubfile/0_99,/etc/passwd"])
def test_no_content_of_another_file_is_told(refused, name):
    with open("/etc/passwd", encoding="utf-8") as file:
        second = file.read().splitlines()[1]
    assert second not in refused("ask", name, *WATER, *ENGINE)


# ---- words that a terminal would obey

EVIL = "\x1b[2J\x1b]8;;http://x\x07y\x9b31m\u202e[link=x]z[/]"


@pytest.mark.parametrize(
    "arguments",
    [
        (EVIL,), ("ask", f"{EVIL}.tif", *WATER), ("ask", "a.tif", "-q", EVIL), ("ask", "a.tif", f"--{EVIL}"),
        ("ask", "a.tif", *WATER, "--dtype", EVIL), ("ask", "a.tif", *WATER, "--model", f"./{EVIL}"),
        ("ask", "a.tif", *WATER, "--model", f"{EVIL}:Engine"), ("ask", "a.tif", *WATER, "--question-file", EVIL),
        ("ask", "a.tif", *WATER, "--bands", EVIL), ("ask", "a.tif", *WATER, "--aoi", EVIL),
        ("classify", "a.tif", "--labels", f"{EVIL},b"), ("detect", "a.tif", "--object", EVIL),
        ("show", EVIL), ("finish", EVIL), ("report", EVIL), ("export", EVIL), ("train", EVIL), ("eval", EVIL),
        ("monitor", "run", EVIL), ("monitor", "check", EVIL),
    ],
)  # fmt: skip
def test_no_argument_reaches_the_terminal_as_it_is(run, arguments):
    write(Path("a.tif"))
    engine = ENGINE[:4] if arguments[0] in ("ask", "classify", "detect") and "--model" not in arguments else ()
    code, out, err = run(*arguments, *engine)
    assert code not in (ExitCode.DONE, ExitCode.UNEXPECTED)
    assert not out
    assert err.count("\n") == 1


def test_no_file_name_or_tag_reaches_the_terminal_as_it_is(run):
    name = f"{EVIL.replace('/', '_')}.tif"
    write(Path(name))
    with rasterio.open(name, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME=EVIL, AREA=EVIL)
        file.descriptions = (EVIL, "g", "b")
    assert run("plan", name, *WATER, *ENGINE)[0] == 0
    assert run("ask", name, *WATER, *ENGINE)[0] == 0
    [out] = Path().glob("*.rsqa")
    for command in ("show", "report", "export", "finish"):
        assert run(command, out, *(("csv",) if command == "export" else ()))[0] == 0


@pytest.mark.parametrize("command", ["ask", "classify"])
def test_a_file_of_words_with_escapes_is_refused_with_its_place(refused, command):
    write(Path("a.tif"))
    Path("words.txt").write_text(f"water\n{EVIL}\n")
    option = "--question-file" if command == "ask" else "--labels-file"
    line = refused(command, "a.tif", option, "words.txt", *ENGINE, code=ExitCode.USAGE)
    assert "words.txt line 2, byte 1: character U+001B" in line


# ---- links


def test_links_in_an_output_are_replaced_and_not_followed(run, refused, tmp_path):
    write(Path("a.tif"))
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("answers.parquet", "plan.json", "run.json", "tiles.zarr"):
        (out / name).symlink_to(precious)
    ask = ("ask", "a.tif", *WATER, *ENGINE, "--tile-px", "56", "--overwrite", "--out", out)
    assert run(*ask)[0] == 0
    assert precious.read_text() == "mine"
    assert not any(path.is_symlink() for path in out.iterdir())
    (tmp_path / "elsewhere").mkdir()
    part = tmp_path / "elsewhere" / "00000007.parquet"
    part.write_text("mine")
    (out / "parts").rename(out / "old")
    (out / "parts").symlink_to(part.parent)
    assert "is a link" in refused(*ask, code=ExitCode.OUTPUT)
    assert part.read_text() == "mine"


def test_a_link_to_itself_or_to_nowhere_is_no_output(refused, tmp_path):
    write(Path("a.tif"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / ".rsqa.lock").symlink_to(tmp_path / "a.tif")
    for name in ("loop", "nowhere", "held"):
        assert "choose another folder" in refused(
            "ask", "a.tif", *WATER, *ENGINE, "--out", tmp_path / name, code=ExitCode.OUTPUT
        )


# ---- programs and networks


def test_a_program_of_a_monitor_gets_its_arguments_as_they_are(tmp_path):
    said = tmp_path / "said"
    script = "import sys; open(sys.argv[1], 'w').write('|'.join(sys.argv[2:]))"
    evil = ["$(touch canary)", "; touch canary", "`touch canary`", "> canary", "*"]
    words = ", ".join(f"'{word}'" for word in (sys.executable, "-c", script.replace("'", '"'), str(said), *evil[:-1]))
    (tmp_path / "w.toml").write_text(
        f'out = "m"\n[scenes]\npaths = ["x"]\n[grid]\ncrs = "EPSG:32633"\norigin = [0.0, 0.0]\npixel = 1.0\n'
        f'[ask]\nquestions = ["Is there water?"]\n[tell]\non_change = [{words}, "*"]\n'
    )
    assert run_program(read_watch(tmp_path / "w.toml"), tmp_path / "changes", []) is None
    assert said.read_text() == "|".join([*evil, str(tmp_path / "changes")])
    assert not (tmp_path / "canary").exists()


def test_a_run_connects_to_nothing(run, monkeypatch):
    write(Path("a.tif"))
    asked = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connect_here(own: socket.socket, address: object) -> None:
        if own.type == socket.SOCK_STREAM and own.family != socket.AF_UNIX:  # Dask asks its own address so, unsent
            asked.append(address)
        connect(own, address)

    def resolve_here(host: object, *arguments: object, **options: object) -> object:
        if host not in (None, "", "localhost", "127.0.0.1", socket.gethostname()):
            asked.append(host)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    assert run("ask", "a.tif", *WATER, "--device", "cpu", "--out", "out", "--part-tiles", "4")[0] == 0  # the real model
    for command in ("show", "report", "finish"):
        assert run(command, "out")[0] == 0
    assert not asked
