"""One of several processes that train together: `torchrun … tests/train/sft_process.py DATA OUT LORA_RANK`.

The run is killed twice and each time goes on another way: whole in every process, split over them, and split again.
"""

import os
import sys
from dataclasses import replace
from itertools import count, repeat
from pathlib import Path

import torch
from tiny_conversations import KilledError, recipe_of, steady_adam

from rsqa.train.log import Watcher
from rsqa.train.published import Published
from rsqa.train.sft import train

RANK = int(os.environ["RANK"])
DIES = {"whole": 3, "split": 5, "split again": None}
STOPS_BEHIND = 3
"""Steps of its last life behind which one process alone is told to stop: the seventh of the run."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW = steady_adam
    data, out = map(Path, sys.argv[1:3])
    recipe = replace(recipe_of(data), lora_rank=int(sys.argv[3]), steps=8)
    draw = Published.draw
    for how, dies in DIES.items():

        def drawn(self, step, n_micro, dies=dies):
            if step == dies:
                raise KilledError
            return draw(self, step, n_micro)

        Published.draw = drawn
        steps = count(1) if RANK == 1 and dies is None else repeat(0)
        os.environ["ACCELERATE_USE_FSDP"] = str(how != "whole").lower()
        try:
            watcher = Watcher(stopped=lambda steps=steps: next(steps) == STOPS_BEHIND)
            train(recipe, data, out, how != "whole", watcher)
        except KilledError:
            assert dies is not None
