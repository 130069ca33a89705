"""`rsqa models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsqa.cli import options as opt
from rsqa.cli.output import emit, emit_json, log, start_output, table

if TYPE_CHECKING:
    from rsqa.engines.cards import ModelCard


def models(json: opt.Json = False) -> None:
    """List the models that rsqa knows, with licence, size and where they are on disk."""
    start_output()
    from rsqa.engines.cards import CARDS
    from rsqa.engines.registry import embedded_names

    found = [*map(_embedded, embedded_names()), *(_shipped(card) for card in CARDS.values())]
    if json:
        emit_json(found)
        return
    rows = [(m["name"], m["title"], m["size"], m["licence"], m["where"]) for m in found]
    emit(table(("name", "title", "parameters", "licence of the weights", "where"), rows))
    for model in found:
        if model["data_licence"]:
            log.info("%s was trained on: %s", model["name"], model["data_licence"])
    log.info("absent models are fetched by rsqa ask --model NAME; a folder with a Qwen2-VL model works as well")


def _embedded(name: str) -> dict[str, Any]:
    from rsqa.engines.cards import CARD_FILE, load_card
    from rsqa.engines.registry import embedded_folder

    folder = embedded_folder(name)
    if not (folder / CARD_FILE).is_file():
        facts: dict[str, Any] = dict.fromkeys(("title", "size", "parameters", "licence", "data_licence", "hub_id"))
        return {"name": name, **facts, "where": "missing from this installation", "folder": None}
    return _facts(load_card(str(folder))) | {"where": "embedded", "folder": str(folder)}


def _shipped(card: ModelCard) -> dict[str, Any]:
    from rsqa.models.hub import cached

    folder = cached(card.hub_id)
    where = "absent" if folder is None else "hub cache"
    return _facts(card) | {"where": where, "folder": None if folder is None else str(folder)}


def _facts(card: ModelCard) -> dict[str, Any]:
    unit, letter = (1e9, "B") if card.parameters >= 1e9 else (1e6, "M")
    return {
        "name": card.name,
        "title": card.title,
        "size": f"{card.parameters / unit:.1f} {letter}",
        "parameters": card.parameters,
        "licence": card.licence,
        "data_licence": card.data_licence,
        "hub_id": card.hub_id,
    }
