"""Fits what a card says about confidence: temperatures, on pictures that are neither trained on nor validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Engine
from rsqa.engines.cards import CARD_FILE, card_to_json, load_card
from rsqa.engines.registry import load_engine
from rsqa.errors import ModelError
from rsqa.evaluate.asking import option_logprobs
from rsqa.evaluate.items import ItemSet
from rsqa.evaluate.metrics import calibration_error, fit_temperature
from rsqa.evaluate.validation import calibration_items
from rsqa.sinks.whole import write_whole_bytes

BATCH = 64


@dataclass(frozen=True, slots=True)
class Fitted:
    """The temperature of one kind of question. Errors are those of the items that it was fitted on."""

    temperature: float
    n: int
    before: float
    """Expected calibration error at temperature 1."""
    after: float


def fitted_temperatures(engine: Engine, items: ItemSet) -> dict[str, Fitted]:
    """Temperature of least log loss for each kind of closed question among the items.

    ModelError for a model that reasons: one chain of thought has no confidence.
    """
    if engine.card.prompt.reasoning:
        raise ModelError(f"model {engine.card.name!r} reasons before it answers and has no confidence to calibrate")
    scored: dict[str, list[tuple[NDArray[np.float64], int]]] = {}
    for item, logprob in zip(items.items, option_logprobs(engine, items, BATCH), strict=True):
        if item.gold[0] in item.question.options and np.isfinite(logprob).all():
            right = item.question.options.index(item.gold[0])
            scored.setdefault(item.question.kind, []).append((logprob, right))
    return {kind: _fitted(rows) for kind, rows in scored.items()}


def _fitted(rows: list[tuple[NDArray[np.float64], int]]) -> Fitted:
    temperature = fit_temperature([logprob for logprob, _ in rows], [right for _, right in rows])
    hits = np.array([float(logprob.argmax() == right) for logprob, right in rows])
    errors = [
        calibration_error(np.array([_confidence(logprob / t) for logprob, _ in rows]), hits) for t in (1.0, temperature)
    ]
    return Fitted(temperature, len(rows), *errors)


def _confidence(scaled: NDArray[np.float64]) -> float:
    return float(1 / np.exp(scaled - scaled.max()).sum())


def calibrate(folder: Path, data: Path) -> Mapping[str, Fitted]:
    """Write fitted temperatures into the card of a trained model's folder; -> what was fitted."""
    fitted = fitted_temperatures(load_engine(str(folder), "cpu", "float32"), calibration_items(data))
    temperatures = {kind: one.temperature for kind, one in fitted.items()}
    card = replace(load_card(str(folder)), temperatures=temperatures)
    write_whole_bytes(folder / CARD_FILE, card_to_json(card).encode())
    return fitted
