"""A benchmark from request to result: the checkpoint, the sides, a table per case, the chart."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsqa.bench.chart import draw
from rsqa.bench.checkpoint import bench_checkpoint
from rsqa.bench.machine import cores, load
from rsqa.bench.measure import Contest, measure
from rsqa.bench.report import figures, lines, remarks, useful_flops, whole_json
from rsqa.bench.request import BenchRequest
from rsqa.bench.work import Setup
from rsqa.engines.registry import choose_device, choose_dtype
from rsqa.models.checkpoint import open_checkpoint


def bench(request: BenchRequest, say: Callable[[str], None], show: Callable[[Sequence[str]], Any]) -> dict[str, Any]:
    """`say` gets progress, `show` the lines of every table. -> everything, as one JSON object."""
    cases, names, busy = request.cases(), request.side_names(), load()
    if busy is not None and busy > 0.5 * cores():
        say(f"the machine is busy (load {busy:.1f} on {cores()} cores): what is measured now is the others, too")
    device = choose_device(request.device)
    dtype = choose_dtype(request.dtype, device)
    rows: list[dict[str, Any]] = []
    keep = request.checkpoint_dir
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="rsqa-bench-model-") as folder:
        say(f"checkpoint: {request.shape}")
        checkpoint = open_checkpoint(bench_checkpoint(request.shape, Path(folder).resolve()))
        threads = request.threads or cores()
        setup = Setup(str(checkpoint.folder), device, dtype, threads, scratch="", batch_size=request.batch_size)
        contest = Contest(setup, cases, names, request.rounds, request.sample, request.rival_tiles, request.vllm_python)
        for measured in measure(contest, say):
            found = figures(measured, useful_flops(checkpoint, measured.case))
            show(["", f"{request.shape}, {dtype}, {device}: {measured.case.name}, {request.tiles} tiles"])
            show([*lines(found), *remarks(found, measured)])
            rows += found
    if request.plot is not None:
        draw(rows, request.plot, f"rsqa bench, {request.shape}, {dtype}, {device}")
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    result = whole_json(contest, asked, busy, rows)
    if request.json is not None:
        request.json.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result
