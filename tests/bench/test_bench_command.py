from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

import rsqa
from rsqa.bench.request import BenchRequest, request_from_words
from rsqa.bench.work import Case
from rsqa.cli import bench, run
from rsqa.errors import UsageError


def test_one_command_measures_and_draws(tmp_path, capfd):
    arguments = (
        "bench --tile-px 56 --questions 2 --answer closed,3 --tiles 4 --rounds 2 --sample 1 --threads 1 --device cpu"
        f" --dtype float32 --sides a,d,e --rival-tiles 2 --plot {tmp_path / 'p.png'} --json {tmp_path / 'r.json'}"
    )
    assert run(arguments.split()) == 0
    out, err = capfd.readouterr()
    last = json.loads(out.splitlines()[-1])
    assert last == json.loads((tmp_path / "r.json").read_text())
    assert [(row["side"], row["answer_tokens"], row["state"]) for row in last["rows"]] == [
        ("a", None, "ok"), ("d", None, "not run"), ("e", None, "ok"),
        ("a", 3, "ok"), ("d", 3, "not run"), ("e", 3, "ok"),
    ]  # fmt: skip
    for row in last["rows"]:
        if row["state"] == "ok":
            assert len(row["runs"]) == 2
            assert row["n_tiles"] == (2 if row["side"] == "a" else 4)
            assert row["agreement"]["all_tokens"] == 1.0
    assert "d: not run: no environment with vLLM; name its Python with --vllm-python" in out
    assert "rsqa, model only" in out
    assert "loading e" in err
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_lists_make_a_grid():
    cases = BenchRequest(tile_px="224,448", questions="1, 8", answer="closed,5", tiles=3).cases()
    assert len(cases) == 8
    assert cases[0] == Case(224, 3, 1, None)
    assert cases[-1] == Case(448, 3, 8, 5)


@pytest.mark.parametrize("lists", [("0", "1", "closed"), ("224", "x", "1"), ("224", "1", "open"), ("", "1", "1")])
def test_what_is_no_number_is_named(lists):
    tile_px, questions, answer = lists
    with pytest.raises(UsageError, match="whole numbers"):
        BenchRequest(tile_px=tile_px, questions=questions, answer=answer).cases()


def test_sides_by_name():
    assert BenchRequest(sides="e,b',e").side_names() == ("e", "b'")
    with pytest.raises(UsageError, match="unknown side 'z'"):
        BenchRequest(sides="a,z").side_names()


def test_the_command_and_the_module_take_the_same():
    """The options of `rsqa bench` are the fields of the request, with the same defaults."""
    options = {name: p.default for name, p in signature(bench.bench).parameters.items() if name != "verbose"}
    assert BenchRequest(**options) == BenchRequest()
    assert options.keys() == {field.name for field in fields(BenchRequest)}


def test_words_make_a_request():
    words = ["tile_px=224,448", "sample=0", "tiles=5", "checkpoint_dir=x/y", "sides=e"]
    told = BenchRequest(tile_px="224,448", sample=0, tiles=5, checkpoint_dir=Path("x/y"), sides="e")
    assert request_from_words(words) == told
    for word in ("tile=224", "tiles", "tiles=many"):
        with pytest.raises(UsageError, match="given"):
            request_from_words([word])


def test_the_module_runs_without_the_command_line():
    code = (
        "import sys; sys.modules.update(typer=None, rasterio=None, dask=None)\n"
        "from rsqa.bench.__main__ import main; sys.exit(main())"
    )
    words = ["tile_px=56", "questions=1", "tiles=1", "rounds=1", "sample=0", "sides=d", "device=cpu", "threads=1"]
    environment = os.environ | {"PYTHONPATH": str(Path(rsqa.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["rows"][0]["state"] == "not run"
