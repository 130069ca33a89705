"""One of several processes that train together: `torchrun … tests/train/grpo_process.py INIT OUT`."""

import sys
from pathlib import Path

import torch
from test_grpo import Stream, letters, prompt, tiny_recipe

from rsqa.train import rewards
from rsqa.train.grpo import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW = lambda weights, lr, weight_decay: torch.optim.SGD(weights, lr=1.0)
    rewards.REWARDS["gated"] = letters
    train(tiny_recipe(sys.argv[1]), Stream(), [prompt(100), prompt(101)], Path(sys.argv[2]))
