import pytest

from rsqa.engines import sizing
from rsqa.engines.cards import CARDS
from rsqa.engines.registry import find_model
from rsqa.engines.sizing import default_batch, memory_estimate
from rsqa.models.checkpoint import open_checkpoint

GIB = 2**30


@pytest.mark.parametrize(("tile", "batch"), [(448, 1), (224, 4), (1024, 1), (28, 64)])
def test_patches_bound_the_batch(tile, batch, random_folder, monkeypatch):
    monkeypatch.setattr(sizing, "_free_ram", lambda: 10_000 * GIB)
    assert default_batch(find_model(str(random_folder(0)), "tinyrs"), (tile, tile), "cpu", "float32") == batch


def test_chips_and_memory_bound_the_batch(random_folder, tmp_path, monkeypatch):
    folder = random_folder(0)
    one_side = tmp_path / "card.json"
    one_side.write_text('{"name": "n", "title": "n", "licence": "n", "side_px": 56}')
    model = find_model(str(folder), str(one_side))
    monkeypatch.setattr(sizing, "_free_ram", lambda: 10_000 * GIB)
    assert default_batch(model, (1024, 1024), "cpu", "float32") == 128 * 2**20 // (3 * 1024**2)
    each = memory_estimate(open_checkpoint(folder), model.card, (56, 56), "float32")
    monkeypatch.setattr(sizing, "_free_ram", lambda: 10 * each)
    assert 4 <= default_batch(model, (56, 56), "cpu", "float32") <= 8
    assert default_batch(model, (56, 56), "cpu", "float32", processes=100) == 1


def test_free_memory_is_plausible():
    assert 2**24 < sizing._free_ram() < 2**50


def test_estimate_of_the_2b_shape(random_folder):
    """A 448 px tile in bfloat16: some hundred megabytes, most of it the packed questions."""
    checkpoint = open_checkpoint(random_folder(0))
    config = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vision_config": {"embed_dim": 1280},
    }  # fmt: skip
    checkpoint.config.clear()
    checkpoint.config.update(config)
    assert 80 * 2**20 < memory_estimate(checkpoint, CARDS["tinyrs"], (448, 448), "bfloat16") < 300 * 2**20
