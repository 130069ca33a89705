"""What many conversations take: `python tests/bench/bench_conversations.py 200000`.

Writes so many records about one picture each (links to a few files), reads their places and the headers of the
pictures, and lays out an epoch. Prints a line and, last, one JSON object; memory is what the peak grew by.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from rsqa.engines.cards import CARDS
from rsqa.train.conversation_batches import ConversationBatches, Steps
from rsqa.train.conversations import index_conversations

CAPTION = "The image shows a dense residential area with many buildings, roads and trees in a regular grid. " * 4


def planted(folder: Path, n: int) -> Path:
    """-> a file of n records."""
    Image.new("RGB", (256, 256)).save(folder / "one.jpg")
    file = folder / "conversations.json"
    with file.open("w") as out:
        for number in range(n):
            (folder / f"{number}.jpg").symlink_to(folder / "one.jpg")
            turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": f"{CAPTION}{number}"}]
            record = {"id": str(number), "image": f"{number}.jpg", "conversations": turns}
            out.write(("[\n" if number == 0 else ",\n") + json.dumps(record))
        out.write("\n]\n")
    return file


def measure(n: int) -> dict[str, float]:
    """-> seconds, and megabytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = planted(folder, n)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        found = index_conversations(file, folder)
        indexed = time.perf_counter()
        steps = Steps(seed=0, micro=16, accumulate=2, ranks=4)
        batches = ConversationBatches([found], [1], lambda text: [0] * len(text), 0, CARDS["tinyrs"].model_side, steps)
        n_steps = batches.n_steps(1)
        laid_out = time.perf_counter()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"records": len(found), "steps": n_steps, "index_s": indexed - started, "order_s": laid_out - indexed,
            "peak_mb": grown}  # fmt: skip


if __name__ == "__main__":
    told = measure(int(sys.argv[1]))
    print(", ".join(f"{key} {value:.1f}" for key, value in told.items()))
    print(json.dumps(told))
