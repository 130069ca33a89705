"""What GRASP is measured against, in the same place: vectors that no block of the picture chooses.

B pictures, S visual tokens, D width, Q questions, K vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsqa.errors import ModelError
from rsqa.models.grasp import PAPER_DEVIATION, Grasp, Prompted
from rsqa.models.prompt_adapter import PromptAdapter, PromptShape


class StaticPrompt(nn.Module):
    """The same K vectors for every picture and question (prompt tuning, arXiv 2104.08691): K·D parameters."""

    def __init__(self, shape: PromptShape) -> None:
        super().__init__()
        self.shape = shape
        self.prompts = nn.Parameter(torch.randn(shape.tokens, shape.width) * PAPER_DEVIATION)

    def forward(
        self, visual: Tensor, grid: tuple[int, int], questions: Tensor, valid: Tensor | None = None
    ) -> Prompted:
        """See `Grasp.forward`."""
        return _unchosen(self.prompts.expand(len(visual), -1, -1), questions)


class ConditionalPrompt(nn.Module):
    """K vectors moved by one that a small network makes of the picture's mean (CoCoOp, arXiv 2203.05557).

    K·D + 2·D·⌊D/16⌋ + D + ⌊D/16⌋ parameters.
    """

    def __init__(self, shape: PromptShape) -> None:
        super().__init__()
        self.shape = shape
        d, bottleneck = shape.width, max(1, shape.width // 16)
        self.prompts = nn.Parameter(torch.randn(shape.tokens, d) * PAPER_DEVIATION)
        self.network = nn.Sequential(nn.Linear(d, bottleneck), nn.ReLU(), nn.Linear(bottleneck, d))

    def forward(
        self, visual: Tensor, grid: tuple[int, int], questions: Tensor, valid: Tensor | None = None
    ) -> Prompted:
        """See `Grasp.forward`."""
        with torch.autocast(visual.device.type, enabled=False):
            shown = torch.ones(visual.shape[:2], device=visual.device) if valid is None else valid.float()
            mean = (visual.float() * shown[..., None]).sum(dim=1) / shown.sum(dim=1, keepdim=True).clamp(min=1)
            return _unchosen(self.prompts + self.network(mean)[:, None], questions)


def _unchosen(prompts: Tensor, questions: Tensor) -> Prompted:
    """(B, K, D) for every question."""
    b, n_questions = len(prompts), questions.shape[-2]
    return Prompted(prompts[:, None].expand(-1, n_questions, -1, -1), prompts.new_empty(b, n_questions, 0))


Prompter = Grasp | StaticPrompt | ConditionalPrompt
METHODS: dict[str, Any] = {"grasp": Grasp, "static": StaticPrompt, "cocoop": ConditionalPrompt}


def prompter_of(shape: PromptShape) -> Prompter:
    """A new one, by torch's generator."""
    made: Prompter = METHODS[shape.method](shape)
    return made


def load_prompter(adapter: PromptAdapter) -> Prompter:
    """The one that an adapter folder holds. ModelError when its tensors are not those of its shape, or not finite."""
    prompter, tensors = prompter_of(adapter.shape), load_file(adapter.weights)
    wanted = {name: (tensor.shape, torch.float32) for name, tensor in prompter.state_dict().items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != wanted:
        raise ModelError(
            f"adapter {adapter.folder.name!r} has other weights than its configuration tells; copy it again"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelError(f"adapter {adapter.folder.name!r} has weights that are no finite numbers; train it again")
    prompter.load_state_dict(tensors)
    return prompter.requires_grad_(False).eval()
