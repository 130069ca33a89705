"""Every side answers the same questions about the same pixels: their tokens are equal in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsqa.bench.checkpoint import bench_checkpoint
from rsqa.bench.files import FileToTable, write_mosaic
from rsqa.bench.ours import Ours
from rsqa.bench.rivals import FromFiles, batched, cached, one_by_one
from rsqa.bench.work import Case, Setup, pictures
from rsqa.errors import UsageError

CLOSED, FREE = Case(84, 3, 3, None), Case(84, 3, 3, 4)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = bench_checkpoint("nano", tmp_path_factory.mktemp("bench") / "nano")
    return Setup(str(folder), "cpu", "float32", torch.get_num_threads(), str(tmp_path_factory.mktemp("scratch")))


@pytest.fixture(scope="module")
def reference(setup):
    return one_by_one(setup)


@pytest.mark.parametrize("make", [batched, cached, FromFiles, Ours], ids=["b", "b'", "c", "e"])
def test_all_sides_write_the_same_tokens(setup, reference, make):
    side = make(setup)
    for case in (CLOSED, FREE):
        reference.prepare(case)
        expected = reference.tokens(3)
        assert all(len(answer) == case.budget for tile in expected for answer in tile)
        assert side.prepare(case)
        assert side.run() == {}
        assert side.tokens(3) == expected
        assert side.tokens(1) == expected[:1]


def test_ours_scores_options_as_the_reference_does(setup, reference):
    ours = Ours(setup)
    reference.prepare(CLOSED)
    ours.prepare(CLOSED)
    assert np.allclose(ours.option_logprobs(2), reference.option_logprobs(2), atol=1e-4)
    ours.prepare(FREE)
    assert ours.option_logprobs(2) is None


def test_a_file_is_answered_whole(setup):
    side = FileToTable(setup)
    side.prepare(CLOSED)
    facts = side.run()
    assert 0 <= facts["model_idle"] <= 1
    assert 0 < facts["working_s"] < facts["whole_s"]
    assert {"read_s", "wait_s", "model_s", "write_s"} <= facts.keys()


@pytest.mark.parametrize("n", [1, 6, 7])
def test_a_mosaic_is_cut_into_the_tiles_it_was_made_of(tmp_path, n):
    import rasterio
    from rasterio.windows import Window

    tiles = pictures(Case(84, n, 1, None))
    write_mosaic(tmp_path / "m.tif", tiles)
    with rasterio.open(tmp_path / "m.tif") as file:
        n_cols = file.width // 84
        assert file.width * file.height == n * 84**2
        for number, tile in enumerate(tiles):
            row, col = divmod(number, n_cols)
            assert (file.read(window=Window(col * 84, row * 84, 84, 84)) == tile).all()


def test_a_kept_checkpoint_is_used_again_and_never_taken_for_another(setup, tmp_path):
    folder = bench_checkpoint("nano", tmp_path / "kept")
    assert bench_checkpoint("nano", folder) == folder
    with pytest.raises(UsageError, match="another model"):
        bench_checkpoint("2b", folder)
