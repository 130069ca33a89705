"""`classify` and `caption` as library calls, on chips whose labels can be computed: the fake engine hashes pixels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rsqa.errors import ExitCode, PlanMismatch, SourceMissing, UsageError
from rsqa.raster.source import RasterSource
from rsqa.run.folder import part_path, read_plan
from rsqa.run.pipeline import ask, finish
from rsqa.run.request import Request
from rsqa.tasks.labels import class_questions
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.task import Caption, Classify
from rsqa.testing import EchoEngine

LABELS = ("harbor", "dense residential", "pré, verger")
QUESTIONS = class_questions(LABELS)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (3, height, width), dtype=np.uint8)


def geotiff(path: Path, pixels: np.ndarray, epsg: int = 32631) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels), dtype="uint8",
        crs=f"EPSG:{epsg}", transform=from_origin(5e5, 5e6, 10, 10),
    ) as file:  # fmt: skip
        file.write(pixels)


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)


@pytest.fixture
def chips(tmp_path) -> dict[str, np.ndarray]:
    """Name -> pixels of a folder of chips: two systems, two sizes, without a place, one of them grey."""
    pixels = {f"a/{i}.tif": noise(40, 40, i) for i in range(5)}
    pixels |= {f"b/{i}.tif": noise(40, 28, 10 + i) for i in range(3)}
    pixels |= {f"c/{i}.png": noise(40, 40, 20 + i) for i in range(3)}
    for name, values in pixels.items():
        path = tmp_path / "chips" / name
        if name.endswith("png"):
            picture(path, values)
        else:
            geotiff(path, values, 32632 if name == "a/2.tif" else 32631)
    pixels["c/grey.png"] = np.repeat(noise(40, 40, 30)[:1], 3, axis=0)
    Image.fromarray(pixels["c/grey.png"][0]).save(tmp_path / "chips" / "c" / "grey.png")
    return pixels


def request(tmp_path: Path, *sources: str, questions=QUESTIONS, task=None, **options) -> Request:
    settings = {
        "out": tmp_path / "out", "tile_px": None, "model": "rsqa.testing:EchoEngine", "device": "cpu",
        "part_tiles": 3, "batch_size": 2,
    }  # fmt: skip
    return Request(sources=sources, questions=questions, task=task or Classify(), **settings | options)


def classes(report) -> pandas.DataFrame:
    return geopandas.read_parquet(report.out / "classes.parquet").set_index("source").sort_index()


def truth(pixels: np.ndarray, questions=QUESTIONS) -> np.ndarray:
    """(K,) probability of each label, averaged over the prompts."""
    replies = EchoEngine().prepare(questions, pixels.shape[1:], 1).answer(pixels[None])
    return np.mean([np.exp(reply.option_logprob[0].astype(float)) for reply in replies], axis=0)


def test_every_chip_of_a_folder_gets_the_label_of_its_own_pixels(tmp_path, chips):
    report = ask(request(tmp_path, str(tmp_path / "chips")))
    assert report.exit_code == ExitCode.DONE
    table = classes(report)
    assert set(table.index) == set(chips)
    for name, pixels in chips.items():
        shares = truth(pixels) / truth(pixels).sum()
        assert table.label[name] == LABELS[shares.argmax()]
        assert table.confidence[name] == pytest.approx(shares.max(), abs=1e-6)
        assert dict(table.probabilities[name]) == pytest.approx(dict(zip(LABELS, shares, strict=True)), abs=1e-6)
        assert [p for _, p in table.probabilities[name]] == sorted(shares.astype(np.float32), reverse=True)
    assert table.processing_id.nunique() == 2  # grey is read from one band


def test_systems_are_kept_and_what_has_no_place_has_no_geometry(tmp_path, chips):
    notes: list[str] = []
    table = classes(ask(request(tmp_path, str(tmp_path / "chips")), on_note=notes.append))
    assert table.crs == "OGC:CRS84"
    unplaced = [name for name in chips if name.endswith("png")]
    assert sorted(table.index[table.geometry.isna()]) == sorted(unplaced)
    assert table.source_crs[unplaced].isna().all()
    assert table.source_crs["a/2.tif"] == "EPSG:32632"
    assert table.geometry["a/2.tif"].bounds[0] == pytest.approx(9.0)
    assert any("4 of 12 sources" in note for note in notes)


def test_no_chip_of_a_folder_has_a_place(tmp_path):
    picture(tmp_path / "chips" / "a.png", noise(20, 20, 0))
    report = ask(request(tmp_path, str(tmp_path / "chips")))
    table = classes(report)
    assert table.crs is None
    assert table.geometry.isna().all()
    assert json.loads((report.out / "item.json").read_text())["geometry"] is None


def test_files_share_batches_and_a_batch_has_one_size(tmp_path, chips, monkeypatch):
    monkeypatch.setenv("RSQA_FAKE_LOG", str(tmp_path / "log"))
    report = ask(request(tmp_path, str(tmp_path / "chips"), part_tiles=100, batch_size=100))
    assert sorted(map(int, (tmp_path / "log").read_text().split()))[-1] == 4
    assert (report.n_parts, report.engine_calls) == (4, 4)  # a and its chip of zone 32, b, c


def test_a_mosaic_is_cut_and_a_chip_is_not(tmp_path):
    geotiff(tmp_path / "in" / "mosaic.tif", noise(130, 100, 1))
    geotiff(tmp_path / "in" / "chip.tif", noise(60, 50, 2))
    table = classes(ask(request(tmp_path, str(tmp_path / "in"), tile_px=64)))
    assert table.loc["mosaic.tif"].shape[0] == 3 * 2
    assert table.tile_id["chip.tif"] == "chip.tif/0/0"
    assert table.loc["mosaic.tif"].geometry.union_all().area == pytest.approx(130 * 100 * 100)
    whole = classes(ask(request(tmp_path, str(tmp_path / "in"), out=tmp_path / "whole")))
    assert whole.tile_id["mosaic.tif"] == "mosaic.tif/0/0"


def test_prompts_are_averaged_as_probabilities(tmp_path, chips):
    questions = class_questions(LABELS, ("Which is it: {labels}?", "What is shown?", "Name the class."))
    table = classes(ask(request(tmp_path, str(tmp_path / "chips"), questions=questions)))
    for name, pixels in chips.items():
        mean = truth(pixels, questions)
        assert table.label[name] == LABELS[mean.argmax()]
        assert table.confidence[name] == pytest.approx(mean.max() / mean.sum(), abs=1e-6)
        assert table.option_mass[name] == pytest.approx(mean.sum(), abs=1e-6)
    assert len(table) == len(chips)


def test_a_thousand_labels_and_the_likeliest_of_them(tmp_path):
    geotiff(tmp_path / "in" / "a.tif", noise(30, 30, 0))
    labels = tuple(f"class {i}" for i in range(1000))
    questions = class_questions(labels)
    table = classes(ask(request(tmp_path, str(tmp_path / "in"), questions=questions, task=Classify(top_k=16))))
    shares = truth(noise(30, 30, 0), questions)
    order = np.argsort(-shares)[:16]
    assert [name for name, _ in table.probabilities["a.tif"]] == [labels[i] for i in order]
    assert table.label["a.tif"] == labels[order[0]]


def test_what_is_made_of_the_parts_can_be_changed_without_asking_again(tmp_path, chips):
    first = ask(request(tmp_path, str(tmp_path / "chips")))
    sure = classes(first)
    limit = float(sure.confidence.median())
    report = ask(request(tmp_path, str(tmp_path / "chips"), task=Classify(top_k=1, abstain=limit)))
    table = classes(report)
    assert (report.engine_calls, report.plan_id) == (0, first.plan_id)
    unsure = sure.confidence < limit
    assert 0 < unsure.sum() < len(sure)
    assert (table.status[unsure] == "abstained").all()
    assert table.label[unsure].isna().all()
    assert (table.label[~unsure] == sure.label[~unsure]).all()
    assert {len(top) for top in table.probabilities} == {1}
    assert report.questions[0].statuses == {"ok": int((~unsure).sum()), "abstained": int(unsure.sum())}
    before = (report.out / "classes.parquet").read_bytes()
    assert finish(report.out).questions == report.questions
    assert (report.out / "classes.parquet").read_bytes() == before


def test_a_run_goes_on_when_files_are_bad_and_names_them(tmp_path, chips):
    folder = tmp_path / "chips"
    (folder / "b" / "empty.tif").touch()
    (folder / "b" / "words.jpg").write_text("no picture")
    (folder / "c" / "cut.png").write_bytes((folder / "c" / "0.png").read_bytes()[:-20])
    geotiff(folder / "b" / "two.tif", noise(40, 40, 1)[:2])
    cut = folder / "c" / "cut.jpg"
    picture(cut, noise(40, 40, 1))
    cut.write_bytes(cut.read_bytes()[:-200])
    report = ask(request(tmp_path, str(folder)))
    assert report.exit_code == ExitCode.TILES_FAILED
    bad = ["b/empty.tif", "b/two.tif", "b/words.jpg", "c/cut.png"]
    assert [name for name, _ in report.failed_sources] == bad
    assert [name for name, _ in json.loads((report.out / "run.json").read_text())["failed_sources"]] == bad
    table = classes(report)
    assert table.error["c/cut.jpg"] == "block_unreadable"  # a JPEG's damage shows when it is decoded
    assert set(table.index) == {*chips, "c/cut.jpg"}
    assert finish(report.out).exit_code == ExitCode.TILES_FAILED
    again = ask(request(tmp_path, str(folder)))
    assert (again.engine_calls, again.exit_code) == (0, ExitCode.TILES_FAILED)


def test_interrupted_and_gone_on_with_is_the_same(tmp_path, chips):
    folder = str(tmp_path / "chips")
    whole = ask(request(tmp_path, folder))
    before = {p.name: p.read_bytes() for p in whole.out.glob("*.parquet") if p.name != "performance.parquet"}
    part_path(whole.out, 1).unlink()
    again = ask(request(tmp_path, folder))
    assert again.parts_resumed == again.n_parts - 1
    assert {p.name: p.read_bytes() for p in whole.out.glob("*.parquet") if p.name != "performance.parquet"} == before
    other = ask(request(tmp_path, folder, out=tmp_path / "other", batch_size=1, part_tiles=100))
    same = ["label", "confidence", "status"]
    assert classes(other)[same].equals(classes(again)[same])


def test_a_new_file_in_the_folder_is_another_plan(tmp_path, chips):
    ask(request(tmp_path, str(tmp_path / "chips")))
    geotiff(tmp_path / "chips" / "new.tif", noise(40, 40, 1))
    with pytest.raises(PlanMismatch, match="sources: 12 there, 13 asked"):
        ask(request(tmp_path, str(tmp_path / "chips")))


def test_an_empty_folder_is_an_input_error_and_makes_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceMissing, match="no raster below"):
        ask(request(tmp_path, str(tmp_path / "in")))
    assert not (tmp_path / "out").exists()


def test_captions_are_answers_in_the_cards_words(tmp_path, chips):
    report = ask(request(tmp_path, str(tmp_path / "chips"), questions=(), task=Caption()))
    table = geopandas.read_parquet(report.out / "answers.parquet").set_index("source")
    assert set(table.question) == {PromptStyle().caption}
    [question] = read_plan(report.out).questions
    for name, pixels in chips.items():
        [reply] = EchoEngine().prepare((question,), pixels.shape[1:], 1).answer(pixels[None])
        assert table.text[name] == reply.text[0]


def test_the_facts_of_a_source_are_written_out_few_times(tmp_path, monkeypatch):
    for number in range(5):
        geotiff(tmp_path / "chips" / f"{number}.tif", noise(16, 16, number))
    asked = []
    plain = RasterSource.to_json
    monkeypatch.setattr(RasterSource, "to_json", lambda source: asked.append(source.name) or plain(source))
    request = Request(
        sources=(str(tmp_path / "chips"),), questions=QUESTIONS, task=Classify(), out=tmp_path / "out",
        model="rsqa.testing:EchoEngine", device="cpu", tile_px=None,
    )  # fmt: skip
    ask(request)
    assert set(Counter(asked).values()) == {3}  # for the plan's id, its table, and the id of what was read from there
    asked.clear()
    ask(request)
    assert set(Counter(asked).values()) == {2}  # for the ids of both plans


@pytest.mark.parametrize("task", [{"top_k": 0}, {"top_k": 17}, {"abstain": 1.5}])
def test_impossible_settings(task):
    with pytest.raises(UsageError):
        Classify(**task)
