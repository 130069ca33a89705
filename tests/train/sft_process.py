"""One of several processes that train together: `torchrun … tests/train/sft_process.py DATA OUT LORA_RANK`.

The run is killed in its fourth and its last step, and goes on another way: whole in every process, split over them, and
split again.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny_conversations import KilledError, recipe_of, steady_adam

from rsqa.train.published import Published
from rsqa.train.sft import train

DIES = {"whole": 3, "split": 5, "split again": -1}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW = steady_adam
    data, out = map(Path, sys.argv[1:3])
    recipe = replace(recipe_of(data), lora_rank=int(sys.argv[3]))
    draw = Published.draw
    for how, dies in DIES.items():

        def drawn(self, step, n_micro, dies=dies):
            if step == dies:
                raise KilledError
            return draw(self, step, n_micro)

        Published.draw = drawn
        os.environ["ACCELERATE_USE_FSDP"] = str(how != "whole").lower()
        try:
            train(recipe, data, out, resume=how != "whole")
        except KilledError:
            assert dies >= 0
