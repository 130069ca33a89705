"""Where the engine's time goes on a device: `python tests/bench/bench_device.py SHAPE DEVICE DTYPE [FOLDER]`.

    python tests/bench/bench_device.py 2b cuda bfloat16        # one GPU, random weights, about ten minutes

SHAPE: nano, 2b or the folder of a model. In this order, each after a warm-up, medians of several rounds: a matrix
product as the ceiling; the vision tower plain and compiled, by batch; answers a second with 1, 8 and 32 closed
questions, with peak memory by batch; the same from kept features; a decode step by rows, as one graph and launched
kernel by kernel, beside the time in which the memory could be read; the kernels that take longest. Prints what it finds
as it goes and, as the last line, one JSON object. Needs no raster library.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsqa.bench.checkpoint import bench_checkpoint
from rsqa.bench.cost import Shape
from rsqa.bench.machine import machine, versions
from rsqa.engines.qwen2vl import Qwen2VLEngine
from rsqa.engines.registry import find_model, load_engine
from rsqa.models import language, vision
from rsqa.models.loading import DTYPES
from rsqa.models.writing import Beginning, Desk
from rsqa.tasks.question import YES_NO, Question

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Grid:
    """What is tried."""

    sides_px: Sequence[int] = (224, 448)
    batches: Sequence[int] = (1, 8, 16, 32, 64, 128)
    questions: Sequence[int] = (1, 8, 32)
    rows: Sequence[int] = (1, 16, 64, 256)
    context: int = 290
    """Tokens held by a row in the decode step."""
    product: int = 8192


def seconds(run: Callable[[], object], device: str, rounds: int = ROUNDS) -> float:
    """Median wall time, the device waited for; the first two calls are not counted."""
    taken = []
    for turn in range(rounds + 2):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        if turn >= 2:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _peak_mb(device: str) -> float | None:
    """Since the last call; None on a CPU."""
    if device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e6
    torch.cuda.reset_peak_memory_stats()
    return peak


def ceiling(device: str, dtype: str, n: int) -> dict[str, float]:
    a, b = torch.rand(2, n, n, device=device).sub(0.5).to(dtype=DTYPES[dtype])
    copied = torch.empty_like(a)
    return {
        "flop_per_s": 2 * n**3 / seconds(lambda: a @ b, device),
        "bytes_per_s": 2 * a.nbytes / seconds(lambda: copied.copy_(a), device),
    }


def chips_of(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def towers(engine: Qwen2VLEngine, shape: Shape, grid: Grid, top: float) -> list[dict[str, Any]]:
    """The vision part, plain and compiled in turns."""
    rows, device = [], engine.device.type
    plain = replace(engine.vision, enter=vision.enter, leave=vision.leave)
    for side in grid.sides_px:
        turns = engine.vision.turns(side, side)
        for batch in grid.batches:
            pixels = torch.from_numpy(chips_of(batch, side)).to(engine.device)
            row: dict[str, Any] = {"px": side, "batch": batch}
            for name, tower in (("plain", plain), ("compiled", plain.compiled())):
                taken = seconds(lambda t=tower, p=pixels, r=turns: vision.encode(t, p, r), device)  # type: ignore[misc]
                row[f"{name}_tiles_per_s"] = batch / taken
                row[f"{name}_share"] = shape.vision((side // 14) ** 2) * batch / taken / top
            rows.append(_say(row))
    return rows


def answering(engine: Qwen2VLEngine, shape: Shape, grid: Grid, top: float) -> list[dict[str, Any]]:
    """Closed questions, from pixels and from kept features, with peak memory."""
    rows, device = [], engine.device.type
    words = len(engine.words.before) + len(engine.words.after)
    for side in grid.sides_px:
        for n_questions in grid.questions:
            asked = [Question(f"q{i}", f"Is there a thing of kind {i}?", "yesno", YES_NO) for i in range(n_questions)]
            suffixes = [len(engine.words.suffix(question)) for question in asked]
            for batch in grid.batches:
                session, chips = engine.prepare(asked, (side, side), batch), chips_of(batch, side)
                _peak_mb(device)
                taken = seconds(lambda s=session, c=chips: s.answer(c), device)  # type: ignore[misc]
                peak, seen = _peak_mb(device), session.see(chips)
                again = seconds(lambda s=session, f=seen: s.answer_seen(f), device)  # type: ignore[misc]
                flops = shape.tile((side // 14) ** 2, words, suffixes, 1)
                rows.append(_say({
                    "px": side, "questions": n_questions, "batch": batch, "tiles_per_s": batch / taken,
                    "answers_per_s": batch * n_questions / taken, "share": flops * batch / taken / top,
                    "peak_mb": peak, "again_tiles_per_s": batch / again,
                }))  # fmt: skip
    return rows


def decoding(engine: Qwen2VLEngine, grid: Grid, copied: float) -> list[dict[str, Any]]:
    """A step of many texts: recorded as a graph (on a GPU), and launched kernel by kernel."""
    rows, device, speech = [], engine.device.type, engine.language
    plain = replace(speech, enter=language.enter, leave=language.leave)
    for n in grid.rows:
        row: dict[str, Any] = {"rows": n, "context": grid.context}
        for name, speaker in (("graph", speech), ("launched", plain)):
            desk = held_desk(speaker, n, grid.context)
            if name == "launched":
                desk._step = desk._advance  # type: ignore[assignment]
            row[f"{name}_ms"] = 1e3 * seconds(lambda d=desk: d.write(8, grid.context), device) / 8  # type: ignore[misc]
        matrices = (w for layer in speech.layers for w in (layer.qkv, layer.out, layer.gate, layer.up, layer.down))
        weights = sum(m.nbytes for m in matrices if isinstance(m, torch.Tensor)) + speech.head.nbytes
        keys = sum(2 * k[:, :, : grid.context].nbytes for k, _ in desk.layers)
        row["limit_ms"] = 1e3 * (weights + keys) / copied
        rows.append(_say(row))
    return rows


def held_desk(speaker: language.Language, n: int, context: int) -> Desk:
    """Rows that hold `context` tokens of no meaning, but numbers."""
    desk, device = Desk(speaker, n), speaker.words.device
    layer = speaker.layers[0]
    channels = len(layer.qkv_bias) // (layer.heads + 2 * layer.kv_heads)
    like = {"device": device, "dtype": speaker.words.dtype}
    prefix = [(torch.randn(1, layer.kv_heads, context - 1, channels, **like),) * 2 for _ in speaker.layers]
    suffix = [(torch.randn(1, layer.kv_heads, 1, channels, **like),) * 2 for _ in speaker.layers]
    places, nothing = torch.arange(n, device=device), torch.zeros(n, dtype=torch.long, device=device)
    desk.begin(Beginning(places, nothing + 1, prefix, suffix, nothing, nothing[:1], context))
    return desk


def kernels(engine: Qwen2VLEngine, side: int, batch: int) -> list[dict[str, Any]]:
    """What takes longest in answering 8 questions."""
    from torch.profiler import ProfilerActivity, profile

    asked = [Question(f"q{i}", f"Is there a thing of kind {i}?", "yesno", YES_NO) for i in range(8)]
    session, chips = engine.prepare(asked, (side, side), batch), chips_of(batch, side)
    session.answer(chips)
    on_gpu = engine.device.type != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        session.answer(chips)
    found = [(e.key, e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in seen.key_averages()]
    whole = sum(taken for _, taken in found) or 1
    longest = sorted(found, key=lambda pair: -pair[1])[:12]
    return [_say({"kernel": name[:80], "share": taken / whole}) for name, taken in longest]


def _say(row: dict[str, Any]) -> dict[str, Any]:
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def run(shape: str, device: str, dtype: str, folder: Path, grid: Grid) -> dict[str, Any]:
    engine = load_engine(find_model(str(bench_checkpoint(shape, folder))), device, dtype)
    assert isinstance(engine, Qwen2VLEngine)
    costs = Shape.of(json.loads((folder / "config.json").read_text()))
    with torch.inference_mode():
        top = ceiling(device, dtype, grid.product)
        _say(top)
        flops, copied = top["flop_per_s"], top["bytes_per_s"]
        return {
            "bench": "device", "shape": shape, "dtype": dtype, "machine": machine(device), "versions": versions(),
            "ceiling": top, "vision": towers(engine, costs, grid, flops),
            "answers": answering(engine, costs, grid, flops), "decode": decoding(engine, grid, copied),
            "kernels": kernels(engine, max(grid.sides_px), min(32, max(grid.batches))),
        }  # fmt: skip


if __name__ == "__main__":
    shape, device, dtype, *where = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(shape, device, dtype, Path(where[0] if where else scratch) / "model", Grid())))
