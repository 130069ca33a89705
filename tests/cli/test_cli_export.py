from __future__ import annotations

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine

import rsqa.cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 100, 150), dtype=np.uint8)
    with rasterio.open(
        out / "m.tif", "w", driver="GTiff", height=100, width=150, count=3, dtype="uint8", crs="EPSG:32631",
        transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
    ) as file:  # fmt: skip
        file.write(pixels)
    code = rsqa.cli.run(
        ["ask", str(out / "m.tif"), "-q", "Is there water?", "-q", "words: Describe it.", "--out", str(out / "m.rsqa"),
         "--tile-px", "56", "--device", "cpu", "--model", "rsqa.testing:EchoEngine", "--quiet", "--no-progress"]
    )  # fmt: skip
    assert code == 0
    return out / "m.rsqa"


def exported(capsys, *arguments) -> list[str]:
    assert rsqa.cli.run(["export", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out.splitlines()


def test_a_format_is_written_into_the_folder(capsys, folder):
    assert exported(capsys, folder, "gpkg") == [str(folder / "m.gpkg")]
    assert exported(capsys, folder, "csv") == [str(folder / "answers.csv")]
    names = ["m.tif.is-there-water.tif", "m.tif.is-there-water.confidence.tif"]
    assert exported(capsys, folder, "cog") == [str(folder / "cog" / name) for name in names]
    assert pyogrio.list_layers(folder / "m.gpkg")[:, 0].tolist() == ["answers"]
    assert exported(capsys, folder, "gpkg", "--quiet") == []


def test_a_file_is_written_where_it_is_named(capsys, folder, tmp_path):
    for name in ("a.fgb", "b.GeoJSON", "c.csv"):
        assert exported(capsys, folder, tmp_path / name) == [str(tmp_path / name)]
    exported(capsys, folder, tmp_path / "d.tif", "-q", "is-there-water")
    with rasterio.open(tmp_path / "d.tif") as raster:
        assert raster.shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["parquet"], "can't tell a format from 'parquet'; name one of gpkg, fgb, geojson, csv, cog, or a file"),
        (["a.shp"], "can't tell a format from 'a.shp'"),
        (["gpkg", "-q", "snow"], "no question 'snow' in this output; choose of is-there-water, words"),
        (["gpkg", "--table", "classes"], "no classes in"),
        (["a.tif"], "here are 2 questions and 1 sources; choose a question with -q, or say cog"),
        (["a.tif", "-q", "words"], "the answers to 'words' are free text, which no raster holds"),
    ],
)
def test_what_makes_no_sense_is_one_line(capsys, folder, arguments, says):
    assert rsqa.cli.run(["export", str(folder), *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_nothing_finished_is_nothing_exported(capsys, tmp_path):
    assert rsqa.cli.run(["export", str(tmp_path), "gpkg"]) == 4
    assert "name an output folder of rsqa ask" in capsys.readouterr().err
