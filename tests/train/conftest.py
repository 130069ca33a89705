"""Fixtures for the tests of adapters. What takes seconds to import is imported by those that use them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of a tiny model with a card."""
    from tiny_adapters import CARD

    from rsqa.engines.cards import card_to_json
    from rsqa.testing import write_random_checkpoint

    folder = write_random_checkpoint(tmp_path_factory.mktemp("models") / "base")
    (folder / "rsqa-card.json").write_text(card_to_json(CARD))
    return folder


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """The folder of an adapter of `base`, all parts changed."""
    from tiny_adapters import CARD, network_of, trained

    from rsqa.engines.registry import find_model
    from rsqa.train.adapter import PARTS, save_adapter, with_lora

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    network = trained(with_lora(network_of(base), 3, 6, list(PARTS)))
    save_adapter(folder, network, find_model(str(base)), CARD)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of `saved`, to be damaged."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for path in saved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy
