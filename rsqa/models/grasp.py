"""GRASP: vectors for a question, mixed from those of the picture's blocks by what the question is about.

Guided region-aware sparse prompting (arXiv 2601.17089): the grid of visual tokens is cut into blocks, each with prompt
vectors of its own; the question chooses blocks, most of them with weight zero. `paper` is that. `robust` keeps the
scores of the blocks apart, so that the choice becomes sparse, and lets the vectors tell what the chosen blocks show of
what is asked. All arithmetic is float32, whatever the base.

B pictures, S visual tokens, D width, Q questions, N blocks, K vectors of a block, H inner width, R of what is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsqa.models.entmax import entmax15, softmax, sparsemax, top2
from rsqa.models.prompt_adapter import PromptShape

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "entmax15": entmax15, "sparsemax": sparsemax, "softmax": softmax, "top2": top2,
}  # fmt: skip
PAPER_DEVIATION = 0.02
"""Of the first prompts; the paper does not tell it."""
POSITION_WEIGHT, TEMPERATURE, SPREAD = 0.1, 1.5, 0.1
"""What robust mode starts from: 1.5 leaves a block without weight in four of ten cases. Blocks whose scores differ by
much less than the spread weigh the same, so a question can leave all of them alone."""
LEAST_SPREAD = 1e-3
"""Below it scores are taken to be equal, whatever has been learned."""


class Prompted(NamedTuple):
    """What an adapter says of some pictures and questions."""

    slots: Tensor
    """(B, Q, K, D) float32 vectors that are read as words."""
    weights: Tensor
    """(B, Q, N) float32 share of each block: not negative, sum 1, or all zero where no block holds a valid token. N is
    0 for methods without blocks."""
    scores: Tensor | None = None
    """(B, Q, N) that the weights were made from; None for methods that score no blocks."""


class Grasp(nn.Module):
    """See above. `prompts` and, unless all blocks weigh the same, two projections: N·K·D + 2·(D·H + H) parameters;
    three more in robust mode, and 2·(D·R + R) + R·K·D with a context. (The bias of `blocks` moves all scores
    of a question alike: it never learns.)
    """

    def __init__(self, shape: PromptShape) -> None:
        super().__init__()
        self.shape = shape
        d, h = shape.width, shape.inner
        self.prompts = nn.Parameter(torch.randn(shape.blocks, shape.tokens, d) * PAPER_DEVIATION)
        if shape.asks:
            self.blocks, self.question = nn.Linear(d, h), nn.Linear(d, h)
            if shape.mode == "robust":
                self.position_weight = nn.Parameter(torch.tensor(POSITION_WEIGHT))
                self.temperature = nn.Parameter(torch.tensor(TEMPERATURE))
                self.least_spread = nn.Parameter(torch.tensor(SPREAD))
            self.register_buffer("places", block_positions(shape.side, d), persistent=False)
        if shape.tells:
            self.shown, self.wanted = nn.Linear(d, shape.context), nn.Linear(d, shape.context)
            self.told = nn.Linear(shape.context, shape.tokens * d, bias=False)
            nn.init.zeros_(self.told.weight)  # it begins with the prompts alone

    def forward(
        self, visual: Tensor, grid: tuple[int, int], questions: Tensor, valid: Tensor | None = None
    ) -> Prompted:
        """(B, S, D) visual tokens of `grid` (rows, cols), (Q, D) or (B, Q, D) questions, (B, S) tokens that show
        ground, by default all of them.
        """
        with torch.autocast(visual.device.type, enabled=False):
            means, present = block_means(visual.float(), grid, self.shape.side, valid)
            weights, scores = self.weigh(means, present, questions.float())
            slots = torch.einsum("bqn,nkd->bqkd", weights, self.prompts)
            if self.shape.tells:
                slots = slots + self.tell(weights @ means, questions.float())
            return Prompted(slots, weights, scores)

    def weigh(self, means: Tensor, present: Tensor, questions: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, N, D) blocks, (B, N) whether a block can be chosen -> (B, Q, N) weights, and the scores behind them."""
        there = present[:, None].expand(-1, questions.shape[-2], -1)
        if not self.shape.asks:
            return there / there.sum(dim=-1, keepdim=True).clamp(min=1), None
        scores = self.scores(means, questions)
        if self.shape.mode == "robust":
            scores = self.temperature * standardised(scores, there, self.least_spread)
        choosable = there | ~there.any(dim=-1, keepdim=True)  # where there is none all weights are taken away below
        return FUSIONS[self.shape.fusion](scores.masked_fill(~choosable, -torch.inf)) * there, scores

    def tell(self, chosen: Tensor, questions: Tensor) -> Tensor:
        """(B, Q, D) features of the chosen blocks, (…, Q, D) -> (B, Q, K, D) what they show of what is asked."""
        chosen, questions = (F.layer_norm(x, x.shape[-1:]) for x in (chosen, questions))
        met = F.gelu(self.shown(chosen)) * self.wanted(questions)
        told: Tensor = self.told(met).unflatten(-1, (self.shape.tokens, self.shape.width))
        return told

    def scores(self, means: Tensor, questions: Tensor) -> Tensor:
        """(B, N, D), (…, Q, D) -> (B, Q, N) scaled products."""
        places: Tensor = self.get_buffer("places")
        if self.shape.mode == "robust":  # the raw encoding is several times as long as what it is added to
            means, questions = (F.layer_norm(x, x.shape[-1:]) for x in (means, questions))
            places = self.position_weight * 2**0.5 * places  # of unit root mean square
        if self.shape.positions:
            means = means + places
        keys, queries = self.blocks(means), self.question(questions)
        scores: Tensor = queries @ keys.transpose(-1, -2) / self.shape.inner**0.5
        return scores


def block_of(grid: tuple[int, int], side: int) -> Tensor:
    """(rows, cols) of the visual tokens -> (S,) the block of each, in row order as the blocks.

    Rows and columns of a block differ by one at most; a grid finer than the tokens leaves blocks empty.
    """
    row, col = (torch.arange(n) * side // n for n in grid)
    return (row[:, None] * side + col).flatten()


def block_means(visual: Tensor, grid: tuple[int, int], side: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(B, S, D), (B, S) valid tokens -> (B, N, D) means of these, zero where there are none, and (B, N) whether there
    are any.
    """
    block = block_of(grid, side).to(visual.device)
    members = F.one_hot(block, side * side).T.to(visual.dtype).expand(len(visual), -1, -1)  # (B, N, S)
    if valid is not None:
        members = members * valid[:, None]
    count = members.sum(dim=-1)
    return members @ visual / count.clamp(min=1)[..., None], count > 0


def block_positions(side: int, width: int) -> Tensor:
    """-> (N, D) fixed encoding: a half of the channels tells the row of a block, a half its column, in sines and
    cosines of ever longer waves.
    """
    quarter = width // 4
    angles = torch.arange(side)[:, None] / 10_000 ** (torch.arange(quarter) / quarter)  # (side, D / 4)
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, cols = one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)
    return torch.cat([rows, cols], dim=2).reshape(side * side, width)


def standardised(scores: Tensor, there: Tensor, least: Tensor) -> Tensor:
    """(B, Q, N) -> of mean 0 over the blocks that are there, and deviation 1 where it was much above the least."""
    n = there.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = (scores - (scores * there).sum(dim=-1, keepdim=True) / n) * there
    variance = (centred**2).sum(dim=-1, keepdim=True) / n
    return centred * (variance + least**2 + LEAST_SPREAD**2).rsqrt()


def spread(weights: Tensor) -> Tensor:
    """(…, N) weights -> (…) their entropy, 1 where all blocks weigh the same and 0 where one has all."""
    n = weights.shape[-1]
    entropy: Tensor = torch.special.entr(weights).sum(dim=-1)
    return entropy / math.log(max(n, 2))
