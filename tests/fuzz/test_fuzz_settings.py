"""Files of settings and what a run keeps of itself: recipes, WATCH.toml, cards, STAC, plan, parts, state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from mutated import documented, fuzzed, mutated
from rasterio.transform import from_origin

from rsqa.engines.cards import CARDS, card_from_json, card_to_json
from rsqa.models.checkpoint import open_checkpoint
from rsqa.monitor.state import Failure, State, read_state, write_state
from rsqa.monitor.tell import Told, read_told, write_told
from rsqa.monitor.watch import read_watch
from rsqa.raster import stac
from rsqa.run.derive import whole_summary
from rsqa.run.folder import read_plan
from rsqa.run.pipeline import ask
from rsqa.run.plan import Parts
from rsqa.run.request import Request
from rsqa.sinks.finished import open_tables
from rsqa.sinks.part_reading import read_parts, valid_part
from rsqa.tasks.question import Question
from rsqa.testing import write_random_checkpoint
from rsqa.train.stages import load

RECIPES = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "recipes").glob("*/*.toml"))]
WATCH = b"""out = "port.monitor"
[scenes]
paths = ["incoming/*.tif"]
acquired = "*_%Y%m%dT%H%M%S*"
bands = ["4", "3", "2"]
[grid]
crs = "EPSG:32631"
origin = [500000.0, 4600000.0]
pixel = 0.5
low = [0.0]
high = [3000.0]
area = [500000.0, 4500000.0, 600000.0, 4600000.0]
[ask]
questions = ["mark: Is there magenta?"]
[change]
confirmations = 2
[limits]
max_minutes = 50
[tell]
on_change = ["./page", "a b"]
"""
ITEM = json.dumps(
    {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "bbox": [0, 0, 1, 1], "links": [],
        "properties": {"datetime": "2026-01-01T00:00:00Z"},
        "assets": {"visual": {"href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}},
    }
).encode()  # fmt: skip
COLLECTION = json.dumps(
    {
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "d", "license": "other",
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [["2026-01-01T00:00:00Z", None]]}},
        "links": [{"rel": "item", "href": "./item.json"}, {"rel": "self", "href": "./collection.json"}],
    }
).encode()  # fmt: skip


@fuzzed
@given(text=mutated(RECIPES).map(lambda content: content.decode(errors="surrogateescape")), change=st.text(max_size=30))
def test_recipes(text, change):
    documented(lambda: load(text))
    documented(lambda: load(text, [change]))


@fuzzed
@given(content=mutated([WATCH]))
def test_what_a_monitor_is_told(tmp_path, content):
    (tmp_path / "WATCH.toml").write_bytes(content)
    watch = documented(lambda: read_watch(tmp_path / "WATCH.toml"))
    if watch is not None:
        assert len(watch.settings_id) == 16


@pytest.mark.filterwarnings("ignore::UserWarning:pystac")
@fuzzed
@given(content=mutated([ITEM, COLLECTION]))
def test_stac(tmp_path, content):
    (tmp_path / "item.json").write_bytes(ITEM)
    (tmp_path / "a.json").write_bytes(content)
    named = documented(lambda: stac.resolved(str(tmp_path / "a.json"), None))
    for dated in named.rasters if named else ():
        assert Path(dated.argument).is_absolute() or dated.argument.startswith(("https://", "http://", "s3://"))


@fuzzed
@given(text=mutated([card_to_json(card).encode() for card in CARDS.values()]).map(lambda c: c.decode(errors="replace")))
def test_cards(text):
    documented(lambda: card_from_json(text, "card"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("models") / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
@fuzzed
@given(data=st.data())
def test_folders_of_models(tmp_path, model, name, data):
    for path in model.iterdir():
        if not (tmp_path / path.name).exists():
            (tmp_path / path.name).hardlink_to(path)
    (tmp_path / name).unlink(missing_ok=True)
    seed = (model / name).read_bytes() if (model / name).exists() else b'{"tokenizer_class": "Qwen2Tokenizer"}'
    (tmp_path / name).write_bytes(data.draw(mutated([seed])))
    documented(lambda: open_checkpoint(tmp_path))


# ---- what a run keeps of itself


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of eight tiles in two parts."""
    folder = tmp_path_factory.mktemp("done")
    with rasterio.open(
        folder / "a.tif", "w", driver="GTiff", width=224, height=112, count=3, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(5e5, 4.6e6, 1, 1),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 256, (3, 112, 224), dtype=np.uint8))
    water = Question("water", "Is there water?", "yesno", ("yes", "no"))
    report = ask(
        Request(
            sources=(str(folder / "a.tif"),), questions=(water,), out=folder / "out", tile_px=56, batch_size=4,
            part_tiles=4, device="cpu", model="rsqa.testing:EchoEngine",
        )
    )  # fmt: skip
    return report.out


@pytest.mark.parametrize("name", ["plan.json", "sources.parquet", "run.json"])
@fuzzed
@given(data=st.data())
def test_plans(tmp_path, done, name, data):
    for own in ("plan.json", "sources.parquet", "run.json"):
        (tmp_path / own).write_bytes((done / own).read_bytes())
    (tmp_path / "answers.parquet").touch()
    (tmp_path / name).write_bytes(data.draw(mutated([(done / name).read_bytes()])))
    plan = documented(lambda: read_plan(tmp_path))
    if plan is not None:
        documented(lambda: whole_summary(tmp_path, plan))
    if name == "run.json":
        assert plan is not None


@fuzzed
@given(data=st.data())
def test_a_part_is_what_was_written_or_none(tmp_path, done, data):
    whole = (done / "parts" / "00000000.parquet").read_bytes()
    path = tmp_path / "00000000.parquet"
    path.write_bytes(data.draw(mutated([whole])))
    plan_id = documented(lambda: read_plan(done)).plan_id
    expected = pq.read_table(done / "parts" / "00000000.parquet")
    assert Parts(read_plan(done)).n_tiles(0) == expected.num_rows
    if valid_part(path, plan_id, 0, expected.num_rows):
        tables = documented(lambda: list(read_parts([path], 1 << 16)))
        if tables is not None:
            assert tables[0].to_pylist() == expected.to_pylist()


@fuzzed
@given(data=st.data())
def test_finished_tables(tmp_path, done, data):
    (tmp_path / "run.json").touch()
    (tmp_path / "answers.parquet").write_bytes(data.draw(mutated([(done / "answers.parquet").read_bytes()])))
    documented(lambda: open_tables(tmp_path))


@pytest.mark.parametrize("name", ["state.json", "told.json"])
@fuzzed
@given(data=st.data())
def test_what_a_monitor_remembers(tmp_path, name, data):
    failure = Failure("no", 1, 2.0, refused=True)
    write_state(tmp_path, State(seen={"a": (1, 2, "f", "2026-01-01")}, failures={"a": ("x", failure)}))
    write_told(tmp_path, Told("rule", frozenset({"a", "b"})))
    (tmp_path / name).write_bytes(data.draw(mutated([(tmp_path / name).read_bytes()])))
    assert isinstance(documented(lambda: read_state(tmp_path)), State)
    assert isinstance(documented(lambda: read_told(tmp_path)), Told)
