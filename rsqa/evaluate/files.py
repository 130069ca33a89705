"""A report as files: `report.json`, `predictions.jsonl`, `reliability.png`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsqa.errors import OutputError
from rsqa.evaluate.evaluate import Prediction
from rsqa.evaluate.report import Report
from rsqa.sinks.whole import write_whole, write_whole_bytes


def make_folder(out: Path) -> None:
    """OutputError before hours are spent on what can't be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".rsqa-eval").write_bytes(b"")
        (out / ".rsqa-eval").unlink()
    except OSError as error:
        raise OutputError(f"can't write into {str(out)!r}: {error.strerror}; choose another --out") from error


def write_report(out: Path, report: Report, predictions: Sequence[Prediction]) -> None:
    """Each file is there whole or not at all."""
    from rsqa.evaluate.diagram import draw

    lines = (json.dumps(_finite(_prediction(one)), ensure_ascii=False, allow_nan=False) for one in predictions)
    write_whole_bytes(out / "predictions.jsonl", "".join(f"{line}\n" for line in lines).encode())
    write_whole(out / "reliability.png", lambda path: draw(report, path))
    text = json.dumps(_finite(asdict(report)), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole_bytes(out / "report.json", f"{text}\n".encode())


def _prediction(one: Prediction) -> dict[str, Any]:
    item, answer = one.item, one.answer
    exact = item.measure in ("exact", "bucket", "box")
    return {
        "picture": item.picture, "type": list(item.types), "question": item.question.text, "kind": item.question.kind,
        "gold": [list(box) for box in item.boxes] if item.question.kind == "box" else list(item.gold),
        "value": answer.value, "text": answer.text, "confidence": answer.confidence, "status": answer.status,
        "score": one.score, "right": bool(one.score) if exact else None,
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """NaN, which JSON does not have, is null; a lone half of a character, which UTF-8 does not have, is replaced."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
