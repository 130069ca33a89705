"""Fits what a card says about confidence: temperatures, on pictures that are neither trained on nor validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rsqa.engines.base import Engine
from rsqa.engines.cards import CARD_FILE, card_to_json, load_card
from rsqa.engines.registry import load_engine
from rsqa.evaluate.items import classes, label_presence
from rsqa.evaluate.metrics import fit_temperature
from rsqa.evaluate.nano import ask
from rsqa.train.data import read_parquet, ucm_labels


def fitted_temperatures(engine: Engine, data: Path) -> dict[str, float]:
    """Temperature of least log loss for yes/no and choice questions, on the calibration part of `data`."""
    ucm, aid = (read_parquet(data, name, "calibration") for name in ("ucm", "aid"))
    sets = {"yesno": [label_presence(ucm, ucm_labels(data))], "choice": [classes("ucm", ucm), classes("aid", aid)]}
    fitted = {}
    for kind, parts in sets.items():
        answered = [
            (got.logprobs, item)
            for items in parts
            for got, item in zip(ask(engine, items, items.chips), items.items, strict=True)
        ]
        logprobs = [scores for scores, _ in answered if scores is not None]
        fitted[kind] = fit_temperature(logprobs, [item.question.options.index(item.gold) for _, item in answered])
    return fitted


def calibrate(folder: Path, data: Path) -> dict[str, float]:
    """Write fitted temperatures into the card of a trained model's folder; -> what was written."""
    temperatures = fitted_temperatures(load_engine(str(folder), "cpu", "float32"), data)
    card = replace(load_card(str(folder)), temperatures=temperatures)
    part = folder / f".{CARD_FILE}.part"
    part.write_text(card_to_json(card), encoding="utf-8")
    part.replace(folder / CARD_FILE)
    return temperatures
