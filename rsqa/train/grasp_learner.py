"""The forward pass of adapters: the picture's prefix once, and behind it slots and questions, as the engine reads them.

R rows, S visual tokens, T text tokens, P prefix tokens, C questions of a row, K slots, D width, E width of the tower.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsqa.engines.cards import PIXELS_PER_TOKEN
from rsqa.models.grasp import Prompted
from rsqa.models.language import Language, language_of, read
from rsqa.models.rivals import Prompter, prompter_of
from rsqa.models.rotary import Turns, image_positions
from rsqa.models.vision import encode, merged, vision_of
from rsqa.train.adapter import with_lora
from rsqa.train.forward import Framed, Said
from rsqa.train.grasp_recipe import PROMPTS, GraspRecipe
from rsqa.train.packing import IGNORE, Packed, packed_mask

FREQUENT = 2000
"""Prompts start as word vectors of the first so many tokens, which a vocabulary of byte pairs lists first."""


class Learner(nn.Module):
    """A base and what is trained around it; all else stands still."""

    def __init__(self, network: Any, recipe: GraspRecipe) -> None:
        super().__init__()
        self.network = network.requires_grad_(recipe.method == "full")
        self.recipe = recipe
        self.prompter: Prompter | None = None
        self.patches: nn.Parameter | None = None
        self.head: nn.Linear | None = None
        words = network.model.language_model.embed_tokens.weight
        if recipe.method in PROMPTS:
            self.prompter = prompter_of(recipe.shape(words.shape[1]))
            if recipe.mode == "robust":
                _start_from_words(self.prompter, words)
        elif recipe.method == "vpt":
            width = network.model.visual.patch_embed.embed_dim
            self.patches = nn.Parameter(torch.randn(recipe.tokens, width) * width**-0.5)
        elif recipe.method in ("lora", "dora"):
            with_lora(network, recipe.rank, 2 * recipe.rank, dora=recipe.method == "dora")

    def probe(self, n_answers: int) -> None:
        """Put a linear layer in the place of the base's words."""
        width = self.network.model.language_model.embed_tokens.weight.shape[1]
        self.head = nn.Linear(width, n_answers).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = self.network.lm_head.weight.device
        return device

    @property
    def sees(self) -> bool:
        """Whether the tower sees otherwise after each step."""
        return self.recipe.method in ("vpt", "full")

    def trained(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def see(self, pixels: Tensor) -> Tensor:
        """(R, 3, h, w) -> (R, S, D)."""
        tower = vision_of(self.network.model.visual)
        turns = tower.turns(*pixels.shape[2:])
        if self.patches is None:
            return encode(tower, pixels, turns)
        x = tower.embed(pixels)
        n = len(self.patches)
        still = torch.ones(n, *turns.cos.shape[1:], device=x.device)
        turns = Turns(torch.cat([still, turns.cos]), torch.cat([0 * still, turns.sin]))
        x = torch.cat([self.patches.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        for block in tower.blocks:
            x = tower.leave(block, x, F.scaled_dot_product_attention(*tower.enter(block, x, turns)))
        return merged(tower, x[:, n:])

    def forward(
        self, visual: Tensor, grid: tuple[int, int], framed: Framed, text: Packed, questions: Tensor
    ) -> tuple[Said, Prompted | None]:
        """(R, S, D) visual tokens of `grid` (rows, cols), (R, C, D) vectors of the questions -> what is said of each
        token that must follow, and what was put before the questions.
        """
        language = language_of(self.network)
        prompted: Prompted | None = None if self.prompter is None else self.prompter(visual, grid, questions)
        slots = None if prompted is None else prompted.slots.flatten(1, 2)
        before, after = (
            torch.tensor([ids], device=visual.device).expand(len(visual), -1) for ids in (framed.before, framed.after)
        )
        prefix, start = image_positions(len(framed.before), *grid, len(framed.after))
        # What no gradient comes back from is read as at inference.
        fixed = self.prompter is not None and not self.recipe.before_image
        with torch.no_grad() if fixed else nullcontext():
            x = torch.cat([_embed(language, before, slots), visual, _embed(language, after, slots)], dim=1)
            nothing = torch.empty(0, dtype=torch.long, device=x.device)
            _, keys = read(language, x, language.turns(prefix), wanted=nothing)
        behind = language.turns((text.depth + start)[None].expand(3, -1, -1))
        mask = packed_mask(text.turn, prefix.shape[1])[:, :, prefix.shape[1] :]
        hidden, _ = read(language, _embed(language, text.ids, slots), behind, mask, keys)
        asked = text.labels != IGNORE
        logits = language.logits(hidden[asked]) if self.head is None else self.head(hidden[asked].float())
        labels = text.labels[asked]
        said = Said(-F.cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(dim=-1) == labels)
        return said, prompted


def _embed(language: Language, ids: Tensor, slots: Tensor | None) -> Tensor:
    """(R, T) tokens, -1 - n for slot n, (R, slots, D) -> (R, T, D)."""
    x = language.embed(ids.clamp(min=0))
    if slots is None or not slots.shape[1]:
        return x
    chosen = (-1 - ids).clamp(min=0)[..., None].expand(-1, -1, x.shape[-1])
    return torch.where(ids[..., None] < 0, slots.gather(1, chosen).to(x.dtype), x)


@torch.no_grad()
def _start_from_words(prompter: Prompter, words: Tensor) -> None:
    """Vectors of the length that the language part is used to (arXiv 2104.08691, section 3.2), by torch's generator."""
    n, prompts = min(FREQUENT, len(words)), prompter.prompts
    drawn = words[torch.randint(n, (prompts.numel() // prompts.shape[-1],))]
    prompts.copy_(drawn.reshape(prompts.shape))


def grid_of(side_px: int) -> tuple[int, int]:
    """Visual tokens of a square picture, rows and columns."""
    return side_px // PIXELS_PER_TOKEN, side_px // PIXELS_PER_TOKEN
