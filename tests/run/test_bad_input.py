"""Input as people have it: what can't be used is named, all else is answered."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import seer
import zarr
from PIL import Image
from rasterio.transform import from_origin

import rsqa.cli
from rsqa.errors import ExitCode, SourceRefused
from rsqa.run.pipeline import ask
from rsqa.run.request import Request
from rsqa.tasks.detect import gather_things
from rsqa.tasks.labels import class_questions
from rsqa.tasks.task import Classify, Detect

QUESTIONS = class_questions(("harbor", "forest", "river"))
FAKE = {"model": "rsqa.testing:EchoEngine", "device": "cpu", "tile_px": None}


def pixels(bands: int, seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (bands, side, side), dtype=np.uint8)


def geotiff(path: Path, values: np.ndarray, epsg: int = 32631, **profile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values), dtype="uint8",
        crs=f"EPSG:{epsg}", transform=from_origin(5e5, 5e6, 10, 10), **profile,
    ) as file:  # fmt: skip
        file.write(values)


def a_day_of_chips(folder: Path, n: int) -> set[str]:
    """Fill a folder with n files, of which every hundredth is broken in one of five ways. -> the broken ones."""
    geotiff(folder / "whole.tif", pixels(3, 0))
    geotiff(folder / "grey.tif", pixels(1, 1))
    whole, grey = ((folder / name).read_bytes() for name in ("whole.tif", "grey.tif"))
    for name in ("whole.tif", "grey.tif"):
        (folder / name).unlink()
    broken = set()
    for number in range(n):
        name = f"{number // 1000:02}/{number:05}.tif"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if number % 100 != 50:
            path.write_bytes(grey if number % 7 == 0 else whole)
            continue
        broken.add(name)
        match number // 100 % 5:
            case 0:
                path.touch()
            case 1:
                path.write_bytes(whole[: len(whole) // 20])
            case 2:
                path.write_text("moved to the archive")
            case 3:
                path.symlink_to(folder.parent / "nowhere.tif")
            case 4:
                path.write_bytes(b"II*\0\xff\xff\xff\xff" + whole[8:])
    return broken


@pytest.mark.parametrize("n_files", [500, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_of_many_files_one_in_a_hundred_is_broken(tmp_path, n_files):
    broken = a_day_of_chips(tmp_path / "chips", n_files)
    request = Request(
        sources=(str(tmp_path / "chips"),), questions=QUESTIONS, task=Classify(), out=tmp_path / "out", **FAKE
    )
    notes: list[str] = []
    report = ask(request, on_note=notes.append)
    assert report.exit_code == ExitCode.TILES_FAILED
    links = {name for name in broken if (tmp_path / "chips" / name).is_symlink()}  # they lead out of the folder
    assert {name for name, _ in report.failed_sources} == broken - links
    assert all("\n" not in why for _, why in report.failed_sources)
    assert any(f"not read: {len(links)}" in note for note in notes)
    assert len(notes) < 20  # what is said does not grow with the folder
    table = geopandas.read_parquet(report.out / "classes.parquet")
    assert len(table) == n_files - len(broken)
    assert Counter(table.status) == {"ok": len(table)}
    assert not broken & set(table.source)
    again = ask(request)
    assert (again.exit_code, again.engine_calls) == (ExitCode.TILES_FAILED, 0)


def test_files_of_unlike_bands_are_shown_each_in_its_way(tmp_path):
    folder = tmp_path / "chips"
    for name, bands in {"grey.tif": 1, "two.tif": 2, "rgb.tif": 3, "four.tif": 4, "thirteen.tif": 13}.items():
        geotiff(folder / name, pixels(bands, bands), photometric="MINISBLACK")
    Image.fromarray(pixels(4, 9).transpose(1, 2, 0), "RGBA").save(folder / "rgba.png")
    Image.fromarray(pixels(1, 9)[0]).save(folder / "grey.png")

    def classified(**options):
        return ask(Request(sources=(str(folder),), questions=QUESTIONS, task=Classify(), **FAKE | options))

    report = classified(out=tmp_path / "out")
    read = set(geopandas.read_parquet(report.out / "classes.parquet").source)
    failed = dict(report.failed_sources)
    assert read | failed.keys() == {path.name for path in folder.iterdir()}
    assert {"grey.tif", "rgb.tif", "rgba.png", "grey.png"} <= read
    assert all("--bands" in why for why in failed.values())
    report = classified(out=tmp_path / "bands", bands="4,3,2")
    assert set(geopandas.read_parquet(report.out / "classes.parquet").source) == {"four.tif", "thirteen.tif"} | (
        {"rgba.png"} - dict(report.failed_sources).keys()
    )
    assert report.exit_code == ExitCode.TILES_FAILED
    with pytest.raises(SourceRefused, match="a mosaic wants files that are alike"):
        ask(Request(sources=tuple(str(folder / name) for name in ("grey.tif", "rgb.tif")), questions=QUESTIONS,
                    task=Classify(), mosaic=True, out=tmp_path / "mosaic", **FAKE))  # fmt: skip


def test_a_mosaic_of_two_systems_is_refused_and_two_sources_are_not(tmp_path):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, epsg in zip(paths, (32631, 32632), strict=True):
        geotiff(path, pixels(3, epsg), epsg)
    options = {"sources": tuple(map(str, paths)), "questions": QUESTIONS, "task": Classify()}
    with pytest.raises(SourceRefused, match=r"'b.tif' has another CRS than 'a.tif'"):
        ask(Request(**options, mosaic=True, out=tmp_path / "mosaic", **FAKE))
    table = geopandas.read_parquet(ask(Request(**options, out=tmp_path / "out", **FAKE)).out / "classes.parquet")
    assert table.crs == "OGC:CRS84"
    assert set(table.source_crs) == {"EPSG:32631", "EPSG:32632"}


def test_things_of_any_script_are_found_counted_and_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(seer.Seer, "things", [("船", (10, 10, 30, 20)), ("Öltank", (60, 60, 80, 80)),
                                              ("نخلة", (90, 20, 100, 30))])  # fmt: skip
    monkeypatch.setattr(seer.Seer, "mute", set())
    raster = seer.write_places(tmp_path / "m.tif", 128, 128, from_origin(5e5, 5e6, 0.5, 0.5))
    names, phrases = gather_things(["船", "Öltank", "نخلة"], [])
    report = ask(Request(
        sources=(str(raster),), task=Detect(names, phrases, count=True), out=tmp_path / "out", tile_px=64,
        overlap_px=16, model=seer.MODEL, device="cpu",
    ))  # fmt: skip
    table = geopandas.read_parquet(report.out / "detections.parquet")
    assert sorted(table.label) == sorted(names)
    assert dict(zip(*geopandas.read_parquet(report.out / "counts.parquet")[["label", "objects"]].to_numpy().T,
                    strict=True)) == dict.fromkeys(names, 1)  # fmt: skip
    cube = zarr.open_group(report.out / "tiles.zarr", mode="r") if (report.out / "tiles.zarr").exists() else None
    assert cube is None or len(list(cube["m.tif"].group_keys())) == len(names)
    for target in ("gpkg", "csv", "geojson"):
        assert rsqa.cli.run(["export", str(report.out), target, "--quiet"]) == ExitCode.DONE
    exported = geopandas.read_file(report.out / "detections.geojson")
    assert sorted(exported.label) == sorted(names)
    assert sorted(geopandas.read_file(report.out / "out.gpkg", layer="detections").label) == sorted(names)


def test_a_server_that_is_not_there_ends_the_command_in_time(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    words = ["ask", f"http://127.0.0.1:{port}/a.tif?key=secret", "-q", "Is there water?", "--device", "cpu",
             "--model", "rsqa.testing:EchoEngine", "--out", str(tmp_path / "out")]  # fmt: skip
    assert rsqa.cli.run(words) == ExitCode.INPUT
    assert time.monotonic() - started < 60
    said = capsys.readouterr().err
    assert "a.tif" in said
    assert "Traceback" not in said
    assert "secret" not in said


def test_a_server_that_is_gone_for_one_source_costs_that_one(tmp_path):
    geotiff(tmp_path / "here.tif", pixels(3, 0, 64))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    report = ask(Request(
        sources=(f"http://127.0.0.1:{port}/far.tif", str(tmp_path / "here.tif")), questions=QUESTIONS, task=Classify(),
        out=tmp_path / "out", **FAKE,
    ))  # fmt: skip
    assert report.exit_code == ExitCode.TILES_FAILED
    assert [name for name, _ in report.failed_sources] == ["far.tif"]
    assert [name for name, _ in json.loads((report.out / "run.json").read_text())["failed_sources"]] == ["far.tif"]
    shutil.rmtree(report.out)
