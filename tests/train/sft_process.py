"""One of several processes that train together: `torchrun … tests/train/sft_process.py DATA OUT LORA_RANK`.

The run is killed twice and each time goes on another way: whole in every process, split over them, and split again.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny_conversations import KilledError, recipe_of, steady_adam

from rsqa.train.log import Watcher
from rsqa.train.published import Published
from rsqa.train.sft import train

RANK = int(os.environ["RANK"])
DIES = {"whole": 3, "split": 5, "split again": None}
STOPS_BEHIND = 7
"""Step behind which one process alone is told to stop, in its last life."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW = steady_adam
    data, out = map(Path, sys.argv[1:3])
    recipe = replace(recipe_of(data), lora_rank=int(sys.argv[3]), steps=8)
    draw = Published.draw
    at = 0
    for how, dies in DIES.items():

        def drawn(self, step, n_micro, dies=dies):
            global at
            at = step
            if step == dies:
                raise KilledError
            return draw(self, step, n_micro)

        Published.draw = drawn
        os.environ["ACCELERATE_USE_FSDP"] = str(how != "whole").lower()
        try:
            train(recipe, data, out, how != "whole", Watcher(stopped=lambda: RANK == 1 and at == STOPS_BEHIND - 1))
        except KilledError:
            assert dies is not None
