"""What TRL's GRPO trainer makes of small fixed cases: run it to write `trl_pins.json` anew (`pip install trl`).

python tests/train/pin_trl.py
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch

PINS = Path(__file__).with_name("trl_pins.json")
GROUP, LONGEST = 4, 6
CASES = {
    "paper": {"loss_type": "grpo", "beta": 0.001, "low": 0.2, "high": 0.2},
    "without KL": {"loss_type": "grpo", "beta": 0.0, "low": 0.2, "high": 0.2},
    "clip higher": {"loss_type": "grpo", "beta": 0.01, "low": 0.1, "high": 0.28},
    "all tokens": {"loss_type": "bnpo", "beta": 0.04, "low": 0.2, "high": 0.2},
    "longest": {"loss_type": "dr_grpo", "beta": 0.04, "low": 0.2, "high": 0.28},
}


def tensors(case):
    """Two groups of texts of 1 to 6 tokens; the ratios lie on both sides of the clip range."""
    generator = torch.Generator().manual_seed(list(CASES).index(case))
    logprob = -3 * torch.rand(2 * GROUP, LONGEST, generator=generator, dtype=torch.float64)
    old, reference = (
        logprob + 0.3 * torch.randn(logprob.shape, generator=generator, dtype=torch.float64) for _ in "ab"
    )
    lengths = torch.tensor([6, 1, 3, 4, 2, 6, 5, 3])
    mask = (torch.arange(LONGEST) < lengths[:, None]).double()
    rewards = torch.tensor([[2.0, 0.0, 1.0, 1.0], [0.4, 1.9, 1.9, 0.0]], dtype=torch.float64)
    return logprob, old, reference, mask, rewards


def trl_advantages(rewards):
    """As in GRPOTrainer._generate_and_score_completions (scale_rewards="group"), with TRL's own deviation."""
    from trl.trainer.utils import nanstd

    centred = rewards - torch.nanmean(rewards, dim=1, keepdim=True)
    return torch.nan_to_num(centred / (nanstd(rewards, dim=1)[:, None] + 1e-4), nan=0.0)


def trl_loss(case):
    """-> (loss, its gradient by the log-probabilities), from GRPOTrainer._compute_loss itself."""
    from trl import GRPOTrainer

    told = CASES[case]
    logprob, old, reference, mask, rewards = tensors(case)
    logprob.requires_grad_(True)
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= {
        "aux_loss_enabled": False, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None,
        "importance_sampling_level": "token", "beta": told["beta"], "loss_type": told["loss_type"],
        "epsilon_low": told["low"], "epsilon_high": told["high"], "use_vllm": False, "max_completion_length": LONGEST,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False), "_entropy_bonus_enabled": False,
        "model": SimpleNamespace(training=True), "current_gradient_accumulation_steps": 1,
        "accelerator": SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_get_per_token_logps_and_entropies": lambda *a, **k: (logprob, torch.zeros_like(logprob), None),
    }  # fmt: skip
    ids = torch.zeros(mask.shape, dtype=torch.long)
    loss = trainer._compute_loss(None, {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask,
        "advantages": trl_advantages(rewards).flatten(), "old_per_token_logps": old, "ref_per_token_logps": reference,
    })  # fmt: skip
    loss.backward()
    return loss.item(), logprob.grad


def main():
    import trl

    pins = {"trl": trl.__version__, "advantages": trl_advantages(tensors("paper")[4]).tolist(), "cases": {}}
    for case in CASES:
        loss, gradient = trl_loss(case)
        pins["cases"][case] = {"loss": loss, "gradient": gradient.tolist()}
    PINS.write_text(json.dumps(pins, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
