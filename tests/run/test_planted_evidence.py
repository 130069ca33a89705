"""An adapter that was made to look at what is bright: the cell of most weight must cover the bright square."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
import xarray
from rasterio.transform import from_origin

import rsqa.cli
from rsqa.engines.cards import CARD_FILE, ModelCard, card_to_json
from rsqa.engines.registry import find_model, load_engine
from rsqa.errors import PlanMismatch, UsageError
from rsqa.models.prompt_adapter import PromptShape
from rsqa.models.rivals import prompter_of
from rsqa.report.build import gather
from rsqa.run.pipeline import ask, finish
from rsqa.run.request import Request
from rsqa.tasks.prompts import PromptStyle
from rsqa.tasks.question import YES_NO, Question
from rsqa.testing import write_random_checkpoint
from rsqa.train.prompt_adapter import save_prompt_adapter

TILE_PX, ROWS, COLS = 56, 8, 9
DARK, BRIGHT, NODATA = 20, 240, 0
WATER = Question("water", "Is there water?", "yesno", YES_NO)
WORDS = Question("words", "Describe the scene.", "open")
EMPTY = (3, 4)
"""The tile whose right half is nodata."""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A GRASP prompt on a random base; its scores are how far a block lies in the direction from dark to bright."""
    folder = tmp_path_factory.mktemp("planted")
    base = write_random_checkpoint(folder / "base", 3)
    card = ModelCard("tiny", "Tiny", PromptStyle(system="Look."), "Apache-2.0", side_px=TILE_PX, max_new_tokens=4)
    (base / CARD_FILE).write_text(card_to_json(card))
    ref = find_model(str(base))
    session = load_engine(ref, "cpu").prepare([WATER], (TILE_PX, TILE_PX), 4)
    chips = np.stack([chip(block) for block in range(4)])
    seen = torch.from_numpy(session.see(chips))  # (4, 4, D), one visual token a block
    lit = torch.eye(4, dtype=torch.bool)
    apart = torch.nn.functional.layer_norm(seen, seen.shape[-1:])
    direction = apart[lit].mean(dim=0) - apart[~lit].mean(dim=0)
    prompter = prompter_of(PromptShape(48, tokens=1, blocks=4, inner=1, context=0, positions=False))
    with torch.no_grad():
        for weight in prompter.parameters():
            weight.zero_()
        prompter.blocks.weight[0] = direction
        prompter.question.bias.fill_(1.0)
        prompter.temperature.fill_(1.5)
    save_prompt_adapter(folder / "adapter", prompter, ref, card)
    return folder / "adapter"


def chip(block: int) -> np.ndarray:
    """(3, 56, 56) dark, one block bright."""
    pixels = np.full((3, TILE_PX, TILE_PX), DARK, np.uint8)
    row, col = divmod(block, 2)
    pixels[:, row * 28 : row * 28 + 28, col * 28 : col * 28 + 28] = BRIGHT
    return pixels


def lit_block(row: int, col: int) -> int:
    return (row + 3 * col) % 4


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Each tile has one bright block; half of one is nodata."""
    pixels = np.concatenate(
        [np.concatenate([chip(lit_block(row, col)) for col in range(COLS)], axis=2) for row in range(ROWS)], axis=1
    )
    pixels[:, EMPTY[0] * 56 : (EMPTY[0] + 1) * 56, EMPTY[1] * 56 + 28 : (EMPTY[1] + 1) * 56] = NODATA
    path = tmp_path_factory.mktemp("raster") / "lights.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=3, dtype="uint8", nodata=NODATA,
        crs="EPSG:32631", transform=from_origin(5e5, 5e6, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def request(raster, out, adapter, **options) -> Request:
    settings = {"tile_px": TILE_PX, "device": "cpu", "part_tiles": 18, "batch_size": 16, "evidence": True}
    return Request(sources=(str(raster),), questions=(WATER, WORDS), out=out, adapter=adapter, **settings | options)


@pytest.fixture(scope="module")
def folder(raster, adapter, tmp_path_factory):
    return ask(request(raster, tmp_path_factory.mktemp("out") / "run", adapter)).out


def weights(folder):
    found = xarray.open_zarr(folder / "tiles.zarr", group="lights.tif/water/evidence", decode_coords="all", chunks=None)
    return found["weight"]


def test_the_cell_of_most_weight_covers_the_bright_square(folder, raster):
    weight = weights(folder)
    with rasterio.open(raster) as file:
        pixels = file.read(1)
        for row, col in np.ndindex(ROWS, COLS):
            cells = weight[row * 2 : row * 2 + 2, col * 2 : col * 2 + 2]
            if (row, col) == EMPTY:
                assert np.isnan(cells).to_numpy().tolist() == [[False, True]] * 2
                continue
            assert float(cells.sum()) == pytest.approx(1, abs=1e-5)
            best = cells.where(cells == cells.max(), drop=True)
            assert pixels[file.index(float(best["x"][0]), float(best["y"][0]))] == BRIGHT, (row, col)


def test_the_weights_of_another_question_are_its_own_and_all_lie_in_the_table(folder):
    table = pq.read_table(folder / "answers.parquet").to_pylist()
    assert len(table) == 2 * ROWS * COLS
    for row in table:
        assert len(row["evidence"]) == 4
        assert sum(weight or 0 for weight in row["evidence"]) == pytest.approx(1, abs=1e-5)


def test_a_finished_run_is_rebuilt_to_the_byte(folder):
    def files():
        return {path.relative_to(folder): path.read_bytes() for path in (folder / "tiles.zarr").rglob("*")
                if path.is_file()}  # fmt: skip

    before, table = files(), (folder / "answers.parquet").read_bytes()
    finish(folder)
    assert files() == before
    assert (folder / "answers.parquet").read_bytes() == table


def test_a_resumed_run_has_the_same_evidence(folder, raster, adapter, tmp_path):
    whole = weights(folder).to_numpy()
    ask(request(raster, tmp_path / "run", adapter))
    (tmp_path / "run" / "parts" / "00000001.parquet").unlink()
    assert ask(request(raster, tmp_path / "run", adapter)).parts_resumed > 0
    np.testing.assert_array_equal(weights(tmp_path / "run").to_numpy(), whole)


def test_evidence_belongs_to_the_plan(folder, raster, adapter):
    with pytest.raises(PlanMismatch, match="evidence: 2 there, None asked"):
        ask(request(raster, folder, adapter, evidence=False))


def test_only_an_adapter_that_weighs_blocks_has_evidence(raster, tmp_path, adapter):
    with pytest.raises(UsageError, match="weighs no blocks"):
        ask(request(raster, tmp_path / "run", None, model=str(adapter.parent / "base")))
    with pytest.raises(UsageError, match="weighs no blocks"):
        ask(request(raster, tmp_path / "run", None, model="rsqa.testing:EchoEngine"))


def test_show_prints_it(folder, capsys):
    assert rsqa.cli.run(["show", str(folder), "-q", "water", "--limit", "1", "--evidence"]) == 0
    said = capsys.readouterr()
    assert "evidence" in said.out
    assert " / " in said.out
    assert "proves no answer" in said.err
    assert rsqa.cli.run(["show", str(folder), "-q", "water", "--limit", "1", "--evidence", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["evidence"]) == 4


def test_the_report_has_the_cells_of_every_tile(folder):
    report = gather(folder, 10**6)
    found = report.evidence["water"].reshape(ROWS, COLS, 4)
    for row, col in np.ndindex(ROWS, COLS):
        if (row, col) == EMPTY:
            assert (found[row, col] == 255).tolist() == [False, True] * 2
        else:
            assert found[row, col].argmax() == lit_block(row, col)
